"""Does the gold score fall while the reward model's rises, and who notices? As in Gao et al. 2022.

A few noisy comparisons by the gold score teach a reward model of the policy's own size, and PPO climbs it for long with
hardly a price for KL. `single` is one reward model, fitted on all labels. `ours` has the same labels, and divides them:
an ensemble is fitted on two thirds, scored conservatively, and an evaluation reward model on the rest watches and may
end the run; a budget bounds KL.
"""

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks.ppo.curves import Line, Panel, draw
from benchmarks.ppo.figures import Row, row
from benchmarks.ppo.runs import Measured, Start, Tester, all_done, load_start
from benchmarks.ppo.settings import GUARDED, LABELS, MEMBERS, REWARD, SHARPNESS, SINGLE
from benchmarks.ppo.stories import UNIT, ZERO, gold, openings
from demo.annotators import Taste
from worker.learning.policy.judges import reward_function
from worker.learning.policy.rollouts import RewardFunction, Rollout
from worker.learning.ppo import improve_policy
from worker.learning.records import Judgement, Label
from worker.learning.reward.fitting import fit_reward_model
from worker.learning.reward.model import RewardModel, normalise
from worker.learning.sampling import SamplingSettings, sample_responses
from worker.learning.seeds import derive_seed

Way = Literal["single", "ours"]
EVERY = 4
"""Rollouts between two measurements."""
REFERENCE_PROMPTS, REFERENCE_ANSWERS = 64, 4
"""From which a reward model's scores get their zero and their unit."""


@dataclass(frozen=True)
class Climb:
    """A run: its policies as they were measured on fresh answers, the last one as the run hands it back."""

    way: Way
    seed: int
    course: list[Measured]
    ended: str

    @property
    def best(self) -> Measured:
        """Where the gold score was highest."""
        return max(self.course, key=lambda one: one.scores["gold"])

    @property
    def fall(self) -> float:
        """From the best gold score to the last, in standard errors of the best."""
        last, best = self.course[-1], self.best
        return (best.scores["gold"] - last.scores["gold"]) / best.errors["gold"]


def labels(start: Start, sampling: SamplingSettings, count: int, seed: int) -> list[Label]:
    """Pairs of answers to as many train openings, compared by somebody who feels the gold score through noise."""
    prompts = random.Random(seed).sample(openings("train"), count)
    answers = sample_responses(start.policy, start.tokenizer, prompts, 2, sampling, derive_seed(seed, "labels"))
    taste = Taste(random.Random(f"{seed}:taste"), sharpness=SHARPNESS)
    made = []
    for prompt, samples in zip(prompts, answers, strict=True):
        texts = tuple(sample.text for sample in samples)
        ranking = taste.rank({str(place): text for place, text in enumerate(texts)})
        groups = tuple(tuple(int(name) for name in group) for group in ranking)
        made.append(Label(prompt, texts, Judgement(groups)))
    return made


def fitted(folder: Path, start: Start, taught: Sequence[Label], sampling: SamplingSettings, seed: int) -> RewardModel:
    """A reward model on some labels, with the zero and the unit of the first policy's answers."""
    device = start.policy.device
    model = fit_reward_model(str(folder), taught, (), REWARD, seed, device=device).reward_model
    prompts = openings("train")[:REFERENCE_PROMPTS]
    answers = sample_responses(
        start.policy, start.tokenizer, prompts, REFERENCE_ANSWERS, sampling, derive_seed(seed, "reference")
    )
    return normalise(model, prompts, [[sample.text for sample in samples] for samples in answers])


