"""Charts of accuracies: a line for each network, or a line for each group of nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from graph2mlp.report.markup import Markup, element, join
from graph2mlp.report.svg import WIDTH, Scale, figure, label, linear, marker, x_axis
from graph2mlp.report.words import percent, points, shortened
from graph2mlp.significance import FEW, wilson

__all__ = ["Group", "Line", "group_chart", "setting_chart"]

_LEFT, _RIGHT = 114.0, WIDTH - 62.0


@dataclass(frozen=True)
class Line:
    """One network in one setting: its metric, with several seeds the mean and each of them, and an interval."""

    role: str
    name: str
    value: float
    seeds: tuple[float, ...] = ()
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Group:
    """Some nodes of a part of the test set: how many, and how many each network has right."""

    name: str
    nodes: int
    right: Mapping[str, int] = field(default_factory=dict)


def setting_chart(name: str, title: str, settings: Mapping[str, Sequence[Line]], *, metric: str) -> Markup:
    """A block for each setting with a line for each network: the name, the value on a common scale, the number."""
    every = [line for lines in settings.values() for line in lines]
    values = [value for line in every for value in (line.value, *line.seeds, *(line.interval or ()))]
    scale = linear(values, _LEFT, _RIGHT, least=0.04)
    parts: list[Markup] = []
    y = 6.0
    for heading, lines in settings.items():
        y += 16
        parts.append(label(0, y, heading, class_="heading"))
        for line in lines:
            y += 21
            parts.append(_line(line, scale, y))
        y += 12
    axis = x_axis(scale, 12, y, lambda share: f"{100 * share:g}", title=f"{metric}, %")
    told = [
        f"{heading}: {', '.join(f'{one.name} {percent(one.value)}' for one in s)}" for heading, s in settings.items()
    ]
    return figure(name, title, ". ".join(told) + ".", y + 36, axis, *parts)


def _line(line: Line, scale: Scale, y: float) -> Markup:
    middle = y - 4
    seeds = [
        element("circle", element("title", percent(one, 2)), cx=scale(one), cy=middle, r=3, class_=f"{line.role} seed")
        for one in line.seeds
    ]
    whisker = _whisker(line.role, line.interval, scale, middle) if line.interval else None
    told = f"{line.name}: {percent(line.value, 2)}" + (f", mean of {len(line.seeds)} seeds" if line.seeds else "")
    return element(
        "g",
        label(_LEFT - 10, y, shortened(line.name, 15), at="end", class_=f"{line.role}-text"),
        whisker,
        _mean(line, scale, middle, told) if seeds else marker(line.role, scale(line.value), middle, told),
        *seeds,
        label(WIDTH, y, percent(line.value), at="end", class_="value"),
    )


def _mean(line: Line, scale: Scale, middle: float, told: str) -> Markup:
    """A stroke instead of a mark, which would hide the seeds around it."""
    x = scale(line.value)
    class_ = f"{line.role} mean"
    return element("line", element("title", told), x1=x, x2=x, y1=middle - 8, y2=middle + 8, class_=class_)


def group_chart(name: str, title: str, groups: Sequence[Group], *, note: str | None = None) -> Markup:
    """A line for each group: name and nodes, all networks on a common scale, student minus teacher in points.

    The whisker is the student's 95 % interval; groups of few nodes are hollow.
    """
    shown = [one for one in groups if one.nodes]
    values = [one.right[role] / one.nodes for one in shown for role in one.right]
    values += [bound for one in shown for bound in wilson(one.right["student"], one.nodes)]
    scale = linear(values or [0.0, 1.0], _LEFT, _RIGHT, least=0.04)
    against = next((role for role in ("teacher", "mlp") if shown and role in shown[0].right), None)
    y, parts = 14.0, []
    if against:
        over = "vs teacher" if against == "teacher" else "vs MLP"
        parts.append(label(WIDTH, 10, over, at="end", class_="tick"))
    for one in groups:
        y += 31
        parts.append(_group(one, scale, y, against))
    axis = x_axis(scale, 18, y + 14, lambda share: f"{100 * share:g}", title="accuracy, %")
    told = ". ".join(_told(one) for one in groups) + "."
    return figure(name, title, told, y + 50, axis, *parts, note=note)


def _group(one: Group, scale: Scale, y: float, against: str | None) -> Markup:
    title = element("title", one.name)
    named = join(
        element("text", title, shortened(one.name, 14), x=_LEFT - 12, y=y - 3, text_anchor="end", class_="name"),
        label(_LEFT - 12, y + 9, f"n = {one.nodes:,}", at="end", class_="tick"),
    )
    if not one.nodes:
        return element("g", named, label(_LEFT, y, "no test node", class_="tick"))
    shares = {role: right / one.nodes for role, right in one.right.items()}
    few = one.nodes < FEW
    marks = [
        marker(role, scale(shares[role]), y, _share(role, one), hollow=few)
        for role in ("mlp", "teacher", "student")
        if role in shares
    ]
    gap = points(shares["student"] - shares[against]) if against else ""
    return element(
        "g",
        named,
        _whisker("student", wilson(one.right["student"], one.nodes), scale, y),
        *marks,
        label(WIDTH, y + 4, gap, at="end", class_="value few" if few else "value"),
    )


def _whisker(role: str, interval: tuple[float, float], scale: Scale, y: float) -> Markup:
    low, high = map(scale, interval)
    ends = [element("line", x1=x, x2=x, y1=y - 3, y2=y + 3, class_=f"{role} whisker") for x in (low, high)]
    return element("g", element("line", x1=low, x2=high, y1=y, y2=y, class_=f"{role} whisker"), *ends)


def _share(role: str, one: Group) -> str:
    low, high = wilson(one.right[role], one.nodes)
    who = "plain MLP" if role == "mlp" else role
    share = percent(one.right[role] / one.nodes)
    return f"{who}, {one.name}: {share} of {one.nodes} (95 %: {percent(low)} to {percent(high)})"


def _told(one: Group) -> str:
    if not one.nodes:
        return f"{one.name}: no test node"
    shares = ", ".join(f"{role} {percent(right / one.nodes)}" for role, right in one.right.items())
    return f"{one.name}, {one.nodes} nodes: {shares}"
