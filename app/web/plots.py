"""Where does a figure lie on a drawing? Points with their intervals, and ticks, in the units of an SVG."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 340, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 14, 10, 34  # room for the ticks' numbers


@dataclass(frozen=True)
class Tick:
    """A line across the drawing, and what is written at its end."""

    at: float
    text: str


@dataclass(frozen=True)
class Point:
    """A figure with its interval, if it has one; y grows downwards, as in every SVG."""

    x: float
    y: float
    low: float | None
    high: float | None
    says: str


@dataclass(frozen=True)
class Plot:
    """A drawing of some points."""

    points: Sequence[Point]
    across: Sequence[Tick]
    up: Sequence[Tick]
    diagonal: tuple[float, float, float, float] | None = None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM

    @property
    def line(self) -> str:
        """The points in a row, as a polyline has them."""
        return " ".join(f"{point.x},{point.y}" for point in self.points)


@dataclass(frozen=True)
class Axis:
    """The range of an axis, where its ticks stand, and how their numbers are written."""

    low: float
    high: float
    ticks: Sequence[float]
    write: Callable[[float], str]

    def place(self, value: float, start: float, end: float) -> float:
        """Where a value lies between two ends of the drawing; what is out of range lies on the edge."""
        share = (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1)
        return round(start + share * (end - start), 1)


def draw(
    rows: Iterable[tuple[float, float, float | None, float | None, str]],
    across: Axis,
    up: Axis,
    *,
    diagonal: bool = False,
) -> Plot:
    """A plot of rows (x, y, the interval of y, what the point says). `diagonal` draws where y is x."""
    left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM

    def x(value: float) -> float:
        return across.place(value, left, right)

    def y(value: float) -> float:
        return up.place(value, bottom, top)

    def end_of_interval(value: float | None) -> float | None:
        return None if value is None else y(value)

    start, end = max(across.low, up.low), min(across.high, up.high)
    return Plot(
        points=[
            Point(x(at), y(value), end_of_interval(low), end_of_interval(high), says)
            for at, value, low, high, says in rows
        ],
        across=[Tick(x(value), across.write(value)) for value in across.ticks],
        up=[Tick(y(value), up.write(value)) for value in up.ticks],
        diagonal=(x(start), y(start), x(end), y(end)) if diagonal else None,
    )


def steps(low: float, high: float, step: float) -> list[float]:
    """The ticks between two values, both included."""
    return [low + step * number for number in range(round((high - low) / step) + 1)]
