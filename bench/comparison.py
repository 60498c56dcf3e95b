"""Means over seeds, and paired comparisons: equal seeds have equal splits, so differences are taken seed by seed."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from graph2mlp.errors import DataError
from graph2mlp.significance import half_width

__all__ = ["HOW", "Entry", "Paired", "compare", "method_rank", "paired", "signed", "spread", "summary"]

_ORDER = ("blend", "blend_features", "nosmog", "glnn", "g_crd", "gsp", "lsp", "cold_brew", "alignahead", "gsdn", "mlp")
"""Methods in the order of the tables; others follow by name."""

PARTS = {"transductive": ("test",), "production": ("tran", "ind", "prod", "cold")}

HOW = (
    "Differences in points, seed by seed over the seeds that both have. In brackets the 95 % interval of the mean "
    "difference (paired Student t over seeds of one graph, not corrected for the number of comparisons); wins: seeds "
    "that are strictly better."
)

Row = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Paired:
    """How much better A is than B over n equal seeds, in points."""

    n: int
    mean: float
    half_width: float | None
    """Half of the 95 % interval; None below two seeds."""
    wins: int
    """Seeds on which A is strictly better."""

    def __str__(self) -> str:
        """`+1.97 [+0.87, +3.06], 9/10`."""
        interval = ""
        if self.half_width is not None:
            interval = f" [{signed(self.mean - self.half_width)}, {signed(self.mean + self.half_width)}]"
        return f"{signed(self.mean)}{interval}, {self.wins}/{self.n}"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One method with one teacher on one part of one graph, over its seeds."""

    graph: str
    setting: str
    part: str
    method: str
    teacher: str
    settings: str
    rows: tuple[Row, ...]
    baseline: Paired | None
    """Against the baseline's runs; None for the baseline itself and where no seed is common."""
    own_teacher: Paired | None
    """Against its teacher; None without one."""
    plain_mlp: Paired | None
    """Against an MLP of the student's shape that learns from labels and features alone."""

    @property
    def label(self) -> str:
        """`blend (appnp+gcn+sage)`, and what was changed by settings."""
        name = f"{self.method} ({self.teacher})" if self.teacher else self.method
        return f"{name} {self.settings}".strip()

    @property
    def size(self) -> str:
        """Layers, width and parameters of the student."""
        first = self.rows[0]
        return f"{first['layers']} x {first['hidden']}, {int(first['parameters']) // 1000}k"

    @property
    def regime(self) -> str:
        return self.rows[0]["regime"]


def paired(first: Sequence[float], second: Sequence[float]) -> Paired | None:
    """`first` minus `second`, both in points and in the same order of seeds; None when there are none.

    The interval is that of `half_width`, with the sample deviation of the differences.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    n = len(differences)
    if not n:
        return None
    half = half_width(differences) if n > 1 else None
    wins = sum(difference > 0 for difference in differences)
    return Paired(n=n, mean=statistics.fmean(differences), half_width=half, wins=wins)


def compare(rows: Sequence[Row], baseline: tuple[str, str]) -> list[Entry]:
    """Every method on every part, in the order of the tables; `baseline` is a method and its teacher.

    Raises:
        DataError: a row has an unknown setting.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row["setting"] not in PARTS:
            raise DataError(f"A row has the setting '{row['setting']}'. Known: {', '.join(PARTS)}. Remove that row.")
        key = tuple(row[name] for name in ("graph", "setting", "method", "teacher", "settings"))
        groups.setdefault(key, []).append(row)
    return [
        Entry(
            **dict(zip(("graph", "setting", "method", "teacher", "settings"), key, strict=True)),
            part=part,
            rows=tuple(groups[key]),
            baseline=_against(groups[key], groups.get((*key[:2], *baseline, ""), []), part)
            if key[2:] != (*baseline, "")
            else None,
            own_teacher=_pair(groups[key], "student", groups[key], "teacher", part),
            plain_mlp=_pair(groups[key], "student", groups[key], "mlp", part),
        )
        for key in sorted(groups, key=_rank)
        for part in PARTS[key[1]]
    ]


def method_rank(method: str) -> int:
    """Where a method stands in the tables; one that has no place comes last."""
    return _ORDER.index(method) if method in _ORDER else len(_ORDER)


def signed(points: float) -> str:
    """Two digits with a sign; what rounds to nothing is +0.00."""
    return f"{round(points, 2) + 0.0:+.2f}"


def spread(rows: Sequence[Row], column: str) -> str:
    """Mean and, of several, population deviation over the rows that have the figure, in %."""
    values = [100 * float(row[column]) for row in rows if row[column]]
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else "-"
    return f"{statistics.fmean(values):.2f} ± {statistics.pstdev(values):.2f}"


def summary(rows: Sequence[Row], baseline: tuple[str, str]) -> str:
    """The comparison as aligned text, and the commits that the rows were made with."""
    if not rows:
        return "There are no rows to compare."
    base = baseline[0] + (f" ({baseline[1]})" if baseline[1] else "")
    lines = []
    for place, entries in _by_place(compare(rows, baseline)):
        header = [place, "regime", "student", "seeds", "teacher", "plain MLP", "accuracy %", f"minus {base}"]
        header.append("minus its teacher")
        table = [header]
        for entry in entries:
            figures = [spread(entry.rows, f"{who}_{entry.part}") for who in ("teacher", "mlp", "student")]
            against = [str(one) if one else "-" for one in (entry.baseline, entry.own_teacher)]
            table.append([entry.label, entry.regime, entry.size, str(len(entry.rows)), *figures, *against])
        widths = [max(len(line[k]) for line in table) for k in range(len(header))]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
        ]
        lines.append("")
    made: dict[str, int] = {}
    for row in rows:
        made[row["commit"]] = made.get(row["commit"], 0) + 1
    commits = ", ".join(f"{commit} ({count})" for commit, count in made.items())
    return "\n".join([*lines, HOW, f"Commits (rows): {commits}"])


def _by_place(entries: Sequence[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """Entries of one graph, setting and part together."""
    places: dict[str, list[Entry]] = {}
    for entry in entries:
        places.setdefault(f"{entry.graph}, {entry.setting}, {entry.part}", []).append(entry)
    yield from places.items()


def _rank(key: tuple[str, ...]) -> tuple[object, ...]:
    graph, setting, method, teacher, settings = key
    return graph != "digits", graph, setting != "transductive", method_rank(method), method, teacher, settings


def _against(rows: Sequence[Row], others: Sequence[Row], part: str) -> Paired | None:
    return _pair(rows, "student", others, "student", part)


def _pair(rows: Sequence[Row], who: str, others: Sequence[Row], other: str, part: str) -> Paired | None:
    mine = {row["seed"]: row[f"{who}_{part}"] for row in rows}
    theirs = {row["seed"]: row[f"{other}_{part}"] for row in others}
    seeds = [seed for seed in mine if mine[seed] and theirs.get(seed)]
    return paired([100 * float(mine[seed]) for seed in seeds], [100 * float(theirs[seed]) for seed in seeds])
