"""A win rate over a single prompt has no interval."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.alter_column(
        "policy_scores",
        "winrate_low",
        existing_type=sa.Float(),
        nullable=True,
        comment="95 % interval, bootstrap by prompt; empty where there is one prompt",
    )
    op.alter_column("policy_scores", "winrate_high", existing_type=sa.Float(), nullable=True)


def downgrade() -> None:
    """Take back; what has no interval gets one without width, as it had before."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    for end in ("winrate_low", "winrate_high"):
        op.execute(f"UPDATE policy_scores SET {end} = winrate WHERE {end} IS NULL")
    op.alter_column(
        "policy_scores",
        "winrate_low",
        existing_type=sa.Float(),
        nullable=False,
        comment="95 % interval, bootstrap by prompt",
    )
    op.alter_column("policy_scores", "winrate_high", existing_type=sa.Float(), nullable=False)
