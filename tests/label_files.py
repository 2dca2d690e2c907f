"""The labels of a file as the commands read them, for tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from worker.learning.records import Label, Scale
from worker.learning.reward.files import labels_of, read_lines
from worker.learning.reward.scales import on_common_scales


def labels_in(file: Path, known: Mapping[str, Sequence[Scale]] | None = None) -> list[Label]:
    """All that its lines say, on common scales, or on the `known` ones of a model."""
    return labels_of(on_common_scales(read_lines(file), known))
