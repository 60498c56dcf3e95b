"""Charts of latencies: what one call costs, and how it spreads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graph2mlp.report.markup import Markup, element
from graph2mlp.report.svg import WIDTH, Scale, figure, label, linear, logarithmic, marker, x_axis
from graph2mlp.report.words import microseconds, shortened

__all__ = ["Cost", "by_file", "cost_chart", "spread_chart"]


@dataclass(frozen=True)
class Cost:
    """One measured thing: its percentiles in us by their number (50, 95, ...), what it wins, how accurate it is."""

    role: str
    name: str
    percentiles: dict[float, float]
    ratio: float | None = None
    accuracy: float | None = None
    noisy: bool = False
    file: str = ""
    """Where it was measured; nothing where one file is all there is."""
    against: str = ""
    """Whose time `ratio` is about: row 1 of that file."""

    @property
    def full(self) -> str:
        """Its name with that of its file, for where no heading says it."""
        return f"{self.file}: {self.name}" if self.file else self.name

    @property
    def median(self) -> float:
        return self.percentiles[50]


def by_file(costs: Sequence[Cost]) -> dict[str, list[Cost]]:
    """Costs under the name of their file, in the order of the files."""
    found: dict[str, list[Cost]] = {}
    for one in costs:
        found.setdefault(one.file, []).append(one)
    return found


def cost_chart(name: str, title: str, costs: Sequence[Cost], *, note: str | None = None) -> Markup:
    """A bar from zero for each, the dearest of a file first: lengths are to be compared, in all files alike."""
    scale = linear([0.0, max(one.median for one in costs)], 0.0, WIDTH - 106.0)
    parts, y = [], 0.0
    for file, ones in by_file(costs).items():
        if file:
            y += 32 if y else 18
            parts.append(label(0, y - 4, shortened(file, 24), class_="heading"))
            words = shortened(f"× against {ones[0].against}", 34)
            parts.append(label(WIDTH, y - 4, words, at="end", class_="tick"))
        for one in sorted(ones, key=lambda cost: -cost.median):
            y += 38
            words = microseconds(one.median) + (f" · {_times(one.ratio)}" if one.ratio is not None else "")
            parts += [
                label(0, y - 14, shortened(one.name, 44), class_="name"),
                element("rect", x=0, y=y - 9, width=max(1.5, scale(one.median)), height=11, class_=one.role),
                label(max(1.5, scale(one.median)) + 6, y + 1, words, class_="value"),
            ]
    told = "; ".join(f"{one.full}: {microseconds(one.median)}" for one in costs)
    return figure(name, title, told + ".", y + 10, *parts, note=note)


def spread_chart(name: str, title: str, costs: Sequence[Cost]) -> Markup:
    """From the smallest to the largest known percentile, on a logarithmic scale; the mark is the median."""
    values = [value for one in costs for value in one.percentiles.values() if value > 0]
    scale = logarithmic(values, 8.0, WIDTH - 28.0)
    ranks = sorted({rank for one in costs for rank in one.percentiles})
    head = " · ".join(f"p{rank:g}" for rank in ranks) + ", µs"
    parts, y = [label(WIDTH, 10, head, at="end", class_="tick")], 8.0
    for file, ones in by_file(costs).items():
        if file:
            y += 30
            parts.append(label(0, y, shortened(file, 44), class_="heading"))
        for one in ones:
            y += 40
            figures = " · ".join(_number(one.percentiles.get(rank)) for rank in ranks)
            parts += [
                label(0, y - 12, shortened(one.name + (" *" if one.noisy else ""), 31), class_="name"),
                label(WIDTH, y - 12, figures, at="end", class_="value"),
                _range(one, scale, y),
            ]
    told = "; ".join(f"{one.full}: median {microseconds(one.median)}" for one in costs)
    axis = x_axis(scale, 16, y + 12, lambda value: f"{value:,g}", title="µs per call, logarithmic")
    return figure(name, title, told + ".", y + 46, axis, *parts)


def _range(one: Cost, scale: Scale, y: float) -> Markup:
    ends = [
        element(
            "line",
            element("title", f"{one.full}: p{rank:g} {microseconds(value)}"),
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
    told = f"{one.full}: median {microseconds(one.median)}"
    return element("g", line, *ends, marker(one.role, scale(one.median), y, told))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.1f}×"
