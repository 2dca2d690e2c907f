"""Is the new policy better? New, parent and version 0 answer test prompts, and reward models and people judge."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from app.database import transaction
from app.domain import gates, policies, reward_models, rounds, runs, samples
from app.language import mark
from app.tables import (
    Policy,
    PolicyScore,
    Prompt,
    Response,
    ResponsePurpose,
    RewardModel,
    RewardModelPurpose,
    Split,
)
from worker import artifacts
from worker.attempt import Attempt
from worker.learning.evaluation import (
    Estimate,
    distinct_n,
    ended_rate,
    length_ratio,
    mean_length,
    sequence_kl,
    win_rate,
)
from worker.learning.likelihood import Dialogue, response_logprobs
from worker.learning.models import encode_prompt
from worker.learning.policy.best_of_n import against_best_of_n
from worker.learning.progress import Progress
from worker.learning.records import Message, Sample
from worker.learning.reward.model import load_reward_model
from worker.learning.sampling import sample_responses
from worker.learning.seeds import derive_seed
from worker.steps.gold import Gold, agreement_with_gold, gold_logprobs, read_gold
from worker.steps.inputs import RoundInputs, as_messages, as_new_sample, load_policy, read_prompts, read_round

_NAMES = {
    RewardModelPurpose.TRAINING: mark("the training reward model"),
    RewardModelPurpose.EVALUATION: mark("the evaluation reward model"),
}
_SCORES = {
    RewardModelPurpose.TRAINING: mark("the training reward model scores"),
    RewardModelPurpose.EVALUATION: mark("the evaluation reward model scores"),
}


@dataclass(frozen=True)
class Contest:
    """Who is measured, on what, by whom. In the first round the parent is version 0."""

    inputs: RoundInputs
    new: Policy
    prompts: Sequence[Prompt]
    reward_models: Mapping[RewardModelPurpose, RewardModel]
    gold: Gold

    @property
    def policies(self) -> list[Policy]:
        """The new policy, its parent and version 0, each once; the new one first."""
        named = {policy.id: policy for policy in (self.new, self.inputs.policy, self.inputs.base)}
        return list(named.values())

    @property
    def messages(self) -> list[tuple[Message, ...]]:
        """The test prompts as a language model reads them."""
        return [as_messages(prompt.messages) for prompt in self.prompts]

    def phase_of(self, policy: Policy) -> str:
        """What people see while a policy answers."""
        if policy.id == self.new.id:
            return mark("the new policy writes")
        return mark("version 0 writes") if policy.version == 0 else mark("the parent writes")

    def draws_of(self, policy: Policy) -> int:
        """Responses that a policy writes to each prompt: the parent enough to choose the best of n from."""
        loop = self.inputs.settings.loop
        is_parent = policy.id == self.inputs.policy.id
        return max(loop.evaluation_samples, loop.best_of_n if is_parent else 0)

    @property
    def judge(self) -> RewardModelPurpose:
        """The reward model that win rates are told by."""
        return RewardModelPurpose.EVALUATION if self.has_judge else RewardModelPurpose.TRAINING

    @property
    def has_judge(self) -> bool:
        """Whether there is a reward model that may decide: the one that PPO never saw."""
        return RewardModelPurpose.EVALUATION in self.reward_models


@dataclass(frozen=True)
class Written:
    """By policy id: rows of samples, one a prompt, and the new policy's KL to it in nats."""

    samples: Mapping[int, Sequence[Sequence[Sample]]]
    kl: Mapping[int, float]
    gold: Mapping[int, Sequence[Tensor | None]]
    """Log-probabilities of the gold responses."""

    def first(self, count: int) -> "Written":
        """With the first samples of each row alone, as many of every policy."""
        return replace(self, samples={id_: [row[:count] for row in rows] for id_, rows in self.samples.items()})


