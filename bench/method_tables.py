"""The README's tables of accuracy: a line per method, a column per graph, one table per kind of request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.accuracy_tables import default_entries, markdown
from bench.comparison import Entry, method_rank, signed, spread
from bench.rows import read_rows

__all__ = ["TABLES"]

_GRAPHS = {
    "cpf:cora": "Cora",
    "cpf:citeseer": "CiteSeer",
    "cpf:a-computer": "Amazon Computers",
    "cpf:a-photo": "Amazon Photo",
    "digits": "digits",
}
_OTHERS = {
    "coauthor:CS": "Coauthor CS",
    "actor": "Actor",
    "heterophilous:chameleon": "Chameleon",
    "heterophilous:squirrel": "Squirrel",
    "webkb:Texas": "Texas",
}
_PUBLISHED_AS = {"test": "transductive", "ind": "ind"}
_SEEDS = 10
"""What a figure is the mean of unless it says otherwise."""
_PLAIN = ("glnn", "sage")
"""The runs whose plain MLP is shown: others have the same one, but for the class frequencies."""


def method_table(part: str, graphs: Mapping[str, str], *, regimes: Sequence[str] = ("structure", "features")) -> str:
    """Students of each regime on one part of the nodes, with what they gain over their teachers, and published ones.

    `graphs` are columns, by name and by what the header calls them.
    """
    entries = [one for one in default_entries() if one.part == part and one.graph in graphs]
    lines = []
    for regime in regimes:
        mine = sorted(
            (one for one in entries if one.regime == regime), key=lambda one: (method_rank(one.method), one.method)
        )
        for label in dict.fromkeys(one.label for one in mine):
            found = {one.graph: one for one in mine if one.label == label}
            size = _size(next(iter(found.values())))
            lines.append([label, regime, size, *(_student(found.get(graph)) for graph in graphs)])
        if regime == "features":
            lines.append(_plain_mlp(entries, part, graphs))
        lines += _published(part, graphs, regime)
    return markdown(["method (teacher)", "regime", "size", *graphs.values()], lines)


TABLES = {
    "known nodes": lambda: method_table("test", _GRAPHS),
    "unseen nodes": lambda: method_table("ind", _GRAPHS),
    "cold nodes": lambda: method_table("cold", _GRAPHS, regimes=("structure",)),
    "other graphs": lambda: method_table("test", _OTHERS),
}


def _plain_mlp(entries: Sequence[Entry], part: str, graphs: Mapping[str, str]) -> list[str]:
    found = {one.graph: one for one in entries if (one.method, one.teacher) == _PLAIN}
    cells = [_figure(found[graph], f"mlp_{part}") if graph in found else "-" for graph in graphs]
    return ["plain MLP", "features", _size(next(iter(found.values()))), *cells]


def _published(part: str, graphs: Mapping[str, str], regime: str) -> list[list[str]]:
    rows = [row for row in read_rows(Path(__file__).parent / "published.csv") if row["regime"] == regime]
    if part not in _PUBLISHED_AS:
        return []
    found = {(row["method"], row["graph"]): row[_PUBLISHED_AS[part]] for row in rows}
    lines = []
    for method, source in dict.fromkeys((row["method"], row["source"]) for row in rows):
        cells = [found.get((method, graph)) or "-" for graph in graphs]
        if set(cells) != {"-"}:
            lines.append([f"*published: {method}* [{source}]", regime, "-", *cells])
    return lines


def _student(entry: Entry | None) -> str:
    if entry is None:
        return "-"
    gain = f" ({signed(entry.own_teacher.mean)})" if entry.own_teacher else ""
    return _figure(entry, f"student_{entry.part}") + gain


def _figure(entry: Entry, column: str) -> str:
    seeds = len(entry.rows)
    return spread(entry.rows, column) + ("" if seeds == _SEEDS else f", {seeds} seeds")


def _size(entry: Entry) -> str:
    """Layers and width; the number of parameters depends on the graph's features."""
    return entry.size.split(",")[0]
