"""The page of one bench, or of several put together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from graph2mlp.latency.rows import ANSWER, FETCH, RUN_ONLY
from graph2mlp.report.bars import Cost, cost_chart, spread_chart
from graph2mlp.report.data import Benches
from graph2mlp.report.markup import Markup, element
from graph2mlp.report.page import charts, facts, key_figures, page, paragraph, section, table
from graph2mlp.report.scatter import trade_chart
from graph2mlp.report.server_section import server_headline, server_key
from graph2mlp.report.words import capital, count, microseconds, percent
from graph2mlp.tasks import CLASSIFICATION, TASKS

__all__ = ["bench_html"]

Row = Mapping[str, Any]

_PERCENTILE = re.compile(r"p(\d+)_us")


def bench_html(benches: Benches) -> str:
    """The page as text."""
    rows = [row for row in benches.rows if row.get("p50_us")]
    bundles = _bundles([*rows, *benches.server])
    names = count(len(bundles), "bundle") if len(bundles) != 1 else bundles[0]
    files = len({row["file"] for row in (*benches.rows, *benches.server)})
    alone = benches.server if not benches.rows else ()
    sections: list[object] = [
        paragraph(f"graph2mlp bench · {names}", f" · {files} files" if files > 1 else None, class_="kicker"),
        element("h1", server_headline(alone) if alone else _headline(rows)),
        server_key(alone) if alone else _key(rows),
    ]
    told = [name for name, several in (("file", files > 1), ("bundle", len(bundles) > 1)) if several]
    if rows:
        batches = sorted({int(row["batch"]) for row in rows})
        sections += [_ladder(rows, batches), _spread(rows, batches)]
        if trade := _trade(rows, batches[0]):
            sections.append(trade)
    if benches.rows:
        sections.append(section("Every row", _rows(benches.rows, told, "Times per call")))
    if benches.server:
        sections.append(section("Under load", _rows(benches.server, told, "Highest rate of random arrivals")))
    if benches.failed:
        sections.append(section("What could not be measured", _rows(benches.failed, told, "Reasons")))
    sections.append(_about(benches))
    return page(f"graph2mlp bench: {names}", *sections)


def _headline(rows: Sequence[Row]) -> str:
    first = _fastest(rows)
    if first is None:
        return "Nothing was measured."
    each = "one request" if first["batch"] == 1 else f"{first['batch']} requests in one call"
    bundles = _bundles(rows)
    name = PurePath(str(first["bundle"])).name
    who = "The bundle" if len(bundles) == 1 else f"{name}, the fastest of {len(bundles)} bundles,"
    words = f"{who} answers {each} in {microseconds(first['p50_us'])}"
    words += f" ({first['file']})" if first["file"] else ""
    if first.get("ratio") is not None and first.get("ratio_to", FETCH) == FETCH:
        same = [row for row in rows if (row["file"], row["batch"]) == (first["file"], first["batch"])]
        teacher = next((row for row in same if row["what"] == FETCH), None)
        beside = f" ({microseconds(teacher['p50_us'])})" if teacher else ""
        ratio = f"{first['ratio']:,.0f}" if first["ratio"] >= 100 else f"{first['ratio']:.1f}"
        words += f", {ratio} times faster than its teacher with neighbour fetch{beside}"
    return words + "."


def _fastest(rows: Sequence[Row]) -> Row | None:
    """The bundle at its smallest batch; of several bundles the fastest."""
    found = [row for row in rows if row["what"] == RUN_ONLY] or [row for row in rows if role(row) == "student"]
    return min(found or rows, key=lambda row: (row["batch"], row["p50_us"]), default=None)


def _bundles(rows: Sequence[Row]) -> list[str]:
    return sorted({str(row["bundle"]) for row in rows if row["bundle"] and role(row) == "student"})


def role(row: Row) -> str:
    """Whom a row is about: teacher, mlp or student; bundles are students."""
    what = str(row["what"])
    if what.startswith("teacher"):
        return "teacher"
    return "mlp" if what.startswith("plain MLP") else "student"


def _key(rows: Sequence[Row]) -> Markup:
    first = _fastest(rows)
    if first is None:
        return key_figures([])
    figures = [("median", microseconds(first["p50_us"]), [f"batch {first['batch']}, inputs ready"])]
    if first.get("p99_us") is not None:
        figures.append(("99th percentile", microseconds(first["p99_us"]), [f"of {count(first['n'], 'call')}"]))
    same = [row for row in rows if (row["file"], row["bundle"]) == (first["file"], first["bundle"])]
    checked = [row for row in same if row["what"] == ANSWER]
    if answered := min(checked, key=lambda row: int(row["batch"]), default=None):
        figures.append(("with checks", microseconds(answered["p50_us"]), ["from arrays, ids and numbers validated"]))
    if first.get("accuracy") is not None:
        figures.append((_metric([first]), percent(first["accuracy"]), [_accuracy_of(first)]))
    figures.append(("size", f"{first['size_kb']:,.0f} KiB", ["what must be on the device"]))
    figures.append(("input regime", str(first["regime"]), [count(int(first["threads"]), "thread")]))
    return key_figures(figures)


def _metric(rows: Sequence[Row]) -> str:
    """What their accuracies are, of each task among the rows; of benches that did not note it, accuracies."""
    kinds = [TASKS.get(row.get("task", ""), CLASSIFICATION) for row in rows]
    return " or ".join(dict.fromkeys(kind.metric for kind in kinds))


def _accuracy_of(row: Row) -> str:
    if row.get("accuracy_n"):
        return f"measured here, {count(int(row['accuracy_n']), 'request')}"
    return "of this very file, at export"


def _cost(row: Row) -> Cost:
    ranks = {
        _rank(found[1]): float(row[key])
        for key in row
        if (found := _PERCENTILE.fullmatch(key)) and row[key] is not None
    }
    return Cost(
        role=role(row),
        name=str(row["what"]),
        percentiles=ranks,
        ratio=row.get("ratio"),
        accuracy=row.get("accuracy"),
        noisy=bool(row.get("noisy")),
        file=row["file"],
        against=str(row.get("ratio_to") or FETCH),
    )


def _rank(digits: str) -> float:
    """`50` is the 50th percentile, `999` the 99.9th."""
    return float(digits) if len(digits) < 3 else float(f"{digits[:2]}.{digits[2:]}")


def _ladder(rows: Sequence[Row], batches: Sequence[int]) -> Markup:
    figures = []
    for batch in batches:
        costs = [_cost(row) for row in rows if row["batch"] == batch]
        title = "One request" if batch == 1 else f"{batch:,} requests in one call"
        figures.append(cost_chart(f"cost-{batch}", f"{title}: median time", costs))
    yardstick = " or ".join(dict.fromkeys(str(row.get("ratio_to") or FETCH) for row in rows))
    if rows[0]["file"]:
        yardstick = "row 1 of the same file at the same batch, which is named beside the file"
    words = f"Bars start at zero. × says how many times faster than: {yardstick}."
    if any(row["what"] == ANSWER for row in rows):
        words += (
            " Between the two lines of the bundle lies what checking the arrays and gathering a request costs; "
            "run only is lookup and layers."
        )
    return section("What an answer costs", paragraph(words, class_="note"), charts(*figures))


def _spread(rows: Sequence[Row], batches: Sequence[int]) -> Markup:
    figures = []
    for batch in batches:
        costs = [_cost(row) for row in rows if row["batch"] == batch]
        figures.append(spread_chart(f"spread-{batch}", f"Batch {batch:,}", costs))
    words = "Marks at the percentiles that were kept; a 99th needs at least 662 calls."
    if any(row.get("noisy") for row in rows):
        words += " * Others used the machine meanwhile: wall clock was over 1.1 times the CPU time."
    return section("How it spreads", paragraph(words, class_="note"), charts(*figures))


def _trade(rows: Sequence[Row], batch: int) -> Markup | None:
    costs = [_cost(row) for row in rows if row["batch"] == batch and row.get("accuracy") is not None]
    if len(costs) < 2:
        return None
    words = f"Batch {batch:,}. Up and to the left is better. Points that would hide each other share a mark."
    metric = capital(_metric(rows))
    chart = trade_chart("trade", f"{metric}, %", costs)
    return section(f"{metric} against latency", paragraph(words, class_="note"), charts(chart))


def _rows(rows: Sequence[Row], told: Sequence[str], caption: str) -> Markup:
    """Every row with every figure it has; `told` are the columns that say where it comes from."""
    hidden = {"what", "file", "bundle", "noisy", "task"}
    used = [key for row in rows for key, value in row.items() if value not in (None, "") and key not in hidden]
    first = _UNDER_LOAD if "slo_p99_us" in used else ()
    shown = list(dict.fromkeys([*(key for key in first if key in used), *used]))
    cells = []
    for row in rows:
        name = str(row["what"]) + (" *" if row.get("noisy") else "")
        cells.append([name, *(str(row[key]) or "-" for key in told), *(_figure(key, row.get(key)) for key in shown)])
    heads = [
        _HEADS[key].replace("accuracy", _metric(rows))
        if key in _HEADS
        else key.removesuffix("_us").replace("_", " ") + (", µs" if key.endswith("_us") else "")
        for key in shown
    ]
    return table(["", *told, *heads], cells, caption=caption)


_UNDER_LOAD = ("rate", "rate_failed", "slo_p99_us", "p50_us", "p99_us", "mean_batch")
"""What a server is asked for stands first: a wide table is cut off at its right."""

_HEADS = {
    "n": "calls",
    "rate": "requests per second",
    "rate_failed": "too many",
    "slo_p99_us": "promised p99, µs",
    "cpu_us": "CPU, µs",
    "ratio": "times faster",
    "size_kb": "KiB",
    "peak_rss_mb": "peak memory, MB",
    "accuracy": "accuracy, %",
    "accuracy_n": "requests with a known answer",
    "sample_accuracy": "sample accuracy, %",
    "reported_accuracy": "reported accuracy, %",
    "agreement": "agreement, %",
    "same_labels": "as at export, %",
}
_SHARES = tuple(key for key, head in _HEADS.items() if head.endswith("%"))
"""Fractions in the file."""


def _figure(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if key in _SHARES:
        return f"{100 * value:.2f}"
    if isinstance(value, float) and 0 < abs(value) < 1:
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.1f}"


def _about(benches: Benches) -> Markup:
    blocks = []
    for one in benches.environments:
        blocks.append(facts([(name, str(value)) for name, value in one.items()]))
    words = None
    if len(benches.environments) > 1:
        words = paragraph(
            "These rows come from several machines or versions: compare times only within one of them.",
            class_="missing",
        )
    return section("Where it was measured", words, *blocks)