def evaluate_policy(attempt: Attempt) -> None:
    """Measure the round's policy on test prompts, which nothing was fitted or chosen on."""
    with transaction() as session:
        inputs = read_round(session, attempt)
        contest = Contest(
            inputs,
            policies.policy_of_round(session, inputs.round),
            read_prompts(session, inputs.round.project_id, Split.TEST),
            reward_models.reward_models_of_round(session, inputs.round),
            read_gold(session, inputs.round.project_id),
        )
    written = _write(attempt, contest)
    drawn = {purpose: _score(attempt, contest, row, written) for purpose, row in contest.reward_models.items()}
    attempt.flush()
    count = inputs.settings.loop.evaluation_samples
    written, scores = written.first(count), _first(drawn, count)
    verdict = _verdict(contest, scores) | _baselines(contest, drawn, scores, written)
    with transaction() as session:
        round_, run = runs.lock_attempt(session, attempt.run_id, attempt.number)
        stored = {
            policy.id: samples.store_samples(
                session,
                run,
                policy,
                [
                    as_new_sample(prompt, sample)
                    for prompt, own in zip(contest.prompts, written.samples[policy.id], strict=True)
                    for sample in own
                ],
                purpose=ResponsePurpose.EVALUATION,
                sampling=inputs.settings.sampling.model_dump(),
            )
            for policy in contest.policies
        }
        for policy in contest.policies:
            policies.measure(session, policy.id, _measures(contest, written, policy))
        session.add_all(_matrix(contest, scores))
        pairs = gate_pairs(
            stored[contest.new.id],
            stored[inputs.policy.id],
            inputs.settings.loop.gate_pairs,
            derive_seed(round_.seed, "gate"),
        )
        gates.open_gate(session, round_, pairs)
        runs.note(run, f"win rate against the parent {verdict['winrate_parent']['value']:.3f}; {len(pairs)} gate pairs")
        rounds.finish_step(session, run.id, attempt.number, verdict=verdict)


def _write(attempt: Attempt, contest: Contest) -> Written:
    """Each policy answers every test prompt with noise of its own, and says how likely the new one's answers are."""
    by_policy: dict[int, list[list[Sample]]] = {}
    logprobs: dict[int, list[Tensor]] = {}
    gold: dict[int, list[Tensor | None]] = {}
    for policy in contest.policies:
        # In a function of its own, so that one policy at a time is in memory.
        asked = _ask(attempt, contest, policy, by_policy.get(contest.new.id))
        by_policy[policy.id], logprobs[policy.id], gold[policy.id] = asked
    kl = {
        policy_id: float(sequence_kl(logprobs[contest.new.id], other).mean()) for policy_id, other in logprobs.items()
    }
    return Written(by_policy, kl, gold)


def _ask(
    attempt: Attempt, contest: Contest, policy: Policy, answers: list[list[Sample]] | None
) -> tuple[list[list[Sample]], list[Tensor], list[Tensor | None]]:
    """What a policy answers, and how likely it finds the new policy's `answers` (None: its own) and gold responses."""
    settings = contest.inputs.sampling
    model, tokenizer = load_policy(policy, attempt.device)
    own = sample_responses(
        model,
        tokenizer,
        contest.messages,
        contest.draws_of(policy),
        settings,
        derive_seed(contest.inputs.round.seed, "evaluate", policy.version),
        attempt.named(contest.phase_of(policy)),
    )
    dialogues = [
        Dialogue(encode_prompt(tokenizer, prompt), sample.token_ids)
        for prompt, drawn in zip(contest.messages, answers or own, strict=True)
        for sample in drawn
    ]
    temperature = settings.temperature
    return (
        own,
        response_logprobs(model, dialogues, temperature),
        gold_logprobs(model, tokenizer, contest.gold, temperature),
    )


def _score(attempt: Attempt, contest: Contest, row: RewardModel, written: Written) -> dict[int, Tensor]:
    """A reward model's scores [prompts, samples] of each policy, by its id."""
    folder = Path(artifacts.local(row.uri, row.content_hash))
    model = load_reward_model(folder, attempt.device, contest.inputs.reward.precision)
    scores = {}
    for done, policy in enumerate(contest.policies, start=1):
        own = written.samples[policy.id]
        flat = model(
            [prompt for prompt, drawn in zip(contest.messages, own, strict=True) for _ in drawn],
            [sample.text for drawn in own for sample in drawn],
        )
        scores[policy.id] = flat.view(len(own), -1)
        attempt.report(Progress(_SCORES[row.purpose], done, len(contest.policies), {}))
    return scores


def _matrix(contest: Contest, scores: Mapping[RewardModelPurpose, Mapping[int, Tensor]]) -> list[PolicyScore]:
    """The round's cells policies x reward models; win rates are against version 0."""
    round_ = contest.inputs.round
    cells = []
    for purpose, by_policy in scores.items():
        for policy in contest.policies:
            won = _win_rate(contest, by_policy, policy, contest.inputs.base)
            cells.append(
                PolicyScore(
                    project_id=round_.project_id,
                    round_id=round_.id,
                    policy_id=policy.id,
                    reward_model_id=contest.reward_models[purpose].id,
                    mean=float(by_policy[policy.id].mean()),
                    winrate=won.value,
                    winrate_low=won.low,
                    winrate_high=won.high,
                    samples=by_policy[policy.id].numel(),
                )
            )
    return cells


