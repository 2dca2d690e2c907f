"""What are annotators asked? A project's judgement form: the overall judgement, and what stands beside it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.domain import texts
from app.domain.validation import listed, reasons_of
from app.errors import Invalid
from app.language import gettext as _
from app.language import mark

Kind = Literal["ranking", "pair", "score"]
Wanted = Literal["no", "optional", "required"]
Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Title = Annotated[str, Field(min_length=1, max_length=80)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_strip_whitespace=True)


class RankingAsked(_Part):
    """How responses are ranked, overall and by criteria."""

    ties: bool = Field(default=True, description="Responses may share a place.")
    partial: bool = Field(
        default=False, description="Responses may be left without a place: then nothing is said of them."
    )


class PairAsked(_Part):
    """How strongly the better one of two responses is preferred."""

    scale: Literal["better", "llama2", "anthropic"] = Field(
        default="llama2",
        description=(
            "better: one of the two or a tie. llama2: slightly better, better, significantly better, or unsure "
            "(Touvron et al. 2023). anthropic: four grades to each side and no tie (Bai et al. 2022)."
        ),
    )

    @property
    def levels(self) -> int:
        """The strongest grade; 1 is the weakest."""
        return {"better": 1, "llama2": 3, "anthropic": 4}[self.scale]

    @property
    def ties(self) -> bool:
        """Whether neither may be better."""
        return self.scale != "anthropic"


class ScoreAsked(_Part):
    """A number for each response."""

    lowest: float = Field(default=1, ge=-1_000, le=1_000, description="The worst score.")
    highest: float = Field(default=5, ge=-1_000, le=1_000, description="The best score.")
    step: float = Field(default=0.1, ge=0.001, le=1_000, description="Scores are whole steps above the lowest.")
    required: bool = Field(default=True, description="Every response needs one.")

    @model_validator(mode="after")
    def _has_room(self) -> "ScoreAsked":
        if self.highest - self.lowest < self.step:
            raise ValueError(_("the highest score must lie at least a step above the lowest"))
        return self


class Criterion(_Part):
    """A named dimension that is judged beside the overall judgement."""

    key: Key = Field(description="Its name in exports: lower case letters, digits and underscores.")
    name: Title = Field(description="Its name on the page.")
    description: str = Field(default="", max_length=500, description="What it means, in a sentence.")
    kind: Kind = Field(default="score", description="How it is judged. A pair of more than two responses is ranked.")
    highest: int = Field(default=5, ge=2, le=10, description="Where it is scored: from 1 to this.")
    required: bool = Field(default=True, description="A label without it is not taken.")


class Flag(_Part):
    """Something to point out, about a response or about the comparison as a whole."""

    key: Key = Field(description="Its name in exports: lower case letters, digits and underscores.")
    name: Title = Field(description="Its name on the page.")
    of: Literal["response", "comparison"] = Field(default="response", description="What it is said of.")
    excuses: bool = Field(default=False, description="With it, nothing else need be answered.")

    @model_validator(mode="after")
    def _excuses_the_whole(self) -> "Flag":
        if self.excuses and self.of == "response":
            raise ValueError(_("only a flag of the comparison can stand instead of the answer"))
        return self


class JudgementForm(_Part):
    """Everything a comparison asks. Immutable with its project version; a label names the version it follows."""

    overall: Literal["ranking", "pair", "none"] = Field(
        default="ranking",
        description="The overall judgement. With `pair`, comparisons of more than two responses are ranked.",
    )
    ranking: RankingAsked = RankingAsked()
    pair: PairAsked = PairAsked()
    all_bad: bool = Field(default=False, description="“All are bad” may stand instead of the overall judgement.")
    score: ScoreAsked | None = Field(default=None, description="A number for each response, such as 4.2 of 5.")
    criteria: tuple[Criterion, ...] = Field(default=(), max_length=12)
    correction: Wanted = Field(
        default="no", description="A response may or must be corrected, or a better one written."
    )
    flags: tuple[Flag, ...] = Field(default=(), max_length=20)
    rationale: Wanted = Field(default="no", description="Reasons in the annotator's own words.")

    @model_validator(mode="after")
    def _asks_something(self) -> "JudgementForm":
        if self.overall == "none" and not (self.score or self.criteria or self.flags or self.correction != "no"):
            raise ValueError(
                _("it asks nothing: choose an overall judgement, a score, criteria, flags or a correction")
            )
        if self.overall == "none" and self.all_bad:
            raise ValueError(_("“all are bad” stands instead of an overall judgement, and there is none"))
        if twice := _twice(criterion.key for criterion in self.criteria):
            raise ValueError(_("two criteria have the same key: %(keys)s", keys=twice))
        if twice := _twice(flag.key for flag in self.flags):
            raise ValueError(_("two flags have the same key: %(keys)s", keys=twice))
        return self

    @property
    def fewest_responses(self) -> int:
        """2 where responses are compared with each other, 1 where each is judged by itself."""
        compares = self.overall != "none" or any(criterion.kind != "score" for criterion in self.criteria)
        return 2 if compares else 1

    def is_ranked(self, kind: Literal["ranking", "pair", "score", "none"], count: int) -> bool:
        """Whether a judgement of this kind is a ranking when `count` responses are shown."""
        return count >= 2 and (kind == "ranking" or (kind == "pair" and count > 2))

    def is_pair(self, kind: Literal["ranking", "pair", "score", "none"], count: int) -> bool:
        """Whether a judgement of this kind asks how much better one of two responses is."""
        return kind == "pair" and count == 2

    def scale(self, kind: Literal["ranking", "pair", "score", "none"], count: int) -> tuple[int, bool]:
        """How many grades an order of `count` responses has to each side, and whether it may have ties."""
        return (self.pair.levels, self.pair.ties) if self.is_pair(kind, count) else (1, self.ranking.ties)


def _twice(keys: Iterable[str]) -> str:
    return ", ".join(sorted(key for key, count in Counter(keys).items() if count > 1))


USUAL_FLAGS = (
    Flag(key="harmful", name=mark("Harmful")),
    Flag(key="private_data", name=mark("Private data")),
    Flag(key="wrong_language", name=mark("Not the language asked for")),
    Flag(key="cannot_judge", name=mark("I cannot judge this"), of="comparison", excuses=True),
)


def parse_form(data: Mapping[str, Any]) -> JudgementForm:
    """The form in `data`. Raises Invalid, which names every bad field."""
    if found := texts.flaw(dict(data)):
        raise Invalid(_("The judgement form cannot be kept: %(reason)s.", reason=found))
    try:
        return JudgementForm.model_validate(data)
    except ValidationError as error:
        reasons = reasons_of(error)
        said = _("This judgement form does not work. %(reasons)s.", reasons=listed(reasons))
        raise Invalid(said, details={"fields": reasons}) from error
