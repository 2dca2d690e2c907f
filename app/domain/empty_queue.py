"""Why is there nothing to hand out, and what will come? Said to people who would like to go on."""

import math
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.domain.filters import ASKED_BEFORE, FOR_ANNOTATOR
from app.language import gettext as _
from app.language import mark, ngettext
from app.tables import Round, RoundState
from app.tables.loop import LIVE_STATES

Reason = Literal[
    "project_paused",
    "nothing_yet",
    "all_leased",
    "you_did_all",
    "not_assigned",
    "held_back",
    "all_done",
    "last_ones",
    "enough_ahead",
    "to_read",
]

_WHY: dict[Reason, str] = {
    "project_paused": mark("This project is paused. What you have answered is kept; come back later."),
    "nothing_yet": mark("There is nothing to label yet."),
    "not_assigned": mark("What is left is assigned to other people."),
    "held_back": mark("The admins hold back what is left. Come back later."),
    "all_done": mark("All comparisons have their labels. Thank you!"),
    "enough_ahead": mark("Answer what is before you first: the next comes then."),
    "last_ones": mark("These are the last ones: the next comes once you have answered the one before you."),
    "to_read": mark("There is something to read before you go on."),
}
_COMING: dict[RoundState, str] = {
    RoundState.SAMPLING: mark("New responses are being written right now; they come to you when they are ready."),
    RoundState.LABELLING: mark("The model learns from the answers next, and then writes new responses."),
    RoundState.FITTING: mark("The model is learning from the answers right now; new responses come after that."),
    RoundState.IMPROVING: mark("The model is learning from the answers right now; new responses come after that."),
    RoundState.EVALUATING: mark("The model has learned and is being tested; new responses come after that."),
}


@dataclass(frozen=True)
class EmptyQueue:
    """Why there is nothing to hand out: a code for programs, a message for people, and the facts it is made of."""

    reason: Reason
    left: int = 0  # comparisons that still want answers
    people: int = 0  # others who hold a lease
    seconds: float | None = None  # until the first of their leases ends
    round_state: RoundState | None = None  # of the live round, if there is one

    @property
    def message(self) -> str:
        """A few sentences, in the language of the request."""
        return f"{self._why()} {self._what_comes()}".strip()

    def _why(self) -> str:
        if self.reason == "all_leased":
            return f"{self._who_is_at_it()} {_('What they leave comes to you.')}"
        if self.reason == "you_did_all":
            others = ngettext(
                "%(num)s comparison still needs other people's eyes.",
                "%(num)s comparisons still need other people's eyes.",
                self.left,
            )
            return f"{_('You have answered or skipped all that is open.')} {others}"
        return _(_WHY[self.reason])

    def _who_is_at_it(self) -> str:
        if self.seconds is None:
            return _("Others are working on all that is left.")
        minutes = max(1, math.ceil(self.seconds / 60))
        people = ngettext(
            "%(num)s other person is working on all that is left.",
            "%(num)s other people are working on all that is left.",
            self.people,
        )
        soonest = ngettext(
            "The next lease ends in %(num)s minute at the latest.",
            "The next lease ends in %(num)s minutes at the latest.",
            minutes,
        )
        return f"{people} {soonest}"

    def _what_comes(self) -> str:
        if self.reason not in {"nothing_yet", "all_done", "you_did_all"}:
            return ""
        if self.round_state is not None:
            return "" if self._waits_for_others() else _(_COMING[self.round_state])
        if self.reason == "nothing_yet":
            return _("The first comparisons come when an admin brings some in or starts a round.")
        if self.reason == "all_done":
            return _("No round is running; new comparisons come when an admin starts one or brings some in.")
        return ""

    def _waits_for_others(self) -> bool:
        return self.reason == "you_did_all" and self.round_state is RoundState.LABELLING


_ASK_WHY = text(
    f"""
    WITH wanted AS (
        SELECT c.id, {FOR_ANNOTATOR} AS is_mine, {ASKED_BEFORE} AS is_asked
        FROM comparisons c
        WHERE c.project_id = :project_id AND c.state = 'open' AND c.submitted < c.k AND c.purpose <> 'repeat'
    ), others AS (
        SELECT count(DISTINCT a.annotator_id) AS people,
               extract(epoch FROM min(a.expires_at) - clock_timestamp()) AS seconds
        FROM assignments a JOIN wanted ON wanted.id = a.comparison_id
        WHERE a.state = 'live' AND a.annotator_id <> :annotator_id AND wanted.is_mine AND NOT wanted.is_asked
    )
    SELECT
        CASE
            WHEN NOT EXISTS (
                SELECT FROM comparisons c WHERE c.project_id = :project_id AND c.state <> 'retired'
            ) THEN 'nothing_yet'
            WHEN EXISTS (SELECT FROM wanted WHERE is_mine AND NOT is_asked) THEN 'all_leased'
            WHEN EXISTS (SELECT FROM wanted WHERE is_mine) THEN 'you_did_all'
            WHEN EXISTS (SELECT FROM wanted) THEN 'not_assigned'
            WHEN EXISTS (
                SELECT FROM comparisons c
                WHERE c.project_id = :project_id AND c.state = 'paused' AND c.openings > 0
                    AND c.purpose <> 'repeat'
            ) THEN 'held_back'
            ELSE 'all_done'
        END AS reason,
        (SELECT count(*) FROM wanted) AS left_over, others.people, others.seconds
    FROM others
    """  # noqa: S608 - the parts are constants
)


def explain(session: Session, project_id: int, annotator_id: int) -> EmptyQueue:
    """Why the queue has nothing for this annotator, who was just handed nothing out."""
    found = session.execute(_ASK_WHY, {"project_id": project_id, "annotator_id": annotator_id}).one()
    state = session.scalar(select(Round.state).where(Round.project_id == project_id, Round.state.in_(LIVE_STATES)))
    seconds = None if found.seconds is None else float(found.seconds)
    return EmptyQueue(found.reason, found.left_over, found.people, seconds, state)
