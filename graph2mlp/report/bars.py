"""Charts of latencies: what one call costs, how it spreads, and what accuracy it buys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graph2mlp.report.markup import Markup, element
from graph2mlp.report.svg import WIDTH, figure, label, linear, logarithmic, marker, x_axis
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
    """From the smallest to the largest known percentile, on a logarithmic scale; the point is the median."""
    values = [value for one in costs for value in one.percentiles.values() if value > 0]
    scale = logarithmic(values, 6.0, WIDTH - 12.0)
    parts, y = [], 0.0
    for one in costs:
        y += 40
        low, high = scale(min(one.percentiles.values())), scale(max(one.percentiles.values()))
        marks = [
            element(
                "line",
                element("title", f"{one.name}: {_ordinal(rank)} {microseconds(value)}"),
                x1=scale(value),
                x2=scale(value),
                y1=y - 5,
                y2=y + 5,
                class_=f"{one.role} whisker",
            )
            for rank, value in one.percentiles.items()
            if rank != 50
        ]
        ranks = ", ".join(f"{_ordinal(rank)} {microseconds(value)}" for rank, value in sorted(one.percentiles.items()))
        parts += [
            label(0, y - 12, shortened(one.name + (" *" if one.noisy else ""), 24), class_="name"),
            label(WIDTH, y - 12, ranks, at="end", class_="tick"),
            element("line", x1=low, x2=high, y1=y, y2=y, class_=f"{one.role} whisker"),
            *marks,
            marker(one.role, scale(one.median), y, f"{one.name}: median {microseconds(one.median)}"),
        ]
    told = "; ".join(f"{one.name}: median {microseconds(one.median)}" for one in costs)
    axis = x_axis(scale, 6, y + 12, microseconds, title="time per call, logarithmic")
    return figure(name, title, told + ".", y + 46, axis, *parts)


def trade_chart(name: str, title: str, costs: Sequence[Cost]) -> Markup:
    """Accuracy over latency: up and to the left is better. Names stand at the points, numbers in the table."""
    known = [(one, one.accuracy) for one in costs if one.accuracy is not None]
    left, bottom = 40.0, 214.0
    across = logarithmic([one.median for one, _ in known], left, WIDTH - 16.0)
    up = linear([accuracy for _, accuracy in known], bottom, 14.0, least=0.04, ticks=5)
    ticks = [
        part
        for tick in up.ticks
        for part in (
            element("line", x1=left, x2=WIDTH - 16, y1=up(tick), y2=up(tick), class_="grid"),
            label(left - 6, up(tick) + 4, f"{100 * tick:g}", at="end", class_="tick"),
        )
    ]
    marks, words, taken = [], [], []
    for one, accuracy in sorted(known, key=lambda pair: pair[0].median):
        x, y = across(one.median), up(accuracy)
        marks.append(marker(one.role, x, y, f"{one.name}: {percent(accuracy)}, {microseconds(one.median)}"))
        short = shortened(one.name, 26)
        at = "end" if x > WIDTH / 2 else "start"
        place = _free(y, x, taken)
        taken.append((x, place))
        words.append(label(x + (-9 if at == "end" else 9), place + 4, short, at=at, class_=f"{one.role}-text"))
    told = "; ".join(f"{one.name}: {percent(accuracy)} in {microseconds(one.median)}" for one, accuracy in known)
    axis = x_axis(across, 14, bottom, microseconds, title="median time per call, logarithmic")
    return figure(name, title, told + ".", bottom + 36, axis, *ticks, *marks, *words)


def _free(wanted: float, x: float, taken: Sequence[tuple[float, float]]) -> float:
    """The nearest height to `wanted` at which no label of about the same place stands."""
    for step in range(40):
        for place in (wanted + 13 * step, wanted - 13 * step):
            if 14 <= place <= 214 and all(
                abs(place - other) >= 12.5 for beside, other in taken if abs(beside - x) < 190
            ):
                return place
    return wanted


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.1f}×"


def _ordinal(rank: float) -> str:
    return f"p{rank:g}"
