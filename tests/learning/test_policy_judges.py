from pathlib import Path

import numpy as np
import pytest
import torch

from tests.planted import prompt, rankings, scored
from worker.learning.policy.judges import MEMBERS, of_ensemble, reward_function
from worker.learning.reward.encoding import encode_sets
from worker.learning.reward.fitting import fit_reward_model
from worker.learning.reward.model import RewardModel, normalise, read_features
from worker.learning.reward.settings import RewardSettings

pytestmark = pytest.mark.learning

SETTINGS = RewardSettings(epochs=2, learning_rate=3e-3, batch_sets=8, precision="fp32")
PROMPTS = [prompt("the cat"), prompt("rain"), prompt("a big dog")]
RESPONSES = ["good good sun", "bad rain", "and the old and small cat saw the sun"]
REFERENCE = [["good cat", "bad cat", "the sun"], ["rain and sun", "good good good"], ["dog", "bad bad", "a cat ran"]]


@pytest.fixture(scope="module")
def sure(tiny_folder: Path) -> RewardModel:
    """A fitted model with a posterior, normalised on `REFERENCE`."""
    return normalise(
        fit_reward_model(str(tiny_folder), rankings(30, 0), [], SETTINGS, 0).reward_model, PROMPTS, REFERENCE
    )


@pytest.fixture(scope="module")
def unsure(tiny_folder: Path) -> RewardModel:
    """Fitted on scores alone, which give no posterior."""
    return fit_reward_model(str(tiny_folder), scored(20, 0), [], SETTINGS, 1).reward_model


def features_of(model: RewardModel, responses: list[str]) -> np.ndarray:
    pairs = zip(PROMPTS, responses, strict=True)
    sets = [encode_sets(model.tokenizer, model.limit, [(asked, [said])]).sets[0] for asked, said in pairs]
    return read_features(model, sets, lambda features: features).double().numpy()


def test_an_ensemble_by_hand() -> None:
    """Coste et al. 2023, of three members: the mean 3, the variance (4 + 1 + 9) / 3."""
    scores = torch.tensor([[1.0, 2.0, 6.0], [-1.0, -1.0, -1.0]])
    assert of_ensemble(scores, "none", 0.3).tolist() == pytest.approx([3.0, -1.0])
    assert of_ensemble(scores, "worst", 0.3).tolist() == pytest.approx([1.0, -1.0])
    assert of_ensemble(scores, "uncertainty", 0.3).tolist() == pytest.approx([3.0 - 0.3 * 14 / 3, -1.0])


def test_one_model_without_conservatism_is_its_score(sure: RewardModel) -> None:
    climbed = reward_function([sure], "none", 1.0, 0)
    assert torch.equal(climbed(PROMPTS, RESPONSES), sure(PROMPTS, RESPONSES))


def test_the_deviation_of_one_model_is_that_of_its_posterior(sure: RewardModel) -> None:
    """sqrt((x - centre)^T precision^-1 (x - centre)), inverted by numpy."""
    posterior = sure.posterior
    assert posterior is not None
    covariance = np.linalg.inv((posterior.cholesky @ posterior.cholesky.T).numpy())
    away = features_of(sure, RESPONSES) - posterior.centre.numpy()
    deviations = np.sqrt(np.einsum("ri,ij,rj->r", away, covariance, away))
    scores = sure(PROMPTS, RESPONSES).numpy()
    climbed = reward_function([sure], "uncertainty", 0.7, 0)(PROMPTS, RESPONSES)
    assert (deviations > 0).all()
    np.testing.assert_allclose(climbed.numpy(), scores - 0.7 * deviations, rtol=1e-4, atol=1e-4)


def test_the_worst_case_of_one_model_is_the_least_of_heads_from_its_posterior(sure: RewardModel) -> None:
    posterior = sure.posterior
    assert posterior is not None
    members = posterior.members(MEMBERS, 3).numpy()
    away = features_of(sure, RESPONSES) - posterior.centre.numpy()
    climbed = reward_function([sure], "worst", 1.0, 3)
    zero = sure(PROMPTS, RESPONSES).numpy() - away @ posterior.head.numpy()
    np.testing.assert_allclose(climbed(PROMPTS, RESPONSES), zero + (away @ members.T).min(1), rtol=1e-4, atol=1e-4)
    assert torch.equal(climbed(PROMPTS, RESPONSES), climbed(PROMPTS, RESPONSES))
    assert not torch.equal(climbed(PROMPTS, RESPONSES), reward_function([sure], "worst", 1.0, 4)(PROMPTS, RESPONSES))


def test_every_member_has_its_zero_at_the_reference_samples(sure: RewardModel) -> None:
    """Or the least would be that of one member everywhere."""
    from worker.learning.reward.model import member_scores

    means = [
        member_scores(sure, [asked] * len(own), own, 20, 0).mean(dim=0)
        for asked, own in zip(PROMPTS, REFERENCE, strict=True)
    ]
    torch.testing.assert_close(torch.stack(means).mean(dim=0), torch.zeros(20), atol=1e-4, rtol=0)


def test_several_models_are_an_ensemble(sure: RewardModel, unsure: RewardModel) -> None:
    one, other = sure(PROMPTS, RESPONSES).numpy(), unsure(PROMPTS, RESPONSES).numpy()
    mean, worst, uncertain = (
        reward_function([sure, unsure], how, 0.5, 0)(PROMPTS, RESPONSES).numpy()
        for how in ("none", "worst", "uncertainty")
    )
    np.testing.assert_allclose(mean, (one + other) / 2, rtol=1e-5)
    np.testing.assert_allclose(worst, np.minimum(one, other), rtol=1e-5)
    np.testing.assert_allclose(uncertain, (one + other) / 2 - 0.5 * ((one - other) / 2) ** 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("conservatism", ["uncertainty", "worst"])
def test_doubt_needs_a_posterior(unsure: RewardModel, conservatism: str) -> None:
    assert unsure.posterior is None
    with pytest.raises(ValueError, match="no posterior: fit it with posterior on"):
        reward_function([unsure], conservatism, 1.0, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is no reward model"):
        reward_function([], conservatism, 1.0, 0)  # type: ignore[arg-type]
