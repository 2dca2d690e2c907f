"""How does a run of PPO go, and where does it come to? Runs side by side, one process on each core."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.ppo.figures import Reached
from benchmarks.ppo.stories import gold, normalised_gold, openings
from benchmarks.quality.fits import prepare
from worker.learning.evaluation import sequence_kl
from worker.learning.likelihood import Dialogue, response_logprobs
from worker.learning.models import encode_prompt, load_language_model, load_tokenizer, pick_device
from worker.learning.policy.rollouts import RewardFunction
from worker.learning.policy.settings import PPOSettings
from worker.learning.ppo import improve_policy
from worker.learning.records import Sample
from worker.learning.sampling import SamplingSettings, sample_responses

FRESH = 4
"""Answers to each held-out opening by which a policy is measured."""

Result = TypeVar("Result")
History = list[dict[str, float]]


@dataclass(frozen=True)
class Measured:
    """What fresh answers to the held-out openings say of a policy."""

    kl: float
    """Nats a sequence from the policy that all began with."""
    scores: dict[str, float]
    """Means, by the rewards' names."""
    errors: dict[str, float]
    """Standard errors of the means, over openings."""
    episodes: int = 0
    """Learned from before."""

    @property
    def reached(self) -> Reached:
        """By the gold score."""
        return Reached(self.kl, self.scores["gold"])


@dataclass(frozen=True)
class Tester:
    """Has policies answer the held-out openings."""

    reference: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sampling: SamplingSettings
    seed: int

    def measure(
        self, policy: PreTrainedModel, rewards: Mapping[str, RewardFunction], episodes: int = 0, fresh: int = FRESH
    ) -> Measured:
        """A policy's KL, and its mean scores under some rewards."""
        prompts = openings("heldout")
        answers = sample_responses(policy, self.tokenizer, prompts, fresh, self.sampling, self.seed)
        flat: list[Sample] = [sample for samples in answers for sample in samples]
        repeated = [prompt for prompt in prompts for _ in range(fresh)]
        dialogues = [
            Dialogue(encode_prompt(self.tokenizer, prompt), sample.token_ids)
            for prompt, sample in zip(repeated, flat, strict=True)
        ]
        own, reference = (
            response_logprobs(model, dialogues, self.sampling.temperature, "fp32") for model in (policy, self.reference)
        )
        texts = [sample.text for sample in flat]
        scored = {name: reward(repeated, texts) for name, reward in rewards.items()}
        by_opening = {name: scores.reshape(len(prompts), fresh).mean(dim=1) for name, scores in scored.items()}
        return Measured(
            float(sequence_kl(own, reference).mean()),
            {name: float(means.mean()) for name, means in by_opening.items()},
            {name: _standard_error(means) for name, means in by_opening.items()},
            episodes,
        )


def _standard_error(values: Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values))


@dataclass(frozen=True)
class Start:
    """What all runs begin with, on a device."""

    policy: PreTrainedModel
    reference: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_start(folder: Path, device: str) -> Start:
    """The small policy, twice."""
    policy, reference = (load_language_model(str(folder), pick_device(device)) for _ in range(2))
    return Start(policy, reference, load_tokenizer(str(folder)))


def climb_gold(folder: Path, device: str, settings: PPOSettings, seed: int) -> tuple[History, Measured]:
    """PPO on the gold score itself: the metrics of each rollout, and the policy measured at the end."""
    start = load_start(folder, device)
    improved = improve_policy(
        start.policy, start.reference, start.tokenizer, normalised_gold, openings("train"), settings, seed
    )
    tester = Tester(start.reference, start.tokenizer, settings.sampling, seed)
    return improved.metrics, tester.measure(improved.policy, {"gold": gold})


def measure_saved(folder: Path, saved: Path, device: str, sampling: SamplingSettings, seed: int) -> Measured:
    """A policy in a folder, measured as `climb_gold` measures its own."""
    start = load_start(folder, device)
    policy = load_language_model(str(saved), pick_device(device))
    return Tester(start.reference, start.tokenizer, sampling, seed).measure(policy, {"gold": gold})


@contextmanager
def side_by_side(device: str, processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes with one thread each; on a GPU one after another."""
    executor = ProcessPoolExecutor(1 if device == "cuda" else processes, get_context("spawn"), initializer=prepare)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def all_done(
    executor: ProcessPoolExecutor,
    run: Callable[..., Result],
    tasks: Sequence[tuple[object, ...]],
    say: Callable[[int, Result], None],
) -> list[Result]:
    """The results of `run(*task)`, in the order of the tasks; each is told of as it comes."""
    futures = [executor.submit(run, *task) for task in tasks]
    results = []
    for number, future in enumerate(futures):
        results.append(future.result())
        say(number, results[-1])
    return results
