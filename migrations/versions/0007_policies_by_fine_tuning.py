"""A policy may come about by fine-tuning as well: the words that say where it comes from."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ROUND_STATES = (
    "sampling: the current policy writes responses to be compared;"
    " labelling: people label; the trigger has not fired yet;"
    " fitting: a reward model is fitted on the round's snapshot;"
    " improving: {improving};"
    " evaluating: the new policy is measured, by the evaluation reward model and, if asked, by people;"
    " promoted: the new policy is the project's current one;"
    " rejected: the new policy was not better; the old one stays;"
    " failed: a step failed for good; `failure` says why;"
    " cancelled: an admin stopped it"
)
_STEPS = (
    "sample_responses: the policy answers prompts; comparisons are opened;"
    " fit_reward_model: a training and an evaluation reward model are fitted;"
    " improve_policy: {improving};"
    " evaluate_policy: new, parent and version 0 are sampled on test prompts and scored"
)


def upgrade() -> None:
    """Apply."""
    _say(
        state="the policy is improved: by PPO, by fine-tuning on labels, or by both",
        step="PPO against the training reward model, fine-tuning on labels, or both",
        parent="the policy that it was improved from",
        reward_model="what PPO climbed; empty for version 0, and where labels alone were fine-tuned on",
    )


def downgrade() -> None:
    """Take back."""
    _say(
        state="PPO improves the policy",
        step="PPO against the training reward model",
        parent="the policy that PPO started from",
        reward_model=None,
    )


def _say(*, state: str, step: str, parent: str, reward_model: str | None) -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.alter_column("rounds", "state", comment=_ROUND_STATES.format(improving=state))
    op.alter_column("runs", "step", comment=_STEPS.format(improving=step))
    op.alter_column("policies", "parent_id", comment=parent)
    op.alter_column("policies", "reward_model_id", comment=reward_model)
