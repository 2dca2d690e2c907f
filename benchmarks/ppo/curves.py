"""How are curves drawn? As an SVG of our own, readable on light and on dark pages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

PANEL_WIDTH, PANEL_HEIGHT = 340, 230
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 34, 44
LEGEND = 26
COLOURS = ("#2a78c8", "#d9662b", "#3a9a5b", "#a05cc0", "#b08a1e")
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#555}.t{font-weight:600}.g{stroke:#8884;fill:none}"
    "@media(prefers-color-scheme:dark){text{fill:#bbb}}"
)


@dataclass(frozen=True)
class Line:
    """Points (x, y) in a row. Lines of one name share a colour; a faint one is a single run, dashed a level."""

    name: str
    points: Sequence[tuple[float, float]]
    faint: bool = False
    dashed: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Panel:
    """A drawing with its axes."""

    title: str
    across: str
    lines: Sequence[Line]


def draw(file: Path, panels: Sequence[Panel], *, alike: bool = False) -> None:
    """Writes panels side by side, and below them what the colours stand for. `alike` panels have the same axes."""
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    width, height = PANEL_WIDTH * len(panels), PANEL_HEIGHT + LEGEND
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">']
    parts.append(f"<style>{STYLE}</style>")
    for place, panel in enumerate(panels):
        drawn = _panel(panel, colours, panels if alike else [panel])
        parts.append(f'<g transform="translate({place * PANEL_WIDTH} 0)">{drawn}</g>')
    at = LEFT
    for name, colour in colours.items():
        parts.append(f'<path d="M{at} {height - 12}h18" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{at + 24}" y="{height - 8}">{escape(name)}</text>')
        at += 44 + 7 * len(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _panel(panel: Panel, colours: dict[str, str], ranged: Sequence[Panel]) -> str:
    xs, ys = ([at[axis] for one in ranged for line in one.lines for at in line.points] for axis in (0, 1))
    across, up = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    right, bottom = PANEL_WIDTH - RIGHT, PANEL_HEIGHT - BOTTOM

    def x(value: float) -> float:
        return round(LEFT + (value - across[0]) / (across[-1] - across[0]) * (right - LEFT), 1)

    def y(value: float) -> float:
        return round(bottom - (value - up[0]) / (up[-1] - up[0]) * (bottom - TOP), 1)

    parts = [f'<text class="t" x="{LEFT}" y="18">{escape(panel.title)}</text>']
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{bottom + 34}" text-anchor="middle">{escape(panel.across)}</text>')
    for tick in up:
        parts.append(f'<path class="g" d="M{LEFT} {y(tick)}H{right}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 4}" text-anchor="end">{tick:g}</text>')
    parts += [f'<text x="{x(tick)}" y="{bottom + 17}" text-anchor="middle">{tick:g}</text>' for tick in across]
    for line in panel.lines:
        points = " ".join(f"{x(at)},{y(value)}" for at, value in line.points)
        look = 'opacity="0.6" stroke-width="1"' if line.faint else 'stroke-width="2"'
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        colour = colours[line.name]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" {look}{dash}/>')
        if line.dots:
            parts += [f'<circle cx="{x(at)}" cy="{y(value)}" r="3" fill="{colour}"/>' for at, value in line.points]
    return "\n".join(parts)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers around a range, four to nine of them."""
    span = (high - low) or 1.0
    step = 10 ** math.floor(math.log10(span / 4))
    step = next(size * step for size in (1, 2, 5, 10) if span / (size * step) <= 7)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 10) for number in range(first, max(last, first + 1) + 1)]
