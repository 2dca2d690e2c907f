"""How does a run go? The figures of a rollout and of a step, under the field's usual names."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from torch import Tensor

from worker.learning.evaluation import ended_rate, mean_length
from worker.learning.policy.rollouts import Rollout


def rollout_metrics(rollout: Rollout, rewards: Tensor, returns: Tensor | None) -> dict[str, float]:
    """Metrics of a rollout before learning from it.

    Args:
        rewards, returns: of its tokens [episodes, tokens]; returns are None where there is no value function.
    """
    named = {
        "objective/kl": rollout.kl,
        "objective/scores": float(rollout.scores.mean()),
        "objective/scores_std": float(rollout.scores.std(unbiased=False)),
        "objective/rlhf_reward": float(rewards.sum(dim=1).mean()),
        "ended_rate": ended_rate(rollout.samples),
        "length": mean_length(rollout.samples),
    }
    named |= {f"watched/{name}": float(scores.mean()) for name, scores in rollout.watched.items()}
    return named if returns is None else named | _value_metrics(rollout, returns)


def _value_metrics(rollout: Rollout, returns: Tensor) -> dict[str, float]:
    values, wanted = rollout.outputs.values[rollout.mask], returns[rollout.mask]
    unexplained, variance = (wanted - values).var(unbiased=False), wanted.var(unbiased=False)
    return {
        "val/mean": float(values.mean()),
        "val/explained_variance": float(1 - unexplained / variance) if variance > 0 else 0.0,
        "returns/mean": float(wanted.mean()),
    }


def step_metrics(tokens: dict[str, Tensor]) -> dict[str, float]:
    """Metrics of one optimiser step over its real tokens.

    `policykl`, `approxkl` and `approxkl_k3` are Schulman's k1, k2 and k3 estimates of
    KL(old || new) ("Approximating KL divergence", 2020).

    Args:
        tokens: by name, one number a token; see `ppo.losses_of`.
    """
    log_ratio = tokens["log_ratio"]
    ratio = log_ratio.clamp(-20, 20).exp()  # as in the loss
    named = {
        "loss/policy": tokens["policy_loss"].mean(),
        "policy/policykl": -log_ratio.mean(),
        "policy/approxkl": 0.5 * log_ratio.square().mean(),
        "policy/approxkl_k3": (ratio - 1 - log_ratio).mean(),
        "policy/clipfrac": tokens["policy_clipped"].float().mean(),
        "policy/ratio_mean": ratio.mean(),
        "policy/ratio_max": ratio.max(),
        "policy/ratio_error": (ratio - 1).abs().max(),
        "policy/ratio_error_mean": (ratio - 1).abs().mean(),
        "policy/entropy": tokens["entropy"].mean(),
    }
    if "value_loss" in tokens:
        named["loss/value"] = tokens["value_loss"].mean()
        named["val/clipfrac"] = tokens["value_clipped"].float().mean()
    return {name: float(value) for name, value in named.items()}


def steps_metrics(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of all steps on a rollout: means, but the largest ratio of all, and the errors of the first step alone.

    Args:
        rows: of each step; one that was not made, since the policy had left the rollout, has no `grad_norm`.
    """
    named = {name: fmean(row[name] for row in rows if name in row) for name in rows[0]}
    named |= {name: rows[0][name] for name in ("policy/ratio_error", "policy/ratio_error_mean")}
    named["policy/ratio_max"] = max(row["policy/ratio_max"] for row in rows)
    named["policy/steps"] = float(sum("grad_norm" in row for row in rows))
    return named


def check_first_ratio(largest: float, mean: float, *, is_bf16: bool) -> None:
    """Old and new policy are the same at the first step, so every ratio must be 1.

    In bf16 differently shaped batches round differently, single tokens by several percent: the mean says it there.

    Args:
        largest, mean: of |ratio - 1| over the tokens of the first step.
        is_bf16: whether the forward passes ran in bf16.
    """
    error, limit = (mean, 0.05) if is_bf16 else (largest, 1e-3)
    if not error < limit:
        raise RuntimeError(
            f"the first ratio between new and old probabilities is off by {error:.3g}: the two"
            " forward passes disagree (is dropout on, or the model changed while sampling?)"
        )
