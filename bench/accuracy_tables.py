"""Tables of accuracy, made from the committed CSV files; `bench.tables` puts them into the pages."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from bench.accuracy import RESULTS, accuracy_file
from bench.comparison import Entry, compare, spread
from bench.robustness import FIGURES, robustness_file
from bench.rows import read_rows

__all__ = ["TABLES", "default_entries", "markdown"]

Row = Mapping[str, str]

_BASELINE = ("glnn", "sage")
_NAMES = {"test": "transductive"} | {part: f"production, `{part}`" for part in ("tran", "ind", "prod", "cold")}
_RECIPE = ("blend", "appnp+gcn+sage")
_PLAIN_TABLE = "structure.answers=false"
_LABELS_ALONE = ("glnn", "glnn.hard=1 glnn.soft=0")
_PAPERS = {
    ("lsp", "lsp.hard=1 lsp.soft=0"): "test",
    ("gsp", "gsp.hard=1 gsp.soft=0"): "test",
    ("g_crd", "g_crd.hard=1 g_crd.soft=0"): "test",
    ("cold_brew", "cold_brew.guess_decay=0 cold_brew.hard=1 cold_brew.soft=0"): "cold",
}
"""Methods whose papers teach true labels beside their term: the settings that do, and the part that is asked."""
_NOISE = ("0.0", "0.1", "0.2", "0.3", "0.5", "0.8", "1.0")


def full_table() -> str:
    """One row per graph, setting and student: mean and population deviation over the seeds."""
    header = ["graph", "setting", "method", "regime", "size", "seeds", "teacher", "plain MLP", "student", "CPU s"]
    lines = []
    for entry in default_entries():
        who = [spread(entry.rows, f"{one}_{entry.part}") for one in ("teacher", "mlp", "student")]
        size = [entry.regime, entry.size, str(len(entry.rows))]
        lines.append([entry.graph, _NAMES[entry.part], entry.label, *size, *who, f"{_cost(entry.rows):.1f}"])
    return markdown(header, lines)


def paired_table() -> str:
    """Every student against the baseline, its own teacher and the plain MLP of its shape, seed by seed."""
    base = f"minus {_BASELINE[0]} ({_BASELINE[1]})"
    lines = [
        [
            entry.graph,
            _NAMES[entry.part],
            entry.label,
            *(str(one or "-") for one in (entry.baseline, entry.own_teacher, entry.plain_mlp)),
        ]
        for entry in default_entries()
    ]
    return markdown(["graph", "setting", "method", base, "minus its teacher", "minus plain MLP"], lines)


def margins_table() -> str:
    """What the losses of four papers add: beside the paper's own true labels, and beside soft ones."""
    rows = _accuracy()
    alone = [row | {"settings": ""} for row in rows if (row["method"], row["settings"]) == _LABELS_ALONE]
    plain = [row for row in rows if not row["settings"]]
    lines = []
    for (method, changed), part in _PAPERS.items():
        papers = [row | {"settings": ""} for row in rows if (row["method"], row["settings"]) == (method, changed)]
        first, second = (
            {one.graph: one for one in compare(those, _BASELINE) if (one.method, one.part) == (method, part)}
            for those in ([*papers, *alone], plain)
        )
        for graph, paper in first.items():
            ours = second[graph]
            against = (paper.baseline, paper.plain_mlp, ours.plain_mlp, ours.baseline)
            lines.append([method, graph, _NAMES[part], *(str(one or "-") for one in against)])
    header = ["method", "graph", "asked", "paper's labels, minus labels alone", "paper's labels, minus plain MLP"]
    header += ["default, minus plain MLP", f"default, minus {_BASELINE[0]} ({_BASELINE[1]})"]
    return markdown(header, lines)


def teacher_sizes_table() -> str:
    """Layers, width and parameters of each teacher, by graph; a SAGE in both its forms, mean first."""
    rows = read_rows(RESULTS / "teacher_sizes.csv")
    teachers = list(dict.fromkeys(row["teacher"] for row in rows))
    lines = []
    for graph in dict.fromkeys(row["graph"] for row in rows):
        cells = []
        for teacher in teachers:
            those = [row for row in rows if (row["graph"], row["teacher"]) == (graph, teacher)]
            sizes = " or ".join(f"{int(row['parameters']) // 1000}k" for row in those)
            cells.append(f"{those[0]['layers']} x {those[0]['hidden']}, {sizes}" if those else "-")
        lines.append([graph, *cells])
    return markdown(["graph", *teachers], lines)


def ablation_table() -> str:
    """NOSMOG on one graph with one thing changed at a time, over the seeds that every change was run with."""
    rows = [row for row in _accuracy() if row["method"] == "nosmog" and row["setting"] == "transductive"]
    changed = list(dict.fromkeys(row["settings"] for row in rows if row["settings"]))
    for name in ("graph", "teacher", "seed"):
        kept = {row[name] for row in rows if row["settings"]}
        rows = [row for row in rows if row[name] in kept]
    lines = []
    for settings in ["", *changed]:
        those = [row for row in rows if row["settings"] == settings]
        name = "defaults" if not settings else f"`{settings}`"
        figures = [spread(those, "val"), spread(those, "student_test")]
        lines.append([name, str(len(those)), *figures, f"{_cost(those):.1f}"])
    return markdown(["changed", "seeds", "validation", "test", "CPU s"], lines)


