"""What does each step of a round do? It reads rows, learns, and writes rows: the one border between the two halves.

Every step has the same shape: a short transaction that reads, no transaction while the model works, and a short one
that locks the attempt, writes the results and moves the round on. It can be killed at any instant and run again.
"""

from collections.abc import Callable, Mapping

from app.tables import Step
from worker.attempt import Attempt
from worker.steps.evaluate_policy import evaluate_policy
from worker.steps.fit_reward_model import fit_reward_models
from worker.steps.improve_policy import improve_current_policy
from worker.steps.sample_responses import sample_current_policy

STEPS: Mapping[Step, Callable[[Attempt], None]] = {
    Step.SAMPLE_RESPONSES: sample_current_policy,
    Step.FIT_REWARD_MODEL: fit_reward_models,
    Step.IMPROVE_POLICY: improve_current_policy,
    Step.EVALUATE_POLICY: evaluate_policy,
}

__all__ = ["STEPS"]
