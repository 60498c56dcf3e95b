"""The chart of accuracy over latency: numbered points, none on another, and their names below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import hypot

from graph2mlp.report.bars import Cost, by_file
from graph2mlp.report.markup import Markup, element
from graph2mlp.report.svg import WIDTH, Scale, figure, label, linear, logarithmic, marker, x_axis
from graph2mlp.report.words import microseconds, percent, shortened

__all__ = ["trade_chart"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, WIDTH - 28.0, 20.0, 190.0
_MARK, _LINE, _DIGIT = 11.0, 12.0, 6.8
"""Width of a mark, height of a line of text, width of a digit."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class _Spot:
    """Points that would lie on one another, drawn at their middle: one mark for each role among them."""

    x: float
    y: float
    points: tuple[tuple[int, Cost], ...]
    """Each with its number."""

    @property
    def roles(self) -> list[str]:
        return list(dict.fromkeys(one.role for _, one in self.points))

    @property
    def words(self) -> str:
        """Their numbers, `1, 4–6`."""
        numbers = sorted(number for number, _ in self.points)
        starts = [number for number in numbers if number - 1 not in numbers]
        ends = [number for number in numbers if number + 1 not in numbers]
        return ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in zip(starts, ends, strict=True))

    @property
    def box(self) -> Box:
        half = _MARK * len(self.roles) / 2
        return self.x - half, self.y - _MARK / 2, self.x + half, self.y + _MARK / 2


def trade_chart(name: str, title: str, costs: Sequence[Cost]) -> Markup:
    """Accuracy over latency: up and to the left is better. Points have numbers, their names stand below.

    Every one of `costs` has an accuracy. Points that would lie on one another share a mark with all their numbers.
    """
    # Numbered as they are listed: by file, the fastest first.
    listed = [one for ones in by_file(costs).values() for one in sorted(ones, key=lambda cost: cost.median)]
    across = logarithmic([one.median for one in listed], _LEFT, _RIGHT)
    up = linear([_accuracy(one) for one in listed], _BOTTOM, _TOP, least=0.04, ticks=5)
    parts = [x_axis(across, _TOP, _BOTTOM, lambda value: f"{value:,g}", title="median µs per call, logarithmic")]
    for tick in up.ticks:
        parts.append(element("line", x1=_LEFT, x2=_RIGHT, y1=up(tick), y2=up(tick), class_="grid"))
        parts.append(label(_LEFT - 6, up(tick) + 4, f"{100 * tick:g}", at="end", class_="tick"))
    for spot, place in _placed(listed, across, up):
        parts += _marks(spot)
        class_ = f"{spot.roles[0]}-text" if len(spot.roles) == 1 else "name"
        parts.append(label(*place, spot.words, at="middle", class_=class_))
    y, lines = _legend(listed)
    told = "; ".join(f"{one.full}: {percent(_accuracy(one))} in {microseconds(one.median)}" for one in listed)
    return figure(name, title, told + ".", y - 8, *parts, *lines)


def _accuracy(one: Cost) -> float:
    assert one.accuracy is not None  # see `trade_chart`
    return one.accuracy


def _legend(listed: Sequence[Cost]) -> tuple[float, list[Markup]]:
    """The names, under that of their file where there are several; and how far down they reach."""
    y, parts, file = _BOTTOM + 56, [], ""
    for number, one in enumerate(listed, 1):
        if one.file != file:
            y += 8 if file else 0
            parts.append(label(0, y, shortened(one.file, 44), class_="heading"))
            y, file = y + 18, one.file
        parts += [
            label(0, y, f"{number}  {shortened(one.name, 34)}", class_=f"{one.role}-text"),
            label(WIDTH - 70, y, percent(_accuracy(one)), at="end", class_="value"),
            label(WIDTH, y, microseconds(one.median), at="end", class_="value"),
        ]
        y += 18
    return y, parts


def _marks(spot: _Spot) -> list[Markup]:
    """Side by side, one for each role."""
    marks = []
    for place, role in enumerate(spot.roles):
        told = "; ".join(
            f"{one.full}: {percent(_accuracy(one))}, {microseconds(one.median)}"
            for _, one in spot.points
            if one.role == role
        )
        marks.append(marker(role, spot.x + _MARK * (place - (len(spot.roles) - 1) / 2), spot.y, told))
    return marks


def _placed(listed: Sequence[Cost], across: Scale, up: Scale) -> list[tuple[_Spot, tuple[float, float]]]:
    """Where marks go, and the numbers of each; nothing on anything else."""
    spots = [_Spot(across(one.median), up(_accuracy(one)), ((n, one),)) for n, one in enumerate(listed, 1)]
    while True:
        near = [pair for pair in combinations(spots, 2) if _touch(pair[0].box, pair[1].box)]
        if not near and (places := _numbers(spots)) is not None:
            return list(zip(spots, places, strict=True))
        # Where there is no room for the numbers, the nearest two share a mark; one mark alone always has room.
        one, other = min(
            near or combinations(spots, 2), key=lambda pair: hypot(pair[0].x - pair[1].x, pair[0].y - pair[1].y)
        )
        spots = [spot for spot in spots if spot not in (one, other)] + [_joined(one, other)]


def _joined(one: _Spot, other: _Spot) -> _Spot:
    points = one.points + other.points
    share = len(one.points) / len(points)
    x, y = (share * a + (1 - share) * b for a, b in ((one.x, other.x), (one.y, other.y)))
    return _Spot(x, y, points)


def _numbers(spots: Sequence[_Spot]) -> list[tuple[float, float]] | None:
    """Middle and baseline of each spot's numbers, beside no mark but its own; None if there is no such place."""
    taken = [spot.box for spot in spots]
    places = []
    for spot in spots:
        free = [
            (place, box)
            for place, box in _beside(spot)
            if _inside(box) and not any(_touch(box, other) for other in taken)
        ]
        if not free:
            return None
        places.append(free[0][0])
        taken.append(free[0][1])
    return places


def _beside(spot: _Spot) -> Iterator[tuple[tuple[float, float], Box]]:
    """Above a mark, below it, to its right, to its left: where the text is put, and what it covers."""
    half = _DIGIT * len(spot.words) / 2
    left, top, right, bottom = spot.box
    # Of a wide text at the edge the middle moves in.
    x = min(max(spot.x, _LEFT + half), WIDTH - half)
    middle = spot.y + _LINE / 2
    for centre, under in ((x, top), (x, bottom + _LINE), (right + half + 2, middle), (left - half - 2, middle)):
        yield (centre, under - 2), (centre - half, under - _LINE, centre + half, under)


def _inside(box: Box) -> bool:
    return box[0] >= _LEFT and box[1] >= 0 and box[2] <= WIDTH and box[3] <= _BOTTOM


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
