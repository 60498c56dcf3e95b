"""Charts of one quantity over another: training curves, reliability, accuracy against latency."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graph2mlp.report.markup import Markup, element
from graph2mlp.report.svg import WIDTH, Scale, figure, label, linear, logarithmic, marker, x_axis
from graph2mlp.report.words import percent
from graph2mlp.significance import wilson

__all__ = ["Series", "curve_chart", "reliability_chart"]

_LEFT, _RIGHT, _TOP = 40.0, WIDTH - 74.0, 8.0
_HIGH, _LINE, _LETTER = 190.0, 13.0, 7.4
"""Height of a plot, of a line of text; width of a letter, in a wide font."""
_LEADER, _SAMPLE, _NAME = 8.0, 26.0, 30.0
"""Beside the plot: where leaders end, where the samples of the lines do, where their names begin."""
_DASHES = (None, "7 3", "2 2.5", "9 3 2 3", "4 2", "1 3")
"""For lines of one role, which all have its colour, in their order."""
_POINTS = 300
"""More cannot be seen in a chart of this width, and would only make the page larger."""


@dataclass(frozen=True)
class Series:
    """A line: who it belongs to, its name, its points, and the x that is marked on it."""

    role: str
    name: str
    points: tuple[tuple[float, float], ...]
    mark: float | None = None


def curve_chart(
    name: str,
    title: str,
    series: Sequence[Series],
    *,
    x: str,
    form: Callable[[float], str],
    log: bool = False,
    least: float = 0.0,
    note: str | None = None,
) -> Markup:
    """Lines with their names beside the plot; the kept epoch of each is marked. `form` writes the values of y.

    Lines of one role differ in their dashes, and each is led to its name, wherever it ends.
    """
    bottom = _TOP + max(_HIGH, _LINE * len(series))
    right = min(_RIGHT, WIDTH - _NAME - _LETTER * max(len(one.name) for one in series))
    across = linear([0.0, *(point[0] for one in series for point in one.points)], _LEFT, right)
    values = [point[1] for one in series for point in one.points]
    up = logarithmic(values, bottom, _TOP) if log else linear(values, bottom, _TOP, least=least, ticks=5)
    ends = _apart([up(one.points[-1][1]) for one in series], _TOP + 4, bottom, _LINE)
    roles = [one.role for one in series]
    dashes = [_DASHES[roles[:number].count(role) % len(_DASHES)] for number, role in enumerate(roles)]
    names = [_named(one, across, up, y, dash) for one, y, dash in zip(series, ends, dashes, strict=True)]
    parts = [_line(one, across, up, form, x, dash) for one, dash in zip(series, dashes, strict=True)]
    told = "; ".join(f"{one.name} ends at {form(one.points[-1][1])}" + _kept(one, form, x) for one in series)
    axes = [x_axis(across, _TOP, bottom, lambda value: f"{value:g}", title=x), _y_axis(up, form, right)]
    return figure(name, title, told + ".", bottom + 36, *axes, *names, *parts, note=note)


def _named(one: Series, across: Scale, up: Scale, y: float, dashes: str | None) -> Markup:
    """The name of a line at the height `y`, after a sample of it, to which it is led from where it ends."""
    x, height = across(one.points[-1][0]), up(one.points[-1][1])
    right = across(across.high)
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in ((x, height), (right, height), (right + _LEADER, y)))
    sample = {"x1": right + _LEADER, "x2": right + _SAMPLE, "y1": y, "y2": y, "stroke_dasharray": dashes}
    return element(
        "g",
        element("polyline", points=path, class_=f"{one.role} leader"),
        element("line", **sample, class_=f"{one.role} curve"),
        label(right + _NAME, y + 4, one.name, class_=f"{one.role}-text end"),
    )


def _line(one: Series, across: Scale, up: Scale, form: Callable[[float], str], x: str, dashes: str | None) -> Markup:
    step = max(1, math.ceil(len(one.points) / _POINTS))
    kept = [point for number, point in enumerate(one.points) if number % step == 0 or point is one.points[-1]]
    path = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in kept)
    mark = None
    for a, b in one.points:
        if a == one.mark:
            mark = marker(one.role, across(a), up(b), f"{one.name}: kept {x} {a:g}, {form(b)}")
    told = element("title", one.name)
    return element(
        "g", element("polyline", told, points=path, class_=f"{one.role} curve", stroke_dasharray=dashes), mark
    )


def _kept(one: Series, form: Callable[[float], str], x: str) -> str:
    at = [form(b) for a, b in one.points if a == one.mark]
    return f", {at[0]} at the kept {x} {one.mark:g}" if at and one.mark is not None else ""


def _y_axis(scale: Scale, form: Callable[[float], str], right: float) -> Markup:
    lines = [element("line", x1=_LEFT, x2=right, y1=scale(tick), y2=scale(tick), class_="grid") for tick in scale.ticks]
    words = [label(_LEFT - 6, scale(tick) + 4, form(tick), at="end", class_="tick") for tick in scale.ticks]
    return element("g", *lines, *words)


def _apart(wanted: Sequence[float], low: float, high: float, gap: float) -> list[float]:
    """Places near the wanted ones, at least `gap` apart and, as far as that allows, within bounds."""
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    places = [0.0] * len(wanted)
    reached = low - gap
    for number in order:
        reached = places[number] = max(wanted[number], reached + gap)
    ceiling = high + gap
    for number in reversed(order):
        ceiling = places[number] = min(places[number], ceiling - gap)
    return places


def reliability_chart(name: str, title: str, bins: Mapping[str, Sequence[Mapping[str, Any]]]) -> Markup:
    """Accuracy over confidence for each network; on the diagonal a network is as often right as it says."""
    bottom = _TOP + 190
    across = linear([0.0, 1.0], _LEFT, _RIGHT, ticks=5)
    up = linear([0.0, 1.0], bottom, _TOP, ticks=5)
    parts = [
        x_axis(across, _TOP, bottom, lambda share: f"{100 * share:g}", title="confidence, %"),
        _y_axis(up, lambda share: f"{100 * share:g}", _RIGHT),
        element("line", x1=across(0), y1=up(0), x2=across(1), y2=up(1), class_="diagonal"),
    ]
    ends, told = [], []
    for role, ones in bins.items():
        who = "plain MLP" if role == "mlp" else role
        path = " ".join(f"{across(one['confidence']):.1f},{up(one['right'] / one['nodes']):.1f}" for one in ones)
        parts.append(element("polyline", points=path, class_=f"{role} curve"))
        parts += [_bin(role, who, one, across, up, whisker=role == "student") for one in ones]
        if ones:
            ends.append((role, who, up(ones[-1]["right"] / ones[-1]["nodes"])))
            told += [
                f"{who}: {percent(one['confidence'])} sure, {percent(one['right'] / one['nodes'])} right"
                for one in ones
            ]
    places = _apart([y for _, _, y in ends], _TOP + 4, bottom, 13)
    words = [
        label(_RIGHT + 8, y + 4, who, class_=f"{role}-text end") for (role, who, _), y in zip(ends, places, strict=True)
    ]
    return figure(name, title, "; ".join(told) + ".", bottom + 36, *parts, *words)


def _bin(role: str, who: str, one: Mapping[str, Any], across: Scale, up: Scale, *, whisker: bool) -> Markup:
    share, low_high = one["right"] / one["nodes"], wilson(one["right"], one["nodes"])
    words = f"{who}: {one['nodes']} nodes, {percent(one['confidence'])} sure, {percent(share)} right"
    x, (low, high) = across(one["confidence"]), map(up, low_high)
    line = element("line", x1=x, x2=x, y1=low, y2=high, class_=f"{role} whisker") if whisker else None
    return element("g", line, marker(role, x, up(share), words, hollow=one["nodes"] < 10, size=3.5))
