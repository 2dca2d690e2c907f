"""Which words of a piece of code are keywords, strings, comments? Pygments says so, as class names that CSS colours.

Lexers are many and some take quadratic time on text that is not their language, and a response is written by whoever
wants to. So only well-known languages are read, of ordinary length, and for a bounded time.
"""

from collections.abc import Iterator
from functools import cache
from html import escape
from time import thread_time

from pygments.lexer import Lexer
from pygments.lexers import find_lexer_class_by_name
from pygments.token import (
    STANDARD_TYPES,
    Comment,
    Generic,
    Keyword,
    Literal,
    Name,
    Number,
    Operator,
    String,
    _TokenType,
)

_NAMES = """
asm awk bash batch c c# c++ clojure cmake console cpp cs csharp css cuda dart diff docker dockerfile elixir erlang
fortran go golang graphql groovy haskell hcl html ini java javascript js json json5 jsx julia kotlin latex lisp lua
make makefile markdown md nasm nginx objc objective-c pascal perl php pl powershell ps1 protobuf py pycon python
python3 r rb rs ruby rust sass scala scheme scss sh shell solidity sql swift tcl terraform tex tf toml ts tsx
typescript vb.net verilog vhdl vim xml yaml yml zig zsh
"""
_LANGUAGES = frozenset(_NAMES.split())
_LONGEST_LINE = 1_000  # characters; what is longer is data or minified, and nobody reads it
# What is coloured. All other kinds take the class of the nearest kind above them, or none.
_COLOURED = (
    *(Comment, Keyword, Operator.Word, Literal, Number, String, String.Escape, String.Interpol),
    *(Name.Attribute, Name.Builtin, Name.Class, Name.Constant, Name.Decorator, Name.Exception, Name.Function),
    *(Name.Namespace, Name.Tag, Name.Variable.Instance, Generic.Deleted, Generic.Inserted, Generic.Heading),
)
CLASSES = frozenset(STANDARD_TYPES[kind] for kind in _COLOURED)
"""Pygments' short names of the classes that are written."""


class Highlighter:
    """Highlights the code of one text, as long as that stays cheap; what comes later is plain.

    `characters` and `seconds` (of this thread's processor) bound what all code of the text may take together.
    """

    def __init__(self, characters: int = 20_000, seconds: float = 0.04) -> None:
        self._characters = characters
        self._seconds = seconds

    def html(self, code: str, language: str) -> str:
        """`code` escaped, in spans of `CLASSES` where `language` is known. No character is added or lost."""
        lexer = _lexer(language.lower()) if language.lower() in _LANGUAGES else None
        is_small = len(code) <= self._characters and max(map(len, code.split("\n"))) <= _LONGEST_LINE
        if lexer is None or not is_small or self._seconds <= 0:
            return escape(code)
        self._characters -= len(code)
        runs = list(self._runs(lexer, code))
        if "".join(text for text, _ in runs) != code:
            return escape(code)
        return "".join(f'<span class="{name}">{escape(text)}</span>' if name else escape(text) for text, name in runs)

    def _runs(self, lexer: Lexer, code: str) -> Iterator[tuple[str, str]]:
        """Pieces of `code` with the class of each, neighbours of one class together; the rest plain if time is up."""
        begun = thread_time()
        done, run, name = 0, "", ""
        for _, kind, text in lexer.get_tokens_unprocessed(code):
            found = name if text.isspace() else _class(kind)
            if found != name:
                yield run, name
                run, name = "", found
            run += text
            done += len(text)
            if thread_time() - begun > self._seconds:
                yield run, name
                run, name = code[done:], ""
                break
        yield run, name
        self._seconds -= thread_time() - begun


@cache
def _lexer(language: str) -> Lexer:
    return find_lexer_class_by_name(language)()


@cache
def _class(kind: _TokenType) -> str:
    while kind not in _COLOURED:
        if kind.parent is None:
            return ""
        kind = kind.parent
    return str(STANDARD_TYPES[kind])
