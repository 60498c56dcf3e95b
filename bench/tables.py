"""The tables of the README, made from the committed CSV files: `python -m bench.tables` rewrites them in place."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path

from graph2mlp.export.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
README = ROOT / "README.md"

_ORDER = ("blend", "nosmog", "glnn", "g_crd", "gsp", "lsp", "alignahead", "gsdn", "mlp")


def accuracy_table() -> str:
    """One row per graph, setting and student: mean and population deviation over the seeds."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in _read("accuracy.csv"):
        if not row["settings"]:
            groups.setdefault((row["graph"], row["setting"], row["method"], row["teacher"]), []).append(row)
    header = ["graph", "setting", "method", "regime", "size", "seeds", "teacher", "plain MLP", "student", "CPU s"]
    lines = []
    for key in sorted(groups, key=lambda k: (k[0] != "digits", k[0], k[1] != "transductive", _ORDER.index(k[2]))):
        graph, setting, method, teacher = key
        rows = groups[key]
        parts = ["test"] if setting == "transductive" else ["tran", "ind", "prod", "cold"]
        cost = [float(row["cpu_s_structure"]) + float(row["cpu_s_student"]) for row in rows]
        size = f"{rows[0]['layers']} x {rows[0]['hidden']}, {int(rows[0]['parameters']) // 1000}k"
        for part in parts:
            who = [_mean(rows, f"{one}_{part}") for one in ("teacher", "mlp", "student")]
            name = "transductive" if part == "test" else f"production, `{part}`"
            label = f"{method} ({teacher})" if teacher else method
            lines.append(
                [graph, name, label, rows[0]["regime"], size, str(len(rows)), *who, f"{statistics.fmean(cost):.1f}"]
            )
    return _markdown(header, lines)


def ablation_table() -> str:
    """NOSMOG on one graph with one thing changed at a time, over the seeds that every change was run with."""
    rows = [row for row in _read("accuracy.csv") if row["method"] == "nosmog" and row["setting"] == "transductive"]
    changed = list(dict.fromkeys(row["settings"] for row in rows if row["settings"]))
    graphs = {row["graph"] for row in rows if row["settings"]}
    seeds = {row["seed"] for row in rows if row["settings"]}
    rows = [row for row in rows if row["graph"] in graphs and row["seed"] in seeds]
    lines = []
    for settings in ["", *changed]:
        those = [row for row in rows if row["settings"] == settings]
        cost = statistics.fmean(float(row["cpu_s_structure"]) + float(row["cpu_s_student"]) for row in those)
        name = "defaults" if not settings else f"`{settings}`"
        lines.append([name, str(len(those)), _mean(those, "val"), _mean(those, "student_test"), f"{cost:.1f}"])
    return _markdown(["changed", "seeds", "validation", "test", "CPU s"], lines)


def latency_table() -> str:
    """p50 / p95 in microseconds per call, batch 1 and the larger ones, one thread."""
    header = ["graph", "what answers", "batch", "n", "p50 us", "p95 us", "p99 us", "CPU us", "times faster"]
    lines = [
        [
            row["graph"],
            row["what"],
            row["batch"],
            row["n"],
            *(f"{float(row[key]):,.1f}" if row[key] else "-" for key in ("p50_us", "p95_us", "p99_us", "cpu_us")),
            f"{float(row['ratio']):,.1f}",
        ]
        for row in _read("latency.csv")
        if row["batch"] in ("1", "64")
    ]
    return _markdown(header, lines)


def kernels_table() -> str:
    """CPU time of value and gradients for a good student's rows, one thread, largest size: ours, then the others."""
    header = ["loss", "rows x width", "who", "CPU ms", "times ours", "peak MB", "error of the gradient"]
    rows = [
        row for row in _read("kernels.csv") if row["data"] == "aligned" and row["cpu_ms"] and row["device"] == "cpu"
    ]
    largest = {row["loss"]: max(int(one["n"]) for one in rows if one["loss"] == row["loss"]) for row in rows}
    lines, ours = [], 1.0
    for row in rows:
        if int(row["n"]) == largest[row["loss"]]:
            first = row["who"] == "ours"
            time = float(row["cpu_ms"])
            ours = time if first else ours
            who = "**ours**" if first else row["who"]
            who += " (student's gradient only)" if row["gradients"] == "student" else ""
            size = f"{int(row['n']):,} x {row['d']}" if first else ""
            memory = f"{float(row['peak_mb']):,.0f}"
            name = row["loss"] if first else ""
            lines.append([name, size, who, f"{time:,.1f}", f"{time / ours:.2f}", memory, row["error_gradient"]])
    return _markdown(header, lines)


def presets_table() -> str:
    """One row per student and preset: size, what it keeps, and how many times as fast as fp32 it is by batch size.

    Calls of 1,024 requests are so long that a shared machine interrupts most of them: there it is CPU time.
    """
    rows = _read("presets.csv")
    columns = (("1", "p50_us"), ("64", "p50_us"), ("1024", "cpu_us"))
    header = ["student", "preset", "KB", "validation", "same label", "test"]
    header += [f"batch {batch}: {'CPU' if key == 'cpu_us' else 'p50'} us (x fp32)" for batch, key in columns]
    lines = []
    for graph, preset in dict.fromkeys((row["graph"], row["preset"]) for row in rows):
        those = {row["batch"]: row for row in rows if (row["graph"], row["preset"]) == (graph, preset)}
        first = next(iter(those.values()))
        if first["status"] != "passed":
            lines.append([graph, preset, "-", "refused", *["-"] * (2 + len(columns))])
            continue
        shares = [f"{100 * float(first[key]):.2f}" for key in ("val", "agreement", "test")]
        whole = {row["batch"]: row for row in rows if (row["graph"], row["preset"]) == (graph, "fp32")}
        times = [
            f"{float(those[batch][key]):,.1f} ({float(whole[batch][key]) / float(those[batch][key]):.2f})"
            for batch, key in columns
        ]
        lines.append([graph, preset, f"{float(first['size_kb']):,.0f}", *shares, *times])
    return _markdown(header, lines)


def preset_purposes_table() -> str:
    """The presets as the code has them: name, and for whom."""
    return _markdown(["preset", "for"], [[f"`{preset.name}`", preset.purpose] for preset in PRESETS.values()])


TABLES = {
    "preset purposes": preset_purposes_table,
    "presets": presets_table,
    "accuracy": accuracy_table,
    "ablation": ablation_table,
    "latency": latency_table,
    "kernels": kernels_table,
}


def with_tables(text: str) -> str:
    """The README's text with every table made anew."""
    for name, make in TABLES.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, rest = text.split(start)
        text = before + start + make() + rest[rest.index(end) :]
    return text


def main() -> None:
    """Rewrite the README."""
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")


def _read(name: str) -> list[dict[str, str]]:
    with (RESULTS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _mean(rows: Sequence[dict[str, str]], column: str) -> str:
    values = [100 * float(row[column]) for row in rows if row[column]]
    return f"{statistics.fmean(values):.2f} ± {statistics.pstdev(values):.2f}" if values else "-"


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    main()
