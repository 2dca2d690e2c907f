"""What may a part of an answer be? Objects, response ids and truth values, each refused by name where it is not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from app.errors import Invalid
from app.language import gettext as _


@dataclass(frozen=True)
class Part:
    """A part of the answer: its path in the JSON, and its name in sentences."""

    path: str
    name: str

    def refused(self, sentence: str, error: type[Invalid] = Invalid, **details: object) -> Invalid:
        """The error that says what is wrong with this part."""
        said = _("%(part)s: %(sentence)s", part=self.name, sentence=sentence)
        return error(said, details={"field": self.path, **details})


@dataclass(frozen=True)
class Shown:
    """The comparison's responses, in the order shown."""

    texts: Mapping[int, str]

    @property
    def count(self) -> int:
        return len(self.texts)

    def numbers(self, ids: Iterable[int]) -> str:
        """Responses as the annotator knows them: by their numbers in the order shown."""
        wanted = set(ids)
        return ", ".join(str(number) for number, id_ in enumerate(self.texts, start=1) if id_ in wanted)

    def by_id(self, part: Part, said: object) -> dict[int, object]:
        """A JSON object with response ids as keys. Raises Invalid."""
        keys = {str(id_): id_ for id_ in self.texts}
        found: dict[int, object] = {}
        for key, value in read_object(part, said).items():
            if (id_ := keys.get(key)) is None:
                raise part.refused(
                    _("“%(key)s” is no response of this comparison: use the ids that it shows.", key=key[:40])
                )
            found[id_] = value
        return {id_: found[id_] for id_ in sorted(found)}

    def ids(self, part: Part, said: object, error: type[Invalid] = Invalid) -> list[int]:
        """A list of different response ids. Raises `error`."""
        if not isinstance(said, list | tuple) or not all(is_whole(id_) for id_ in said):
            raise part.refused(_("list response ids, which are whole numbers."), error)
        if any(id_ not in self.texts for id_ in said):
            raise part.refused(
                _("some of these are no responses of this comparison: use the ids that it shows."), error
            )
        return list(said)


def refuse_keys(part: Part, said: Mapping[str, object], known: Iterable[str]) -> None:
    """Raise Invalid where something else is said than what is `known`."""
    named = list(known)
    if unknown := [key for key in said if key not in named]:
        rest = _("What is asked: %(known)s.", known=", ".join(named)) if named else _("Nothing is asked here.")
        raise part.refused(_("“%(key)s” is not asked: leave it out. %(rest)s", key=unknown[0][:40], rest=rest))


def read_object(part: Part, said: object) -> dict[str, object]:
    """A JSON object with text as keys; null is the same as left out. Raises Invalid."""
    if said is None:
        return {}
    if not isinstance(said, Mapping):
        raise part.refused(_("this must be a JSON object."))
    keys = [str(key) for key in said if isinstance(key, str) or is_whole(key)]
    if len(set(keys)) < len(said):
        raise part.refused(_("name everything once, with text as keys."))
    return {key: value for key, value in zip(keys, said.values(), strict=True) if value is not None}


def is_whole(value: object) -> TypeGuard[int]:
    """An integer as JSON knows it: a boolean is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def read_truth(part: Part, said: object) -> bool:
    """True or false; what is left out is false. Raises Invalid."""
    if said is None or isinstance(said, bool):
        return bool(said)
    raise part.refused(_("say true, or leave it out."))
