"""Which prompts is a policy to answer? The lines of a file, as they stand and as messages."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from worker.learning.json_lines import Json, LineError, Row, each_line, refusal
from worker.learning.records import Message, Prompt
from worker.learning.reward.shapes import BadLine, kind, read_prompt

EXAMPLE = 'a line is {"prompt": "..."}, or {"prompt": [{"role": "user", "content": "..."}]}'


@dataclass(frozen=True)
class PromptLine:
    """A prompt, and the whole line in which it stands."""

    messages: tuple[Message, ...]
    row: Row


def read_prompts(path: Path, check: Callable[[Prompt], None] | None = None) -> list[PromptLine]:
    """The prompts of a file of JSON Lines, plain or gzipped: each a text or a list of messages.

    Args:
        path: the file; the keys of a prompt are those of reward models' labels, other keys are kept.
        check: raises ValueError with a sentence where a prompt that can be read cannot be used.

    Raises:
        ValueError: if a line cannot be read or used, naming the first ten that cannot, or if there is none.
    """

    def parse(row: Json) -> tuple[Message, ...]:
        if not isinstance(row, dict):
            raise BadLine(f'it is {kind(row)}, not an object with "prompt"')
        messages = read_prompt(row)
        if check is not None:
            check(messages)
        return messages

    prompts: list[PromptLine] = []
    bad: list[LineError] = []
    for row, read in each_line(path, parse):
        if isinstance(read, LineError):
            bad.append(read)
        else:
            prompts.append(PromptLine(read, row))
    if bad:
        raise ValueError(refusal(path, bad))
    if not prompts:
        raise ValueError(f"{path} has no prompt: {EXAMPLE}")
    return prompts
