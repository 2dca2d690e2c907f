"""Which endings does the small model learn? `python -m demo.endings CORPUS... --out FILE` cuts them out of stories.

The demo's prompts are openings of two sentences, and its policy is to bring them to an end within a few more. So
each story gives up to three pairs for `prefloop sft`: two or three consecutive sentences, and the three, four or five
that end the story after them. A pair carries its whole story as its group, and so stays held out if the story was
held out from pretraining.
"""

import json
import re
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import click

from worker.learning.corpus import read_documents

ENDING_SENTENCES = (3, 4, 5)
MOST_WORDS = 60
"""Longer endings are left out: the demo samples some 80 tokens, and its policy should end by then."""

_BREAK = re.compile(r"""[.!?]["']?\s+(?=["'A-Z])""")


def split_sentences(story: str) -> list[str]:
    """The sentences of a story. What somebody says stays in one piece with who says it.

    A story whose quotation marks do not pair has none: there is no telling where speech ends.
    """
    starts = [0, *(match.end() for match in _BREAK.finditer(story))]
    pieces = [story[start:end].strip() for start, end in zip(starts, [*starts[1:], len(story)], strict=True)]
    marks = list(accumulate(piece.count('"') for piece in pieces))
    if marks[-1] % 2:
        return []
    sentences: list[str] = []
    is_open = False
    for piece, seen in zip(pieces, marks, strict=True):
        text = " ".join(piece.split())
        if is_open:
            sentences[-1] += f" {text}"
        else:
            sentences.append(text)
        is_open = seen % 2 == 1
    return sentences


def pairs_of(story: str) -> Iterator[dict[str, str]]:
    """The story's pairs: what comes before the end, and the end."""
    sentences = split_sentences(story)
    for count in ENDING_SENTENCES:
        before = 2 + (len(story) + count) % 2  # two or three, by no more than chance
        prompt, ending = sentences[-count - before : -count], " ".join(sentences[-count:])
        is_short = len(ending.split()) <= MOST_WORDS
        if len(prompt) == before and is_short and ending.endswith((".", "!", "?", '"')):
            yield {"prompt": " ".join(prompt), "response": ending, "group": story}


@click.command()
@click.argument("corpus", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="JSON lines, overwritten.")
def main(corpus: tuple[Path, ...], out: Path) -> None:
    """Cut endings out of CORPUS, text files with <|endoftext|> between the stories, for `prefloop sft`."""
    try:
        stories = read_documents(corpus)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    pairs = [pair for story in stories for pair in pairs_of(story)]
    out.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs))
    click.echo(f"{len(pairs)} pairs from {len(stories)} stories in {out}")


if __name__ == "__main__":
    main()