def frequencies_table() -> str:
    """`blend` with the class frequencies of the labelled nodes and with those of all, seed by seed."""
    lines = []
    for first, second in _changes(before=f"{_PLAIN_TABLE} teacher.frequencies=labelled", after=_PLAIN_TABLE):
        part = second.part
        figures = [spread(one.rows, f"{who}_{part}") for who in ("teacher", "student") for one in (first, second)]
        lines.append([second.graph, _NAMES[part], *figures, str(second.baseline)])
    who = [f"{who}, {how}" for who in ("teacher", "student") for how in ("labelled", "observed")]
    return markdown(["graph", "setting", *who, "student, difference"], lines)


def answers_table() -> str:
    """`blend` without and with the teacher's answers in its table, seed by seed."""
    lines = []
    for first, second in _changes(before=_PLAIN_TABLE, after=""):
        part = second.part
        students = [spread(one.rows, f"student_{part}") for one in (first, second)]
        teacher = spread(second.rows, f"teacher_{part}")
        lines.append([second.graph, _NAMES[part], teacher, *students, str(second.baseline)])
    return markdown(["graph", "setting", "teacher", "student, without", "student, with", "difference"], lines)


def noise_table() -> str:
    """Accuracy at growing noise: student, teacher and plain MLP of each run."""
    header = ["graph", "asked", "method", "who", "regime", "size", "seeds", *(f"a = {level}" for level in _NOISE)]
    return markdown(header, _robustness("noise", _NOISE))


def degree_table() -> str:
    """Accuracy by quartile of degree, and with and without edges."""
    header = ["graph", "asked", "method", "who", "regime", "size", "seeds", "fewest neighbours", "", "", "most"]
    return markdown(header, _robustness("degree", ("1", "2", "3", "4")))


def edges_table() -> str:
    """Accuracy on unseen nodes that arrive with their edges, and with none."""
    header = ["graph", "asked", "method", "who", "regime", "size", "seeds", "with edges", "without"]
    return markdown(header, _robustness("edges", ("all", "none")))


def default_entries() -> list[Entry]:
    """Runs with the defaults; others belong to the table of changes."""
    return compare([row for row in _accuracy() if not row["settings"]], _BASELINE)


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


TABLES: dict[str, Callable[[], str]] = {
    "ablation": ablation_table,
    "frequencies": frequencies_table,
    "answers": answers_table,
    "every accuracy": full_table,
    "paired": paired_table,
    "margins": margins_table,
    "teacher sizes": teacher_sizes_table,
    "noise": noise_table,
    "degree": degree_table,
    "edges": edges_table,
}


def _accuracy() -> list[dict[str, str]]:
    return accuracy_file(RESULTS / "accuracy.csv").read()


def _changes(*, before: str, after: str) -> list[tuple[Entry, Entry]]:
    """The recipe with settings `before` and `after`, for each graph and part, over the seeds both were run with.

    The second is compared with the first.
    """
    rows = [row for row in _accuracy() if (row["method"], row["teacher"]) == _RECIPE]
    seeds = [{_run_of(row) for row in rows if row["settings"] == settings} for settings in (before, after)]
    rows = [row for row in rows if _run_of(row) in seeds[0] & seeds[1]]
    names = {before: "", after: "changed"}  # `compare` compares with the runs that have no name
    entries = compare([row | {"settings": names[row["settings"]]} for row in rows if row["settings"] in names], _RECIPE)
    first = {(entry.graph, entry.part): entry for entry in entries if not entry.settings}
    return [(first[entry.graph, entry.part], entry) for entry in entries if entry.settings]


def _run_of(row: Row) -> tuple[str, ...]:
    return row["graph"], row["setting"], row["seed"]


def _cost(rows: Sequence[Row]) -> float:
    """CPU seconds of structure and student."""
    return statistics.fmean(float(row["cpu_s_structure"]) + float(row["cpu_s_student"]) for row in rows)


def _robustness(question: str, levels: Sequence[str]) -> list[list[str]]:
    """Three lines per run configuration; the mean over seeds at each level."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in robustness_file(RESULTS / "robustness.csv").read():
        if row["question"] == question and not row["settings"]:
            groups.setdefault(tuple(row[name] for name in ("graph", "setting", "method", "teacher")), []).append(row)
    lines = []
    for (graph, setting, method, teacher), rows in groups.items():
        label = f"{method} ({teacher})" if teacher else method
        asked = "test nodes" if setting == "transductive" else "unseen nodes"
        size = f"{rows[0]['layers']} x {rows[0]['hidden']}, {int(rows[0]['parameters']) // 1000}k"
        seeds = str(len({row["seed"] for row in rows}))
        for figure in FIGURES:
            cells = [spread([row for row in rows if row["level"] == level], figure) for level in levels]
            who = figure.split("_")[0]
            kind = {"student": [rows[0]["regime"], size], "mlp": ["features", "-"]}.get(who, ["-", "-"])
            lines.append([graph, asked, label, who, *kind, seeds, *cells])
    return lines
