"""How far may the policy go from its reference? The price of a nat, and the limits at which learning stops."""

from torch import Tensor

from worker.learning.policy.settings import PPOSettings


def next_kl_coefficient(kl_coefficient: float, kl: float, target: float, episodes: int, horizon: float) -> float:
    """The new beta (1 + e n / horizon), e = clip(KL / target - 1, -0.2, 0.2).

    Ziegler et al. 2019, section 2.2; `AdaptiveKLController` in lm-human-preferences.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coefficient * (1 + error * episodes / horizon)


def reference_kl(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The loss rho - log(rho) - 1 of each token, rho = ref / pi: never negative, and it draws pi to the reference.

    Schulman's k3 of KL(pi || ref) ("Approximating KL divergence", 2020), as Shao et al. 2024, equation 4, have it. The
    log-ratio is held within +-20 against overflow.
    """
    log_ratio = (reference_logprobs - logprobs).clamp(-20, 20)
    return log_ratio.exp() - log_ratio - 1


def leaves_rollout(approximate_kl: float, settings: PPOSettings) -> bool:
    """Whether the learned policy has gone so far from the rollout's that its tokens teach nothing about it.

    Args:
        approximate_kl: Schulman's k2 estimate in nats a token, the mean over a step. Where it is no number the step
            itself fails.
    """
    return settings.epoch_kl_limit is not None and approximate_kl > settings.epoch_kl_limit


def exceeds_budget(kl: float, kl_start: float, settings: PPOSettings) -> bool:
    """Whether a policy is further from the reference than the run may go, in nats a sequence."""
    return settings.kl_budget is not None and not kl <= kl_start + settings.kl_budget
