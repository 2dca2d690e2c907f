"""Rows for tests of the loop: a project whose prompts stand in every split, its rounds, and annotators who label."""

from collections.abc import Sequence
from itertools import count

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain import labels, queue, runs, samples
from app.tables import (
    Assignment,
    FinishReason,
    Membership,
    Policy,
    Project,
    Prompt,
    PromptState,
    ResponsePurpose,
    Round,
    RoundState,
    Run,
    RunState,
    Split,
    Step,
)
from tests.factories import make_member, make_project

SPLITS = {Split.TRAIN: 6, Split.VALIDATION: 3, Split.TEST: 3}
WORDS = "good bad cat dog sun rain sat ran the a big small".split()  # noqa: SIM905 - the tiny model's own
_numbers = count(1)


def make_loop_project(session: Session, *, sizes: dict[Split, int] | None = None, **settings: object) -> Project:
    """A project with prompts in each split, which are set here and not drawn by hash."""
    project = make_project(session, **settings)
    for split, size in (SPLITS if sizes is None else sizes).items():
        session.add_all(_prompt(project, split) for _ in range(size))
    session.flush()
    return project


def _prompt(project: Project, split: Split) -> Prompt:
    number = next(_numbers)
    words = [WORDS[number % len(WORDS)], WORDS[number // len(WORDS) % len(WORDS)], "the"]
    return Prompt(
        project_id=project.id,
        messages=[{"role": "user", "content": " ".join(words)}],
        group_key=f"root {number}",
        split=split,
        state=PromptState.ACTIVE,
        content_hash=f"content {number}",
    )


def make_round(session: Session, project: Project, state: RoundState, number: int = 1) -> Round:
    """A round that stands in a state, as if it had come there."""
    row = Round(
        project_id=project.id,
        number=number,
        state=state,
        settings=project.settings,
        seed=number,
        policy_id=project.current_policy_id,
    )
    session.add(row)
    session.flush()
    return row


def make_run(session: Session, round_: Round, step: Step, state: RunState = RunState.DONE) -> Run:
    """A run of a round."""
    row = Run(project_id=round_.project_id, round_id=round_.id, step=step, state=state)
    session.add(row)
    session.flush()
    return row


def make_policy(session: Session, round_: Round) -> Policy:
    """A policy that a round is said to have made; no weights stand behind it."""
    policy = Policy(
        project_id=round_.project_id,
        version=round_.number,
        parent_id=round_.policy_id,
        reference_id=round_.policy_id,
        round_id=round_.id,
        uri="nowhere",
        content_hash="none",
    )
    session.add(policy)
    session.flush()
    return policy


def make_samples(session: Session, run: Run, policy: Policy, prompts: Sequence[Prompt], texts: Sequence[str]) -> None:
    """What a policy wrote on the test prompts: to each prompt the same texts."""
    samples.store_samples(
        session,
        run,
        policy,
        [
            samples.NewSample(prompt.id, written, (3, 4, 1), FinishReason.ENDED, 0)
            for prompt in prompts
            for written in texts
        ],
        purpose=ResponsePurpose.EVALUATION,
        sampling={},
    )


def claim(session: Session, round_: Round) -> tuple[Run, int]:
    """Begin the round's waiting run, as a worker would."""
    run = session.scalars(select(Run).where(Run.round_id == round_.id, Run.state == RunState.WAITING)).one()
    return run, runs.claim(session, run.id)


def label_all(session: Session, project: Project, members: Sequence[Membership] | None = None) -> int:
    """Annotators answer until the queue is empty, the responses in alphabetical order; return how many labels."""
    annotators = members or [make_member(session, project)]
    answered = 0
    for member in annotators:
        while isinstance(found := queue.next_assignment(session, project.id, member.id), Assignment):
            shown = queue.view(session, found).responses
            groups = [[response.id] for response in sorted(shown, key=lambda response: (response.text, response.id))]
            labels.submit(session, found.id, member.id, groups, seconds=1.0)
            answered += 1
    return answered