def _win_rate(contest: Contest, scores: Mapping[int, Tensor], policy: Policy, other: Policy) -> Estimate:
    return win_rate(scores[policy.id], scores[other.id], derive_seed(contest.inputs.round.seed, "win rate"))


def _measures(contest: Contest, written: Written, policy: Policy) -> dict[str, Any]:
    """What the samples of a policy say about it; KL is measured of the new policy alone, and is 0 for version 0."""
    own = [sample for row in written.samples[policy.id] for sample in row]
    base = [sample for row in written.samples[contest.inputs.base.id] for sample in row]
    measures: dict[str, Any] = {
        mark("ended_rate"): ended_rate(own),
        mark("length"): mean_length(own),
        mark("length_ratio"): length_ratio(own, base),
        mark("distinct_2"): distinct_n([sample.text for sample in own], 2),
        mark("samples"): len(own),
    }
    if policy.id == contest.new.id:
        measures |= {
            mark("kl"): written.kl[contest.inputs.base.id],
            mark("kl_parent"): written.kl[contest.inputs.policy.id],
        }
    elif policy.id == contest.inputs.base.id:
        measures |= {"kl": 0.0}
    else:
        measures = policy.measures | measures
    return measures


def _verdict(contest: Contest, scores: Mapping[RewardModelPurpose, Mapping[int, Tensor]]) -> dict[str, Any]:
    """The win rates that promote or reject. Those of the model that PPO climbed only inform: it is no `judge`."""
    by_policy = scores[contest.judge]
    return {
        "judge": _NAMES[contest.judge] if contest.has_judge else None,
        "measured_by": _NAMES[contest.judge],
        "policy": contest.new.version,
        "winrate_parent": asdict(_win_rate(contest, by_policy, contest.new, contest.inputs.policy)),
        "winrate_version_0": asdict(_win_rate(contest, by_policy, contest.new, contest.inputs.base)),
    }


def _first(
    drawn: Mapping[RewardModelPurpose, Mapping[int, Tensor]], count: int
) -> dict[RewardModelPurpose, dict[int, Tensor]]:
    """The scores of each policy's first samples, as many of every one."""
    return {purpose: {id_: table[:, :count] for id_, table in own.items()} for purpose, own in drawn.items()}


def _baselines(
    contest: Contest,
    drawn: Mapping[RewardModelPurpose, Mapping[int, Tensor]],
    scores: Mapping[RewardModelPurpose, Mapping[int, Tensor]],
    written: Written,
) -> dict[str, Any]:
    """Figures that inform and decide nothing: the best of n of the parent, and gold where the project has it."""
    found: dict[str, Any] = {}
    seed, n = contest.inputs.round.seed, contest.inputs.settings.loop.best_of_n
    if n > 0:
        parent = contest.inputs.policy.id
        by_training, by_judge = drawn[RewardModelPurpose.TRAINING][parent], drawn[contest.judge][parent]
        own = scores[contest.judge][contest.new.id]
        best = against_best_of_n(own, by_training, by_judge, n, derive_seed(seed, "best of n"))
        found["best_of_n"] = asdict(best)
    gold = agreement_with_gold(
        contest.gold, written.gold[contest.new.id], written.gold[contest.inputs.base.id], derive_seed(seed, "gold")
    )
    return found | ({"gold": asdict(gold)} if gold is not None else {})


def gate_pairs(
    new: Sequence[Response], old: Sequence[Response], count: int, seed: int
) -> list[tuple[Response, Response]]:
    """Up to `count` pairs of differing answers to the same prompt, drawn so that prompts take turns."""
    chance = random.Random(seed)
    by_prompt: dict[int, list[tuple[Response, Response]]] = {}
    for first, second in zip(new, old, strict=True):
        if first.text.strip() and second.text.strip() and first.text != second.text:
            by_prompt.setdefault(first.prompt_id, []).append((first, second))
    pairs = list(by_prompt.values())
    chance.shuffle(pairs)
    turns = max((len(own) for own in pairs), default=0)
    in_turns = [own[turn] for turn in range(turns) for own in pairs if turn < len(own)]
    return in_turns[:count]
