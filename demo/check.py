"""Has the loop done what it promises? It is measured by the hidden preference, walked back and counted."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session
from transformers.utils import logging as transformers_logging

from app.domain import settings as project_settings
from app.tables import (
    Comparison,
    ComparisonResponse,
    ComparisonState,
    Label,
    Policy,
    Project,
    Prompt,
    PromptState,
    Response,
    RewardModel,
    RewardModelPurpose,
    Round,
    RoundState,
    Split,
)
from demo import lineage
from demo.preference import score
from worker.learning.evaluation import Estimate, distinct_n, ended_rate, length_ratio, win_rate
from worker.learning.models import load_language_model, load_tokenizer
from worker.learning.records import Message, Sample
from worker.learning.sampling import SamplingSettings, sample_responses

LEAST_WINRATE = 0.75
LEAST_WINRATE_LOW = 0.68
LEAST_ENDED_RATE = 0.7


@dataclass(frozen=True)
class Report:
    """What `report.json` holds."""

    seed: int
    rounds: int
    labels: int
    comparisons: int
    reward_heldout_accuracy: list[float]
    oracle_winrate: float
    oracle_winrate_ci95: tuple[float, float]
    oracle_winrate_by_round: list[float]
    kl: list[float]
    ended_rate: dict[str, float]
    length_ratio: float
    distinct_2: dict[str, float]
    fresh_comparisons_in_queue: int
    exported_rows: int
    lineage_ok: bool
    seconds: float


@dataclass(frozen=True)
class Pair:
    """A line of `pairs.jsonl`: version 0 against the final policy on one opening, with the oracle's scores."""

    opening: str
    before: str
    after: str
    before_score: float
    after_score: float


@dataclass(frozen=True)
class Measured:
    """The policies' stories on test openings, and what the hidden preference says about them."""

    openings: list[str]
    before: list[list[Sample]]  # [openings, stories of each], version 0's
    after: list[list[Sample]]  # those of the policy that is served in the end
    winrates: list[Estimate]  # against version 0, of each round's policy
    final: Estimate  # the same of the policy that is served

    def pairs(self) -> list[Pair]:
        """Every story of version 0 beside one of the final policy."""
        return [
            Pair(opening, old.text, new.text, score(old.text), score(new.text))
            for opening, before, after in zip(self.openings, self.before, self.after, strict=True)
            for old, new in zip(before, after, strict=True)
        ]


def measure(session: Session, project: Project, pairs: int, seed: int, tick: Callable[[int, int], None]) -> Measured:
    """Load every policy's weights, let them continue the test openings, and ask the hidden preference.

    `tick(done, total)` is called after every policy.
    """
    prompts = _test_prompts(session, project)
    # As many openings as give the same number of pairs each.
    count = max(number for number in range(1, len(prompts) + 1) if pairs % number == 0)
    openings = [prompt.messages[0]["content"] for prompt in prompts[:count]]
    policies = _policies(session, project)
    chosen = project_settings.parse_settings(project.settings).sampling
    settings = SamplingSettings(**chosen.model_dump())
    transformers_logging.disable_progress_bar()  # the demo's own bars are enough
    served = [policy.id for policy in policies].index(_served(session, project).id)
    stories = []
    for number, policy in enumerate(policies):
        # What was served in between is measured on a quarter of the stories: it is only shown.
        each = pairs // count if number in {0, served} else max(1, pairs // count // 4)
        stories.append(sample(policy.uri, openings, each, settings, seed + number))
        tick(number + 1, len(policies))
    winrates = [win_rate(_scores(new), _scores([row[: len(new[0])] for row in stories[0]]), seed) for new in stories]
    return Measured(openings, stories[0], stories[served], winrates[1:], winrates[served])


def sample(
    source: str, openings: Sequence[str], each: int, settings: SamplingSettings, seed: int
) -> list[list[Sample]]:
    """What the weights at `source` write: `each` stories an opening."""
    model = load_language_model(source, torch.device("cpu"))
    prompts: list[list[Message]] = [[{"role": "user", "content": opening}] for opening in openings]
    return sample_responses(model, load_tokenizer(source), prompts, each, settings, seed)


