r"""Which parts of a text are LaTeX? Rules for the markdown parser, strict enough that prices stay prices.

Models write `\[` on the line below a sentence, indent it, leave spaces inside `$ x^2 $`, and quote prices in the same
paragraph. So a display that begins a line ends a paragraph, as a code fence does, and a dollar opens math only where
both ends of the pair look like it.
"""

import re

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

_ENVIRONMENTS = (
    *("equation", "align", "alignat", "gather", "multline", "eqnarray", "flalign", "cases", "array", "CD"),
    *("matrix", "pmatrix", "bmatrix", "Bmatrix", "vmatrix", "Vmatrix"),
)
_BEGIN = re.compile(r"\\begin\{((?:" + "|".join(_ENVIRONMENTS) + r")\*?)\}")
# Between the delimiters: anything escaped, or anything that neither closes the math nor begins code.
_DOLLAR = re.compile(r"\$((?:\\.|[^\\$`])+)\$(?!\$)", re.DOTALL)
_DOUBLE_DOLLAR = re.compile(r"\$\$((?:\\.|[^\\$])+)\$\$", re.DOTALL)
_LOOKS_LIKE_TEX = re.compile(r"[\\^_=+<>]")
_PROSE = re.compile(r"[^\W\d_]{2,}\s+[^\W\d_]{2,}")  # two words in a row
_SENTENCE_END = re.compile("[.,;:!?\u3002\uff0c\uff1b\uff1a]?$")  # the last four are Chinese


def find_math(parser: MarkdownIt) -> None:
    r"""Let `parser` make tokens of math: `math_inline`, `math_display` within a line, `math_block` on lines of its own.

    Understands `$..$`, `\(..\)`, `$$..$$`, `\[..\]` and environments such as `\begin{align}`. A token's content is the
    TeX between the delimiters, and its markup is the opening delimiter; an environment's content is all of it.
    """
    parser.inline.ruler.before("escape", "math_dollar", _dollar)
    parser.inline.ruler.before("escape", "math_backslash", _backslash)
    ends = ["paragraph", "reference", "blockquote", "list"]
    parser.block.ruler.before("code", "math_block", _block, {"alt": ends})


def _push(state: StateInline, kind: str, tex: str, end: int, silent: bool) -> bool:
    if end > state.posMax:
        return False
    if not silent:
        token = state.push(kind, "math", 0)
        token.content = tex.strip()
        token.markup = state.src[state.pos : state.pos + 2]
    state.pos = end
    return True


def _dollar(state: StateInline, silent: bool) -> bool:
    """`$..$` and `$$..$$` in a line of text."""
    if state.src[state.pos] != "$":
        return False
    if found := _DOUBLE_DOLLAR.match(state.src, state.pos):
        return bool(found[1].strip()) and _push(state, "math_display", found[1], found.end(), silent)
    found = _DOLLAR.match(state.src, state.pos)
    return found is not None and _is_math(found) and _push(state, "math_inline", found[1], found.end(), silent)


def _is_math(found: re.Match[str]) -> bool:
    """Whether what stands between two dollars is math, and not the text between two prices or shell variables."""
    tex = found[1]
    before = found.string[found.start() - 1 : found.start()]
    after = found.string[found.end() : found.end() + 2]
    if (before.isascii() and before.isalnum()) or after[:1].isdigit():
        return False
    spaces = tex[0].isspace() + tex[-1].isspace()
    if spaces == 0 and after[:1].isalpha() and tex[-1] in "/:;.,-_&?":
        return False
    if "\\" in tex or "^" in tex:
        return True
    if spaces == 0:
        return _PROSE.search(tex) is None
    return spaces == 2 and _LOOKS_LIKE_TEX.search(tex) is not None and not after.strip().isdigit()


def _backslash(state: StateInline, silent: bool) -> bool:
    r"""`\(..\)`, `\[..\]` and environments in a line. An escaped bracket around a reference, `\[1\]`, stays text."""
    opening = state.src[state.pos : state.pos + 2]
    if opening == "\\b" and (begin := _BEGIN.match(state.src, state.pos)):
        end = state.src.find(_closing(begin), begin.end()) + len(_closing(begin))
        return end > begin.end() and _push(state, "math_display", state.src[state.pos : end], end, silent)
    if opening not in ("\\(", "\\["):
        return False
    end = state.src.find("\\)" if opening == "\\(" else "\\]", state.pos + 2)
    tex = state.src[state.pos + 2 : end]
    if end < 0 or not tex.strip():
        return False
    if opening == "\\(":
        return _push(state, "math_inline", tex, end + 2, silent)
    is_reference = not tex[0].isspace() and not _LOOKS_LIKE_TEX.search(tex)
    return not is_reference and _push(state, "math_display", tex, end + 2, silent)


def _closing(begin: re.Match[str]) -> str:
    return rf"\end{{{begin[1]}}}"


def _block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    r"""A display on lines of its own: from `\[`, `$$` or `\begin{..}` at the start of a line to what closes it."""
    text = state.src[state.bMarks[first] + state.tShift[first] : state.eMarks[first]]
    begin = _BEGIN.match(text)
    opening = begin[0] if begin else text[:2]
    closing = _closing(begin) if begin else {"\\[": "\\]", "$$": "$$"}.get(opening)
    # An environment ends no paragraph: it may stand inside a display that began at the end of a line.
    end = _closed_at(state, first, last, opening, closing) if closing and not (silent and begin) else None
    if closing is None or end is None:
        return False
    tex, _, rest = state.getLines(first, end + 1, state.blkIndent, False).strip()[len(opening) :].partition(closing)
    is_alone = _SENTENCE_END.match(rest.strip()) is not None
    if not tex.strip() or not (is_alone or end > first):
        return False
    if not silent:
        token = state.push("math_block", "math", 0)
        token.content = (f"{opening}{tex}{closing}" if begin else tex.strip()) + (rest.strip() if is_alone else "")
        token.markup = opening
        token.map = [first, end + 1]
        if not is_alone:
            # The line goes on with text: the parser shall read it from there.
            state.bMarks[end] = state.src.index(closing, state.bMarks[end]) + len(closing)
            state.tShift[end] = len(rest) - len(rest.lstrip())
            state.sCount[end] = state.blkIndent
    state.line = end + is_alone
    return True


def _closed_at(state: StateBlock, first: int, last: int, opening: str, closing: str) -> int | None:
    """The line in which the display that `first` opens is closed; None where a blank line or another display comes."""
    for line in range(first, last):
        start, end = state.bMarks[line] + state.tShift[line], state.eMarks[line]
        if start >= end or (line > first and state.sCount[line] < state.blkIndent):
            return None
        skipped = len(opening) if line == first else 0
        if state.src.find(closing, start + skipped, end) >= 0:
            return line
        if line > first and state.src.startswith(opening, start):
            return None
    return None
