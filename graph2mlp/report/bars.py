"""Charts of latencies: what one call costs, how it spreads, and what accuracy it buys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graph2mlp.report.markup import Markup, element
from graph2mlp.report.svg import WIDTH, Scale, figure, label, linear, logarithmic, marker, x_axis
from graph2mlp.report.words import microseconds, percent, shortened

__all__ = ["Cost", "cost_chart", "spread_chart", "trade_chart"]


@dataclass(frozen=True)
class Cost:
    """One measured thing: its percentiles in us by their number (50, 95, ...), what it wins, how accurate it is."""

    role: str
    name: str
    percentiles: dict[float, float]
    ratio: float | None = None
    accuracy: float | None = None
    noisy: bool = False

    @property
    def median(self) -> float:
        return self.percentiles[50]


def cost_chart(name: str, title: str, costs: Sequence[Cost], *, note: str | None = None) -> Markup:
    """A bar from zero for each, the dearest first: lengths are to be compared."""
    ordered = sorted(costs, key=lambda one: -one.median)
    scale = linear([0.0, ordered[0].median], 0.0, WIDTH - 84.0)
    parts, y = [], 0.0
    for one in ordered:
        y += 38
        words = microseconds(one.median) + (f" · {_times(one.ratio)}" if one.ratio is not None else "")
        parts += [
            label(0, y - 14, shortened(one.name, 44), class_="name"),
            element("rect", x=0, y=y - 9, width=max(1.5, scale(one.median)), height=11, class_=one.role),
            label(max(1.5, scale(one.median)) + 6, y + 1, words, class_="value"),
        ]
    told = "; ".join(f"{one.name}: {microseconds(one.median)}" for one in ordered)
    return figure(name, title, told + ".", y + 10, *parts, note=note)


def spread_chart(name: str, title: str, costs: Sequence[Cost]) -> Markup:
    """From the smallest to the largest known percentile, on a logarithmic scale; the mark is the median."""
    values = [value for one in costs for value in one.percentiles.values() if value > 0]
    scale = logarithmic(values, 8.0, WIDTH - 28.0)
    ranks = sorted({rank for one in costs for rank in one.percentiles})
    head = " · ".join(f"p{rank:g}" for rank in ranks) + ", µs"
    parts, y = [label(WIDTH, 10, head, at="end", class_="tick")], 8.0
    for one in costs:
        y += 40
        parts += [
            label(0, y - 12, shortened(one.name + (" *" if one.noisy else ""), 31), class_="name"),
            label(
                WIDTH,
                y - 12,
                " · ".join(_number(one.percentiles.get(rank)) for rank in ranks),
                at="end",
                class_="value",
            ),
            _range(one, scale, y),
        ]
    told = "; ".join(f"{one.name}: median {microseconds(one.median)}" for one in costs)
    axis = x_axis(scale, 16, y + 12, lambda value: f"{value:,g}", title="µs per call, logarithmic")
    return figure(name, title, told + ".", y + 46, axis, *parts)


def _range(one: Cost, scale: Scale, y: float) -> Markup:
    ends = [
        element(
            "line",
            element("title", f"{one.name}: p{rank:g} {microseconds(value)}"),
            x1=scale(value),
            x2=scale(value),
            y1=y - 5,
            y2=y + 5,
            class_=f"{one.role} whisker",
        )
        for rank, value in one.percentiles.items()
        if rank != 50
    ]
    low, high = scale(min(one.percentiles.values())), scale(max(one.percentiles.values()))
    line = element("line", x1=low, x2=high, y1=y, y2=y, class_=f"{one.role} whisker")
    told = f"{one.name}: median {microseconds(one.median)}"
    return element("g", line, *ends, marker(one.role, scale(one.median), y, told))


def trade_chart(name: str, title: str, costs: Sequence[Cost]) -> Markup:
    """Accuracy over latency: up and to the left is better. Points have numbers, their names stand below."""
    known = sorted(((one, one.accuracy) for one in costs if one.accuracy is not None), key=lambda pair: pair[0].median)
    left, right, bottom = 40.0, WIDTH - 28.0, 190.0
    across = logarithmic([one.median for one, _ in known], left, right)
    up = linear([accuracy for _, accuracy in known], bottom, 20.0, least=0.04, ticks=5)
    parts = [x_axis(across, 20, bottom, lambda value: f"{value:,g}", title="median µs per call, logarithmic")]
    for tick in up.ticks:
        parts.append(element("line", x1=left, x2=right, y1=up(tick), y2=up(tick), class_="grid"))
        parts.append(label(left - 6, up(tick) + 4, f"{100 * tick:g}", at="end", class_="tick"))
    taken: list[tuple[float, float]] = []
    y = bottom + 56
    for number, (one, accuracy) in enumerate(known, 1):
        place, height = across(one.median), up(accuracy)
        above = height - 9 - 12 * sum(abs(place - x) < 12 and abs(height - h) < 12 for x, h in taken)
        taken.append((place, height))
        told = f"{one.name}: {percent(accuracy)}, {microseconds(one.median)}"
        parts += [
            marker(one.role, place, height, told),
            label(place, above, number, at="middle", class_=f"{one.role}-text"),
            label(0, y, f"{number}  {shortened(one.name, 34)}", class_=f"{one.role}-text"),
            label(WIDTH - 70, y, percent(accuracy), at="end", class_="value"),
            label(WIDTH, y, microseconds(one.median), at="end", class_="value"),
        ]
        y += 18
    told = "; ".join(f"{one.name}: {percent(accuracy)} in {microseconds(one.median)}" for one, accuracy in known)
    return figure(name, title, told + ".", y - 8, *parts)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.1f}×"
