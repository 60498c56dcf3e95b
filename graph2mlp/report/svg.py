"""The frame of a chart: size, scales, axes, and the words that stand for it where it cannot be seen.

Charts are drawn 360 units wide, about a phone: there a unit is a pixel, and text keeps its size. On a wide page they
stand side by side. Colours are classes (`student`, `teacher`, `mlp`) that the style sheet fills in, light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graph2mlp.report.markup import Markup, element

__all__ = ["WIDTH", "Scale", "figure", "label", "linear", "logarithmic", "marker", "x_axis"]

WIDTH = 360
_COLUMN = 6.2
"""Width of a small character, about; used to keep labels apart."""


@dataclass(frozen=True)
class Scale:
    """Where a value is drawn, and which values are marked on the axis."""

    place: Callable[[float], float]
    ticks: tuple[float, ...]
    low: float
    high: float

    def __call__(self, value: float) -> float:
        return self.place(min(max(value, self.low), self.high))


def linear(values: Sequence[float], start: float, end: float, *, least: float = 0.0, ticks: int = 4) -> Scale:
    """A scale over round numbers around `values`, drawn from `start` to `end`; at least `least` is covered."""
    low, high = min(values), max(values)
    if (missing := max(least, 1e-9) - (high - low)) > 0:
        low, high = low - missing / 2, high + missing / 2
    raw = (high - low) / ticks
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    marks = tuple(round(number * step, 12) for number in range(first, last + 1))
    return Scale(_between(marks[0], marks[-1], start, end), marks, marks[0], marks[-1])


def logarithmic(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale over powers of ten around the positive `values`; steps of 2 and 5 are marked where few powers fit."""
    low = math.log10(min(values))
    high = math.log10(max(values))
    steps = (1, 2, 5) if high - low < 1.6 else (1,)
    marks = [factor * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for factor in steps]
    before = max((mark for mark in marks if math.log10(mark) <= low + 1e-9), default=marks[0])
    after = min((mark for mark in marks if math.log10(mark) >= high - 1e-9), default=marks[-1])
    kept = tuple(mark for mark in marks if before <= mark <= after)
    if len(kept) < 2:
        kept = (kept[0], kept[0] * 10)
    place = _between(math.log10(kept[0]), math.log10(kept[-1]), start, end)
    return Scale(lambda value: place(math.log10(value)), kept, kept[0], kept[-1])


def _between(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def figure(name: str, title: str, description: str, height: float, *parts: object, note: str | None = None) -> Markup:
    """A chart under its title; `description` says in words what is seen, `name` is unique on the page."""
    drawing = element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", description, id=f"{name}-desc"),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height:.0f}",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
    )
    below = element("p", note, class_="note") if note else None
    return element("figure", element("figcaption", title), drawing, below, id=name)


def label(x: float, y: float, words: object, *, at: str = "start", class_: str | None = None) -> Markup:
    """Text at its baseline; `at` is start, middle or end."""
    return element("text", words, x=x, y=y, text_anchor=None if at == "start" else at, class_=class_)


def marker(role: str, x: float, y: float, words: str, *, hollow: bool = False, size: float = 4.5) -> Markup:
    """A point, with `words` for who rests on it. Each role has a shape of its own besides its colour."""
    class_ = f"{role} hollow" if hollow else role
    told = element("title", words)
    if role == "teacher":
        corners = [(x, y - size - 1), (x + size + 1, y), (x, y + size + 1), (x - size - 1, y)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
        return element("polygon", told, points=path, class_=class_)
    if role == "mlp":
        side = 2 * size - 1.5
        return element("rect", told, x=x - side / 2, y=y - side / 2, width=side, height=side, class_=class_)
    return element("circle", told, cx=x, cy=y, r=size, class_=class_)


def x_axis(
    scale: Scale, top: float, bottom: float, form: Callable[[float], str], *, title: str | None = None
) -> Markup:
    """Thin lines at the marked values, their numbers below, and what they count, with its unit."""
    parts: list[Markup] = []
    reached = -math.inf
    for tick in scale.ticks:
        x, words = scale(tick), form(tick)
        half = len(words) * _COLUMN / 2
        parts.append(element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
        if x - half > reached:
            parts.append(label(x, bottom + 14, words, at="middle", class_="tick"))
            reached = x + half + 4
    if title:
        middle = (scale(scale.low) + scale(scale.high)) / 2
        parts.append(label(middle, bottom + 30, title, at="middle", class_="axis"))
    return element("g", *parts)
