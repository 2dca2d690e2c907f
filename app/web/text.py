"""How does text that people and models wrote become HTML? As markdown, and never as anything that acts or loads."""

from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

_TAGS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "ul", "ol", "li"),
    *("strong", "em", "s", "code", "pre", "a", "table", "thead", "tbody", "tr", "th", "td", "div", "span"),
}
_ATTRIBUTES = {
    "*": {"dir"},
    "a": {"href", "title", "target"},
    "ol": {"start"},
    "th": {"data-align"},
    "td": {"data-align"},
    "div": {"class", "tabindex"},
    "pre": {"tabindex"},
    "span": {"class"},
}
# Each block finds its own direction, so that Arabic and English paragraphs may follow each other.
_BLOCKS = {"paragraph_open", "heading_open", "list_item_open", "th_open", "td_open", "blockquote_open"}


@cache
def _parser() -> MarkdownIt:
    """CommonMark with tables and strikethrough. Raw HTML is off: it is shown as the text that it is.

    A line break stays one, since models write verse and options line by line, and annotators judge what was written.
    """
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    parser.add_render_rule("image", _image)
    parser.add_render_rule("link_open", _link)
    parser.add_render_rule("table_open", lambda *_: '<div class="table-scroll" tabindex="0"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    parser.add_render_rule("fence", _code)
    parser.add_render_rule("code_block", _code)
    for kind in ("th_open", "td_open"):
        parser.add_render_rule(kind, _cell)
    return parser


def render_markdown(text: str) -> Markup:
    """Safe HTML of a markdown text: no raw HTML, no images, no scripts, no styles; links open elsewhere."""
    parser = _parser()
    environment: dict[str, Any] = {}
    tokens = parser.parse(text, environment)
    for token in tokens:
        if token.type in _BLOCKS:
            token.attrSet("dir", "auto")
    html = parser.renderer.render(tokens, parser.options, environment)
    clean = nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )
    return Markup(clean)  # noqa: S704 - cleaned by nh3 just now


def _image(_: RendererHTML, tokens: Sequence[Token], index: int, __: OptionsDict, ___: EnvType) -> str:
    """An image loads nothing: its description and its address are shown instead."""
    token = tokens[index]
    shown = " ".join(part for part in (token.content, f"({token.attrGet('src') or ''})") if part)
    return f'<span class="image-text">{escape(shown)}</span>'


def _link(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, _: EnvType) -> str:
    tokens[index].attrSet("target", "_blank")
    return renderer.renderToken(tokens, index, options, {})


def _code(_: RendererHTML, tokens: Sequence[Token], index: int, __: OptionsDict, ___: EnvType) -> str:
    # Scrolls inside, so it must be reachable by keyboard.
    return f'<pre tabindex="0" dir="ltr"><code>{escape(tokens[index].content)}</code></pre>\n'


def _cell(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, _: EnvType) -> str:
    """A column's alignment comes as a style, which the content security policy forbids."""
    token = tokens[index]
    style = token.attrGet("style")
    if isinstance(style, str):
        token.attrs.pop("style")
        token.attrSet("data-align", style.removeprefix("text-align:"))
    return renderer.renderToken(tokens, index, options, {})


def plain_text(content: object) -> str:
    """A message's content as text: the text parts as they are, others by their kind, such as [image]."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return "\n\n".join(
        str(part["text"]) if isinstance(part, dict) and "text" in part else f"[{_kind(part)}]" for part in parts
    )


def _kind(part: object) -> str:
    return str(part.get("type", "part")) if isinstance(part, dict) else "part"