def report(session: Session, project: Project, measured: Measured, exported_rows: int, seed: int) -> Report:
    """Everything that the demo claims, counted in the database and measured on the stories."""
    policies, served = _policies(session, project), _served(session, project)
    before = [story for row in measured.before for story in row]
    after = [story for row in measured.after for story in row]
    low, high = measured.final.low, measured.final.high
    if low is None or high is None:
        raise ValueError("a win rate on a single opening has no interval: more test prompts are needed")
    ended = select(Round.id).where(
        Round.project_id == project.id, Round.state.in_((RoundState.PROMOTED, RoundState.REJECTED))
    )
    return Report(
        seed=seed,
        rounds=_count(session, ended),
        labels=_count(session, select(Label.id).where(Label.project_id == project.id)),
        comparisons=_count(session, select(Comparison.id).where(Comparison.project_id == project.id)),
        reward_heldout_accuracy=_accuracies(session, project),
        oracle_winrate=measured.final.value,
        oracle_winrate_ci95=(low, high),
        oracle_winrate_by_round=[estimate.value for estimate in measured.winrates],
        kl=[policy.measures["kl"] for policy in policies[1:]],
        ended_rate={"before": ended_rate(before), "after": ended_rate(after)},
        length_ratio=length_ratio(after, before),
        distinct_2={"before": distinct_n(_texts(before), 2), "after": distinct_n(_texts(after), 2)},
        fresh_comparisons_in_queue=_fresh_comparisons(session, served),
        exported_rows=exported_rows,
        lineage_ok=not lineage.gaps(session, served),
        seconds=0.0,
    )


def failures(found: Report, rounds: int) -> list[str]:
    """What the report falls short of, in words; nothing if the loop kept its promises."""
    checks = {
        f"only {found.rounds} of {rounds} rounds came to a verdict": found.rounds < rounds,
        f"the final policy wins {found.oracle_winrate:.3f} of the pairs, below {LEAST_WINRATE}": found.oracle_winrate
        < LEAST_WINRATE,
        f"the win rate's interval begins at {found.oracle_winrate_ci95[0]:.3f}, not above {LEAST_WINRATE_LOW}": (
            found.oracle_winrate_ci95[0] <= LEAST_WINRATE_LOW
        ),
        f"only {found.ended_rate['after']:.0%} of the stories end": found.ended_rate["after"] < LEAST_ENDED_RATE,
        "no fresh comparison of the final policy waits in the queue": found.fresh_comparisons_in_queue == 0,
        "the export is empty": found.exported_rows == 0,
        "one cannot walk from the final policy's weights to the labels": not found.lineage_ok,
    }
    return [failure for failure, is_so in checks.items() if is_so]


def write(folder: Path, found: Report, pairs: Sequence[Pair]) -> None:
    """Leave `report.json` and `pairs.jsonl` in `folder`."""
    (folder / "report.json").write_text(json.dumps(asdict(found), indent=2) + "\n")
    with (folder / "pairs.jsonl").open("w") as file:
        file.writelines(json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in pairs)


def _policies(session: Session, project: Project) -> Sequence[Policy]:
    """Version 0, and the policy of every round, promoted or not."""
    return session.scalars(select(Policy).where(Policy.project_id == project.id).order_by(Policy.version)).all()


def _served(session: Session, project: Project) -> Policy:
    return session.get_one(Policy, project.current_policy_id)


def _test_prompts(session: Session, project: Project) -> Sequence[Prompt]:
    test = select(Prompt).where(
        Prompt.project_id == project.id, Prompt.split == Split.TEST, Prompt.state == PromptState.ACTIVE
    )
    return session.scalars(test.order_by(Prompt.id)).all()


def _fresh_comparisons(session: Session, policy: Policy) -> int:
    """Comparisons that are handed out now and show what `policy` wrote."""
    fresh = (
        select(Comparison.id)
        .join(ComparisonResponse, ComparisonResponse.comparison_id == Comparison.id)
        .join(Response, Response.id == ComparisonResponse.response_id)
        .where(Comparison.state == ComparisonState.OPEN, Comparison.openings > 0, Response.policy_id == policy.id)
        .distinct()
    )
    return _count(session, fresh)


def _accuracies(session: Session, project: Project) -> list[float]:
    """Of each round's training reward model, on rankings of test prompts."""
    cards = session.scalars(
        select(RewardModel.card)
        .where(RewardModel.project_id == project.id, RewardModel.purpose == RewardModelPurpose.TRAINING)
        .order_by(RewardModel.round_id)
    )
    return [card["accuracy"] for card in cards]


def _count(session: Session, ids: Select[int]) -> int:
    return session.scalar(select(func.count()).select_from(ids.subquery())) or 0


def _texts(samples: Sequence[Sample]) -> list[str]:
    return [one.text for one in samples]


def _scores(samples: Sequence[Sequence[Sample]]) -> torch.Tensor:
    return torch.tensor([[score(one.text) for one in row] for row in samples], dtype=torch.float64)
