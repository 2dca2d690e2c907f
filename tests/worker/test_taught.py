"""What does a reward model learn from the labels? All that an answer says, on its own form's scale, and no more."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain import comparisons, labels, people, projects, queue, reward_models, rounds
from app.domain.judgement import JudgementForm
from app.domain.snapshots import RankedSet
from app.tables import (
    Assignment,
    Comparison,
    Membership,
    Project,
    Prompt,
    Purpose,
    RewardModelPurpose,
    Round,
    RoundState,
    Split,
    Trigger,
)
from app.tables import (
    Label as LabelRow,
)
from tests.factories import make_member, make_responses
from tests.factories_loop import claim
from tests.worker.conftest import small_project
from tests.worker.round_steps import CPU, Committed, execute
from worker.attempt import Attempt
from worker.learning.records import Judgement, Label, Message, Scale
from worker.learning.reward.observations import shape_of
from worker.steps.fit_reward_model import read_labels
from worker.steps.inputs import read_round
from worker.steps.taught import as_labels

PROMPT: tuple[Message, ...] = ({"role": "user", "content": "hello"},)
PAIR = [(10, "a"), (11, "b")]
FOUR = [(10, "a"), (11, "b"), (12, "c"), (13, "d")]
WITHOUT_TIES = Scale(levels=1, ties=False)


def ranked(
    groups: list[list[int]],
    form: dict[str, Any] | None = None,
    responses: list[tuple[int, str]] = FOUR,
    shown: list[int] | None = None,
    **answers: Any,
) -> RankedSet:
    """What annotator 7 said of `responses`; `groups` are places."""
    return RankedSet(
        revision_id=1,
        comparison_id=1,
        prompt_id=1,
        split=Split.TRAIN,
        messages=list(PROMPT),
        responses=responses,
        groups=groups,
        annotator_id=7,
        shown_order=shown or [id_ for id_, _text in responses],
        answers=answers,
        seconds=None,
        form=JudgementForm.model_validate(form or {}),
        believed=1.0,
    )


def taught(*args: Any, **named: Any) -> Label:
    """The one label that an answer gives."""
    (label,) = as_labels(ranked(*args, **named))
    return label


def test_a_ranking_says_who_gave_it_and_what_they_saw_first() -> None:
    assert taught([[2], [0, 3], [1]], shown=[13, 10, 12, 11]) == Label(
        PROMPT,
        ("a", "b", "c", "d"),
        Judgement(((2,), (0, 3), (1,))),
        annotator="7",
        shown=(3, 0, 2, 1),
    )


def test_of_a_partial_ranking_the_placed_responses_teach() -> None:
    label = taught([[3], [0, 1]], {"ranking": {"partial": True}}, shown=[12, 13, 11, 10])
    assert (label.responses, label.overall.groups, label.shown) == (("a", "b", "d"), ((2,), (0, 1)), (2, 1, 0))


def test_a_ranking_without_ties_is_on_a_scale_without_them() -> None:
    assert taught([[0], [1], [2], [3]], {"ranking": {"ties": False}}).overall.scale == WITHOUT_TIES
    assert taught([[0], [1], [2], [3]]).overall.scale == Scale(levels=1, ties=True)


@pytest.mark.parametrize(
    ("scale", "strength", "expected"),
    [("better", 1, Scale(1, ties=True)), ("llama2", 3, Scale(3, ties=True)), ("anthropic", 4, Scale(4, ties=False))],
)
def test_a_graded_pair_has_its_strength_and_its_scale(scale: str, strength: int, expected: Scale) -> None:
    form = {"overall": "pair", "pair": {"scale": scale}}
    label = taught([[1], [0]], form, PAIR, strength=strength)
    assert label.overall == Judgement(((1,), (0,)), strength, expected)


def test_a_tied_pair_has_no_strength() -> None:
    label = taught([[0, 1]], {"overall": "pair"}, PAIR)
    assert label.overall == Judgement(((0, 1),), None, Scale(3, ties=True))


def test_where_pairs_are_asked_more_than_two_responses_are_ranked() -> None:
    assert taught([[1], [0], [2, 3]], {"overall": "pair"}).overall.scale == Scale(levels=1, ties=True)


def test_scores_teach_as_they_were_given() -> None:
    form = {"overall": "none", "score": {"lowest": 1, "highest": 10}}
    label = taught([], form, scores={"10": 7.5, "12": 2})
    assert label.responses == ("a", "c")
    assert label.overall == Judgement(scores=(7.5, 2.0))
    alone = taught([], form, [(10, "a")], scores={"10": 3})
    assert (alone.responses, alone.overall.scores, alone.shown) == (("a",), (3.0,), (0,))


def test_every_criterion_is_judged_on_its_own_scale() -> None:
    form = {
        "overall": "pair",
        "pair": {"scale": "anthropic"},
        "ranking": {"ties": False},
        "criteria": [
            {"key": "helpful", "name": "Helpful", "kind": "pair"},
            {"key": "honest", "name": "Honest", "kind": "ranking"},
            {"key": "harmless", "name": "Harmless", "kind": "score"},
            {"key": "brief", "name": "Brief", "required": False},
        ],
    }
    said = {
        "helpful": {"groups": [[10], [11]], "strength": 4},
        "honest": {"groups": [[11], [10]]},
        "harmless": {"scores": {"11": 5}},
    }
    label = taught([[0], [1]], form, PAIR, strength=2, criteria=said)
    assert label.overall == Judgement(((0,), (1,)), 2, Scale(4, ties=False))
    assert label.criteria == {
        "helpful": Judgement(((0,), (1,)), 4, Scale(4, ties=False)),
        "honest": Judgement(((1,), (0,)), None, WITHOUT_TIES),
        "harmless": Judgement(scale=WITHOUT_TIES, scores=(None, 5.0)),
    }


def test_a_criterion_never_takes_the_name_of_an_output() -> None:
    form = {
        "overall": "none",
        "criteria": [{"key": "overall", "name": "All in all"}, {"key": "score", "name": "Score"}],
    }
    label = taught([], form, PAIR, criteria={"overall": {"scores": {"10": 2}}, "score": {"scores": {"11": 5}}})
    assert set(label.criteria) == {"overall (criterion)", "score (criterion)"}
    assert shape_of([label], annotators=False).outputs == ("overall", "overall (criterion)", "score (criterion)")


def test_a_response_of_which_only_a_criterion_speaks_is_kept() -> None:
    form = {"ranking": {"partial": True}, "criteria": [{"key": "true", "name": "True"}]}
    label = taught([[3], [1]], form, criteria={"true": {"scores": {"10": 2, "13": 5}}})
    assert (label.responses, label.overall.groups) == (("a", "b", "d"), ((2,), (1,)))
    assert label.criteria["true"].scores == (2.0, None, 5.0)


def test_flags_reasons_and_all_bad_teach_nothing() -> None:
    form = {"all_bad": True, "flags": [{"key": "odd", "name": "Odd"}], "rationale": "optional"}
    assert list(as_labels(ranked([], form, all_bad=True, flags={"odd": [10]}, rationale="why"))) == []


def test_a_correction_is_a_pair_of_its_own_and_marked() -> None:
    said = {"13": {"text": "better d", "response_id": 20}}
    whole, implied = as_labels(ranked([[0, 1, 2, 3]], {"correction": "optional"}, corrections=said), 0.5)
    assert (whole.overall.groups, whole.implied, whole.weight) == (((0, 1, 2, 3),), False, 0.5)
    assert implied == Label(
        PROMPT,
        ("better d", "d"),
        Judgement(((0,), (1,)), scale=WITHOUT_TIES),
        annotator="7",
        weight=0.5,
        implied=True,
    )


def small(session: Session, tiny: Path, form: dict[str, Any] | None = None, **settings: Any) -> Project:
    """A project whose thirty prompts have a comparison of three imported responses each."""
    project = small_project(session, tiny, loop={"prompts_per_round": 0}, **settings)
    if form:
        projects.new_version(session, project, guidelines="", consent_text="", judgement_form=form, by=None)
    for prompt in session.scalars(select(Prompt).where(Prompt.project_id == project.id)).all():
        compare(session, prompt)
    return project


def compare(session: Session, prompt: Prompt, purpose: Purpose = Purpose.TRAIN, repeats: int | None = None) -> None:
    ids = [row.id for row in make_responses(session, prompt, [f"{purpose} {word}" for word in ("good", "bad", "the")])]
    new = comparisons.NewComparison(prompt.project_id, prompt.id, ids, 1, purpose, "imported")
    comparisons.create_comparisons(session, [new])


def answer_all(session: Session, project: Project, member: Membership, answers: Any) -> None:
    """`answers(ids)` gives groups and the rest."""
    while isinstance(found := queue.next_assignment(session, project.id, member.id), Assignment):
        groups, said = answers(sorted(found.shown_order))
        labels.submit(session, found.id, member.id, groups, answers=said)


def labelled_round(session: Session, tiny: Path, form: dict[str, Any], answers: Any) -> Round:
    """A round that goes on to fitting with labels to a form."""
    project = small(session, tiny, form)
    round_ = rounds.start_round(session, session.get_one(Project, project.id), by=None, seed=1)
    answer_all(session, project, make_member(session, project), answers)
    return rounds.fire(session, round_, Trigger.HAND)


def in_order(ids: list[int]) -> Any:
    return [[id_] for id_ in ids], {}


def taught_in(session: Session, round_: Round) -> dict[Split, list[Label]]:
    """The labels that the fit step of a round that goes on now would learn from."""
    rounds.fire(session, round_, Trigger.HAND)
    run, number = claim(session, round_)
    return read_labels(session, read_round(session, Attempt(run.id, number, CPU)))


@pytest.mark.parametrize("purpose", [purpose for purpose in Purpose if purpose is not Purpose.TRAIN])
def test_comparisons_that_check_or_measure_never_teach(session: Session, tiny_folder: Path, purpose: Purpose) -> None:
    project = small(session, tiny_folder)
    round_ = rounds.start_round(session, session.get_one(Project, project.id), by=None, seed=1)
    for prompt in session.scalars(select(Prompt).where(Prompt.project_id == project.id)).all():
        compare(session, prompt, purpose)
    answer_all(session, project, make_member(session, project), in_order)
    answered = session.scalars(select(Comparison.purpose).join(LabelRow)).all()
    assert sorted(answered) == sorted([Purpose.TRAIN] * 30 + [purpose] * 30)
    read = taught_in(session, round_)
    texts = {text for own in read.values() for label in own for text in label.responses}
    assert texts == {"train good", "train bad", "train the"}
    assert {split: len(own) for split, own in read.items()} == {
        Split.TRAIN: 12,
        Split.VALIDATION: 12,
        Split.TEST: 6,
    }


def test_labels_stay_in_the_split_of_their_prompts(session: Session, tiny_folder: Path) -> None:
    project = small(session, tiny_folder)
    round_ = rounds.start_round(session, session.get_one(Project, project.id), by=None, seed=1)
    answer_all(session, project, make_member(session, project), in_order)
    read = taught_in(session, round_)
    for split, own in read.items():
        prompts = session.scalars(select(Prompt).where(Prompt.project_id == project.id, Prompt.split == split))
        asked = sorted(prompt.messages[-1]["content"] for prompt in prompts)
        assert sorted(label.prompt[-1]["content"] for label in own) == asked


@pytest.mark.parametrize(("annotators", "weights"), [("equal", {1.0}), ("given", {1.0, 0.25}), ("learned", {1.0})])
def test_given_weights_count_where_the_project_says_so(
    session: Session, tiny_folder: Path, annotators: str, weights: set[float]
) -> None:
    project = small(session, tiny_folder, reward={"annotators": annotators})
    round_ = rounds.start_round(session, session.get_one(Project, project.id), by=None, seed=1)
    first, second, third = (make_member(session, project) for _ in range(3))
    for number, member in enumerate((first, second, third)):
        for _ in range(10):
            found = queue.next_assignment(session, project.id, member.id)
            assert isinstance(found, Assignment), number
            labels.submit(session, found.id, member.id, in_order(sorted(found.shown_order))[0])
    admin = people.get_person(session, first.person_id)
    people.set_label_weight(session, project.id, second.id, 0.25, admin)
    people.set_label_weight(session, project.id, third.id, 0, admin)
    read = [label for own in taught_in(session, round_).values() for label in own]
    by_annotator = {label.annotator: label.weight for label in read}
    assert set(by_annotator.values()) == weights
    assert (str(third.id) in by_annotator) == (annotators != "given")
    if annotators == "given":
        assert by_annotator == {str(first.id): 1.0, str(second.id): 0.25}


def test_partial_rankings_and_corrections_are_fitted_on(
    committed: Committed, tiny_folder: Path, artifacts: Path
) -> None:
    form = {"ranking": {"partial": True}, "all_bad": True, "correction": "optional"}

    def answers(ids: list[int]) -> Any:
        if ids[0] % 2:
            return [[ids[0]], [ids[1]]], {}
        return [], {"all_bad": True, "corrections": {str(ids[1]): "good dog"}}

    with committed.begin() as session:
        round_id = labelled_round(session, tiny_folder, form, answers).id
    execute(committed, round_id)
    with committed() as session:
        round_ = session.get_one(Round, round_id)
        card = reward_models.reward_models_of_round(session, round_)[RewardModelPurpose.TRAINING].card
    assert round_.state is RoundState.IMPROVING
    assert card["labels"] == {"fitted_on": 12, "chosen_on": 12, "test": 6}
    assert 0 < card["corrections"] < 12
    assert card["n"] > 0


def test_scores_alone_are_fitted_on(committed: Committed, tiny_folder: Path, artifacts: Path) -> None:
    form = {"overall": "none", "score": {}}
    with committed.begin() as session:
        round_id = labelled_round(
            session, tiny_folder, form, lambda ids: ([], {"scores": {str(ids[0]): 4.2, str(ids[1]): 1, str(ids[2]): 3}})
        ).id
    execute(committed, round_id)
    with committed() as session:
        round_ = session.get_one(Round, round_id)
        assert round_.state is RoundState.IMPROVING


def test_labels_that_say_nothing_of_the_responses_end_the_step_in_words(
    committed: Committed, tiny_folder: Path, artifacts: Path
) -> None:
    form = {"all_bad": True}
    with committed.begin() as session:
        round_id = labelled_round(session, tiny_folder, form, lambda _ids: ([], {"all_bad": True})).id
    with pytest.raises(ValueError, match="asks for an order, for scores or for corrections"):
        execute(committed, round_id)