def climb(way: Way, folder: Path, device: str, episodes: int, seed: int) -> Climb:
    """One run of PPO on what a few labels taught."""
    start = load_start(folder, device)
    settings = replace(SINGLE if way == "single" else GUARDED, episodes=episodes)
    every = labels(start, settings.sampling, LABELS, seed)
    taught, watching = (every, []) if way == "single" else (every[: 2 * LABELS // 3], every[2 * LABELS // 3 :])

    def fit(own: Sequence[Label], *purpose: str | int) -> RewardModel:
        return fitted(folder, start, own, settings.sampling, derive_seed(seed, *purpose))

    members = [fit(taught, "reward", member) for member in range(1 if way == "single" else MEMBERS)]
    reward = reward_function(members, settings.conservatism, settings.conservatism_coefficient, seed)
    watched = {"evaluation": fit(watching, "evaluation")} if watching else {}
    rewards: dict[str, RewardFunction] = {"gold": gold, "proxy": reward, **watched}
    tester = Tester(start.reference, start.tokenizer, settings.sampling, derive_seed(seed, "test"))
    course: list[Measured] = []

    def keep(_: Rollout, step: int) -> None:
        if step % EVERY == 0:  # the policy is learned in place
            course.append(tester.measure(start.policy, rewards, step * settings.batch_episodes))

    improved = improve_policy(
        start.policy,
        start.reference,
        start.tokenizer,
        reward,
        openings("train"),
        settings,
        seed,
        watched=watched,
        keep=keep,
    )
    course.append(tester.measure(improved.policy, rewards, len(improved.metrics) * settings.batch_episodes))
    return Climb(way, seed, course, improved.ended)


def overoptimisation(
    executor: ProcessPoolExecutor,
    start: Path,
    device: str,
    episodes: int,
    seeds: Sequence[int],
    picture: Path | None,
    say: Callable[[str], None],
) -> list[Row]:
    """Runs both ways with all seeds."""
    ways: tuple[Way, ...] = ("single", "ours")
    tasks = [(way, start, device, episodes, seed) for seed in seeds for way in ways]

    def told(_: int, result: Climb) -> None:
        first, last, best = result.course[0], result.course[-1], result.best
        say(
            f"  {result.way}, seed {result.seed}: gold {first.scores['gold']:.2f}, at best {best.scores['gold']:.2f}"
            f" (KL {best.kl:.0f}), at the end {last.scores['gold']:.2f} (KL {last.kl:.0f}, {result.ended} after"
            f" {last.episodes:,} episodes); proxy {last.scores['proxy']:.2f}"
        )

    climbs = all_done(executor, climb, tasks, told)
    if picture is not None:
        draw(picture, panels(climbs), alike=True)
    return rows(climbs)


def rows(climbs: Sequence[Climb]) -> list[Row]:
    """The gold score at the end beside its best, both ways, and how far it fell in standard errors."""
    made = []
    for way in ("single", "ours"):
        own = [one for one in climbs if one.way == way]
        last, best = ([one.course[-1] for one in own], [one.best for one in own])
        ends, bests = ([one.scores["gold"] for one in side] for side in (last, best))
        made += [
            row(f"{way}, at the end", "gold", ends, bests, "its best"),
            row(f"{way}, fall from its best", "standard errors", [one.fall for one in own]),
            row(f"{way}, at the end", "reward model's score", [one.scores["proxy"] for one in last]),
            row(f"{way}, at the end", "KL, nats", [one.kl for one in last]),
        ]
    falls = [one.fall for one in climbs if one.way == "ours"]
    made.append(row("ours, the seed that falls most", "standard errors", [max(falls)], at_most=1.0))
    single, ours = ([one.course[-1].scores["gold"] for one in climbs if one.way == way] for way in ("single", "ours"))
    made.append(row("gold at the end", "ours beside single", ours, single, "single", goal=1.0))
    return made


def normalised(score: float) -> float:
    """A gold score on the scale of the reward models' scores."""
    return (score - ZERO) / UNIT


def panels(climbs: Sequence[Climb]) -> list[Panel]:
    """Reward model's and gold score over the root of KL, each way, a line a run."""
    made = []
    for way in ("single", "ours"):
        own = [one for one in climbs if one.way == way]
        lines = [
            Line(name, [(max(at.kl, 0.0) ** 0.5, scale(at.scores[key])) for at in one.course])
            for one in own
            for name, key, scale in (("gold", "gold", normalised), ("reward model", "proxy", float))
        ]
        made.append(Panel(way, "root of KL (nats)", lines))
    return made
