"""What is each token of a rollout worth? The score at the end, and the prices of leaving, of length and of no end."""

import torch
from torch import Tensor

from worker.learning.policy.rollouts import Rollout
from worker.learning.policy.settings import PPOSettings


def token_rewards(rollout: Rollout, kl_coefficient: float, length_target: float, settings: PPOSettings) -> Tensor:
    """r_t = -beta (log pi - log ref), plus the score at the last token: [episodes, tokens].

    Ziegler et al. 2019, equation 2. The last token is the end token, or where the response was cut. With the price of
    leaving in the loss, there is none here.

    Args:
        length_target: tokens that cost nothing, where length has a price.
    """
    price = kl_coefficient if settings.kl_in == "reward" else 0.0
    rewards = -price * rollout.log_ratios
    scores = effective_scores(rollout, length_target, settings)
    last = rollout.mask.sum(dim=1) - 1
    rewards[torch.arange(len(scores)), last] += scores
    return rewards


def effective_scores(rollout: Rollout, length_target: float, settings: PPOSettings) -> Tensor:
    """The scores [episodes] after clipping, and after the prices of never ending and of length."""
    scores = rollout.scores
    if settings.score_clip is not None:
        scores = scores.clamp(-settings.score_clip, settings.score_clip)
    cut = torch.tensor([sample.finish_reason == "cut" for sample in rollout.samples])
    price = torch.tensor(settings.missing_end_score, device=scores.device)
    priced = price if settings.missing_end == "replace" else scores - price
    scores = torch.where(cut.to(scores.device), priced, scores)
    return scores - length_prices(rollout, length_target, settings.length_penalty)


def length_prices(rollout: Rollout, length_target: float, penalty: float) -> Tensor:
    """What each response's tokens beyond the target cost [episodes]; shorter ones gain nothing."""
    return penalty * (rollout.mask.sum(dim=1) - length_target).clamp(min=0)
