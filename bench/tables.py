"""The tables of the pages, made from the committed CSV files: `python -m bench.tables` rewrites them in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from bench import accuracy_tables, method_tables
from bench.accuracy_tables import markdown
from bench.rows import read_rows
from graph2mlp.export.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


_WAYS = (
    ("fetch", "teacher, k-hop fetch"),
    ("sampled", "teacher, sampled fetch"),
    ("PyG", "teacher, PyG k-hop"),
    ("whole graph", "teacher, whole graph"),
    ("torch", "student, torch"),
    ("checks", "bundle, with checks"),
    ("run only", "bundle, run only"),
)


def latency_table() -> str:
    """One line per graph, teacher and batch: p50 of every way of answering, and how many times the bundle is faster.

    The last column divides by the cheapest exact way, whichever that is: ten hops of a small graph are all of it, and
    then one pass over the whole graph is what a server would do.
    """
    rows = [row for row in read_rows(RESULTS / "latency.csv") if row["scenario"] in ("single", "batch")]
    header = ["graph", "teacher", "hops", "batch", *(short for short, _ in _WAYS), "p99 run only"]
    header += ["fetch / run only", "PyG / run only", "cheapest / run only"]
    lines = []
    for key in dict.fromkeys(tuple(row[name] for name in ("graph", "teacher", "hops", "batch")) for row in rows):
        if key[3] not in ("1", "64"):
            continue
        same = [row for row in rows if (row["graph"], row["teacher"]) == key[:2]]
        # The whole graph is measured at one batch size: it costs the same at any.
        found = {row["what"]: row for row in same if row["batch"] == key[3] or row["what"] == _WAYS[3][1]}
        p50 = {short: float(found[name]["p50_us"]) for short, name in _WAYS if name in found}
        cheapest = min(p50[short] for short in ("fetch", "PyG", "whole graph") if short in p50)
        ratios = [one / p50["run only"] for one in (p50["fetch"], p50["PyG"], cheapest)]
        p99 = found[_WAYS[-1][1]]["p99_us"]
        times = [p50.get(short) for short, _ in _WAYS]
        lines.append([*key, *(_us(one) for one in [*times, float(p99) if p99 else None, *ratios])])
    return markdown(header, lines)


def server_table() -> str:
    """Requests per second that each way of answering bears, one line per graph and teacher."""
    rows = [row for row in read_rows(RESULTS / "latency.csv") if row["scenario"] == "server"]
    names = [(short, name) for short, name in _WAYS if name != "bundle, run only"]
    header = ["graph", "teacher", "p99 at most", *(short for short, _ in names), "bundle / fetch"]
    lines = []
    for key in dict.fromkeys((row["graph"], row["teacher"], row["slo_p99_us"]) for row in rows):
        found = {row["what"]: row["rate"] for row in rows if (row["graph"], row["teacher"], row["slo_p99_us"]) == key}
        rates = [float(found[name]) if found.get(name) else None for _, name in names]
        ratio = rates[-1] / rates[0] if rates[-1] and rates[0] else None
        cells = ["INVALID" if rate is None else f"{rate:,.0f}" for rate in rates]
        lines.append([key[0], key[1], f"{float(key[2]):,.0f} us", *cells, _us(ratio)])
    return markdown(header, lines)


def _us(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def kernels_table() -> str:
    """CPU time of value and gradients for a good student's rows, one thread, largest size: ours, then the others."""
    header = ["loss", "rows x width", "who", "CPU ms", "times ours", "peak MB", "error of the gradient"]
    rows = [
        row
        for row in read_rows(RESULTS / "kernels.csv")
        if row["data"] == "aligned" and row["cpu_ms"] and row["device"] == "cpu"
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
    return markdown(header, lines)


def presets_table() -> str:
    """One row per student and preset: size, what it keeps, and how many times as fast as fp32 it is by batch size.

    Calls of 1,024 requests are so long that a shared machine interrupts most of them: there it is CPU time.
    """
    rows = read_rows(RESULTS / "presets.csv")
    columns = (("1", "p50_us"), ("64", "p50_us"), ("1024", "cpu_us"))
    header = ["student", "preset", "KB", "validation", "same label", "test"]
    header += [f"batch {batch}: {'CPU' if key == 'cpu_us' else 'p50'} us (x fp32)" for batch, key in columns]
    lines = []
    for student, preset in dict.fromkeys((row["student"], row["preset"]) for row in rows):
        those = {row["batch"]: row for row in rows if (row["student"], row["preset"]) == (student, preset)}
        first = next(iter(those.values()))
        if first["status"] != "passed":
            lines.append([student, preset, "-", "refused", *["-"] * (2 + len(columns))])
            continue
        shares = [f"{100 * float(first[key]):.2f}" for key in ("val", "agreement", "test")]
        whole = {row["batch"]: row for row in rows if (row["student"], row["preset"]) == (student, "fp32")}
        times = [
            f"{float(those[batch][key]):,.1f} ({float(whole[batch][key]) / float(those[batch][key]):.2f})"
            for batch, key in columns
        ]
        lines.append([student, preset, f"{float(first['size_kb']):,.0f}", *shares, *times])
    return markdown(header, lines)


def preset_purposes_table() -> str:
    """The presets as the code has them: name, and for whom."""
    return markdown(["preset", "for"], [[f"`{preset.name}`", preset.purpose] for preset in PRESETS.values()])


def twitch_table() -> str:
    """One line per country asked: accuracy (area under the ROC curve) of everyone, mean over the seeds."""
    rows = read_rows(RESULTS / "twitch.csv")
    labels = list(dict.fromkeys((row["method"], row["teacher"]) for row in rows))
    header = ["asked", "nodes", "largest class", "teacher (sage)", "plain MLP"]
    header += [f"{method} ({teacher})" for method, teacher in labels]
    lines = []
    for asked in dict.fromkeys(row["asked"] for row in rows):
        those = [row for row in rows if row["asked"] == asked]
        sage = [row for row in those if row["teacher"] == "sage"]
        cells = [_share_and_auc(sage, "teacher"), _share_and_auc(sage, "mlp")]
        cells += [
            _share_and_auc([row for row in those if (row["method"], row["teacher"]) == one], "student")
            for one in labels
        ]
        lines.append([asked, those[0]["nodes"], f"{100 * float(those[0]['majority']):.1f}", *cells])
    return markdown(header, lines)


def _share_and_auc(rows: Sequence[Mapping[str, str]], who: str) -> str:
    if not rows:
        return "-"
    means = [
        fmean(100 * float(row[f"{who}_{what}"]) for row in rows)
        for what in ("accuracy", "auc")
        if rows[0][f"{who}_{what}"]
    ]
    return f"{means[0]:.1f}" + (f" ({means[1]:.1f})" if len(means) > 1 else "")


TABLES = {
    "twitch": twitch_table,
    "preset purposes": preset_purposes_table,
    "presets": presets_table,
    **method_tables.TABLES,
    **accuracy_tables.TABLES,
    "latency": latency_table,
    "server": server_table,
    "kernels": kernels_table,
}


def with_tables(text: str) -> str:
    """A page's text with each of its tables made anew."""
    for name, make in TABLES.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        if start in text:
            before, rest = text.split(start)
            text = before + start + make() + rest[rest.index(end) :]
    return text


def main() -> None:
    """Rewrite the pages."""
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
