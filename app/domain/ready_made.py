"""With which judgement form may a project begin? The mixes that the field uses, ready to be taken and changed."""

from dataclasses import dataclass

from app.domain.judgement import USUAL_FLAGS, Criterion, JudgementForm, PairAsked, RankingAsked, ScoreAsked
from app.language import gettext as _
from app.language import mark

PLAIN = "ranking"


@dataclass(frozen=True)
class ReadyMade:
    """A judgement form under a name. `name` and `description` pass through gettext where they are shown."""

    key: str
    name: str
    description: str
    form: JudgementForm


_HELPFUL = mark("It does what was asked, clearly and completely.")
_SAFE = mark("It keeps people from harm, and declines what would do harm.")

READY_MADE = (
    ReadyMade(
        PLAIN,
        mark("Plain ranking"),
        mark("All responses in one order, ties allowed. The quickest, and all that a reward model needs."),
        JudgementForm(),
    ),
    ReadyMade(
        "llama2",
        mark("Graded pair, helpful and safe"),
        mark("Which of two is better and how much, overall and by two criteria, as for Llama 2 (Touvron et al. 2023)."),
        JudgementForm(
            overall="pair",
            pair=PairAsked(scale="llama2"),
            criteria=(
                Criterion(key="helpful", name=mark("Helpful"), description=_HELPFUL, kind="pair"),
                Criterion(key="safe", name=mark("Safe"), description=_SAFE, kind="pair"),
            ),
            flags=USUAL_FLAGS,
        ),
    ),
    ReadyMade(
        "hhh",
        mark("Helpful, honest, harmless"),
        mark("A ranking overall and one for each of the three (Askell et al. 2021)."),
        JudgementForm(
            criteria=(
                Criterion(key="helpful", name=mark("Helpful"), description=_HELPFUL, kind="ranking"),
                Criterion(
                    key="honest",
                    name=mark("Honest"),
                    description=mark("What it says is true, and it says what it does not know."),
                    kind="ranking",
                ),
                Criterion(key="harmless", name=mark("Harmless"), description=_SAFE, kind="ranking"),
            ),
            all_bad=True,
            flags=USUAL_FLAGS,
        ),
    ),
    ReadyMade(
        "helpsteer",
        mark("Five scores from 1 to 5"),
        mark("Each response by itself, no order, with the criteria of HelpSteer (Wang et al. 2023)."),
        JudgementForm(
            overall="none",
            criteria=(
                Criterion(key="helpfulness", name=mark("Helpfulness"), description=_HELPFUL),
                Criterion(
                    key="correctness",
                    name=mark("Correctness"),
                    description=mark("All that it says is right, and nothing that matters is missing."),
                ),
                Criterion(
                    key="coherence",
                    name=mark("Coherence"),
                    description=mark("It hangs together and is easy to follow."),
                ),
                Criterion(
                    key="complexity",
                    name=mark("Complexity"),
                    description=mark("How much expertise it takes to write it: 1 anybody, 5 an expert."),
                ),
                Criterion(
                    key="verbosity",
                    name=mark("Verbosity"),
                    description=mark("How long it is for what was asked: 1 terse, 5 wordy."),
                ),
            ),
            flags=USUAL_FLAGS,
        ),
    ),
    ReadyMade(
        "score",
        mark("A score such as 4.2 of 5"),
        mark("A number for each response, no order: for regression."),
        JudgementForm(overall="none", score=ScoreAsked(), flags=USUAL_FLAGS),
    ),
    ReadyMade(
        "correction",
        mark("Ranking, correction and reasons"),
        mark("The best few in order, a better text where it is easy to write, and why."),
        JudgementForm(
            ranking=RankingAsked(partial=True),
            all_bad=True,
            correction="optional",
            rationale="required",
            flags=USUAL_FLAGS,
        ),
    ),
)


def ready_made(key: str) -> ReadyMade | None:
    """The ready-made form with this key."""
    return next((one for one in READY_MADE if one.key == key), None)


def in_this_language(form: JudgementForm) -> JudgementForm:
    """A ready-made form with its criteria's names and sentences in the language of the request, to be kept so."""
    criteria = [
        one.model_copy(update={"name": _(one.name), "description": _(one.description) if one.description else ""})
        for one in form.criteria
    ]
    return form.model_copy(update={"criteria": tuple(criteria)})
