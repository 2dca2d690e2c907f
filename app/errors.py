"""Which refusals can a rule answer with? Each names itself, its HTTP status and what to do next."""

from collections.abc import Mapping


class PrefloopError(Exception):
    """Something a person can act on: `str(error)` is shown to them as it stands."""

    status = 400

    def __init__(self, message: str, *, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.details = dict(details or {})

    @property
    def code(self) -> str:
        """A name that programs can compare, such as `LeaseLost`."""
        return type(self).__name__


class NotFound(PrefloopError):
    """The row does not exist, or is none of this person's business."""

    status = 404


class NotSignedIn(PrefloopError):
    """The request carries no valid session or token."""

    status = 401


class NotAllowed(PrefloopError):
    """The person is known and may not do this."""

    status = 403


class Conflict(PrefloopError):
    """The row is not in a state that allows this; the message says which state it is in."""

    status = 409


class ConsentNeeded(Conflict):
    """The annotator has not accepted the project's consent text; `details["consent_text"]` holds it."""


class ReadingNeeded(Conflict):
    """The annotator has not read the project's guidelines as they stand now."""


class Invalid(PrefloopError):
    """The input breaks a rule; the message says which and how to mend it."""

    status = 422


class InvalidRanking(Invalid):
    """A ranking that is not a partition of the comparison's own responses."""


class InvalidImport(Invalid):
    """A file with lines that cannot be taken; `details["errors"]` lists line and reason."""


class LinkExpired(Conflict):
    """An invite or sign-in link that was used, revoked or has run out."""


class TooManyTries(PrefloopError):
    """Too many wrong passwords in a row; the message says when to try again."""

    status = 429


class StaleAttempt(Conflict):
    """A worker finished an attempt of a run that was given to somebody else meanwhile."""
