"""The tables that end a bench. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from graph2mlp.console import table
from graph2mlp.latency.compare import ALPHA, LEAST_DIFFERENCE, LEAST_ON_BUSY_MACHINE, Comparison
from graph2mlp.latency.rows import About, Bench, Row, ServerRow, bench_environment
from graph2mlp.tasks import CLASSIFICATION, TASKS

__all__ = ["about_table", "bench_tables", "compare_table", "latency_table", "server_table"]


def bench_tables(bench: Bench) -> list[Table]:
    """Everything a person needs of a bench: times, load, what each contender is, what failed."""
    found = []
    if bench.rows:
        found.append(latency_table(bench.rows))
    if bench.server:
        found.append(server_table(bench.server))
    found.append(about_table([*bench.rows, *bench.server]))
    if bench.failed:
        cells = [
            [one.what, one.scenario + (f" {one.batch}" if one.batch is not None else ""), one.reason]
            for one in bench.failed
        ]
        found.append(_wrapped(table("Not measured", ["", "in", "reason"], cells)))
    return found


def latency_table(rows: Sequence[Row]) -> Table:
    """What each call costs, in microseconds, with the machine it was measured on below."""
    cells = [
        [
            row.what + (" *" if row.noisy else "") + (" ~" if row.unstable else ""),
            str(row.batch),
            str(row.n),
            *(_number(value) for value in (row.p50_us, row.p90_us, row.p99_us, row.cpu_us, row.requests_per_s)),
            "-" if row.ratio is None else f"{row.ratio:.1f}x",
            _percent(row.accuracy),
            _percent(row.agreement),
        ]
        for row in rows
    ]
    machine = bench_environment()
    note = f"{rows[0].threads} thread(s), {machine['cpu']}, load {machine['load']}, energy {machine['energy']}"
    note += f"\nfaster: p50 of '{rows[0].ratio_to}' divided by this p50; p99 needs 662 samples"
    metric, same = _words(rows, "the teacher with all its neighbours")
    head = _HEADS.get(metric, metric)
    note += f"\n{head}: measured here, by what was timed; agree: {same}; both in %"
    if any(row.noisy for row in rows):
        note += "\n* others used the machine: wall clock was over 1.1 times the CPU time"
    if any(row.unstable for row in rows):
        note += "\n~ unstable: the same call took over 1.2 times its best time in the middle"
    columns = ["", "batch", "n", "p50", "p90", "p99", "CPU", "per s", "faster", head, "agree"]
    return _narrow(table("Latency, us per call", columns, cells, note=note))


def server_table(rows: Sequence[ServerRow]) -> Table:
    """The load each contender bears."""
    cells = [
        [
            row.what + (" *" if row.noisy else ""),
            "VALID" if row.valid else "INVALID",
            _number(row.rate),
            _number(row.rate_failed),
            *(_number(value) for value in (row.p50_us, row.p99_us)),
            "-" if row.mean_batch is None else f"{row.mean_batch:.1f}",
            "-" if row.ratio is None else f"{row.ratio:.1f}x",
        ]
        for row in rows
    ]
    note = "requests arrive at random (Poisson), one thread answers what has arrived, at most "
    note += f"{rows[0].max_batch} at once; latency from the scheduled arrival, in us, at the highest rate that held:"
    note += "\nthe promise was kept, and the queue did not grow"
    if any(not row.valid for row in rows):
        note += "\nINVALID: no rate keeps the promise"
    if any(row.noisy for row in rows):
        note += "\n* the system interrupted the deciding attempt: a quieter machine may bear more"
    columns = ["", "", "rate per s", "failed at", "p50", "p99", "batch", "faster"]
    title = f"Server: highest rate with p99 <= {rows[0].slo_p99_us:g} us"
    return _narrow(table(title, columns, cells, note=note))


def about_table(rows: Sequence[About]) -> Table:
    """One line for each contender: what it needs on the device, and whether it is in order."""
    cells = {
        row.what: [
            row.what,
            row.regime,
            f"{row.size_kb / 1024:.2f}",
            _number(row.rss_mb),
            _number(row.cold_start_ms),
            _percent(row.sample_accuracy),
            _percent(row.same_labels),
            _percent(row.reported_accuracy),
            row.status,
        ]
        for row in rows
    }
    note = "MB: model file; of the teacher weights, features and edges. RSS MB, cold ms: in a fresh process"
    metric, same = _words(rows, "its answers at export")
    note += f"\nsample: {metric} on the bundle's own requests; same: {same}; reported: {metric} at export; in %"
    columns = ["", "regime", "MB", "RSS MB", "cold ms", "sample", "same", "reported", "status"]
    return _wrapped(table("What it takes", columns, list(cells.values()), note=note))


def compare_table(found: Comparison) -> Table:
    """A verdict per row; what differs besides stands in the title."""
    cells = [
        [
            row.what,
            row.batch,
            _number(row.first),
            _number(row.second),
            "-" if row.ratio is None else f"{row.ratio:.3f}",
            "-" if row.p_value is None else f"{row.p_value:.1e}",
            row.verdict,
        ]
        for row in found.rows
    ]
    title = "\n".join([*found.differences, "Second against first"])
    note = "p50 in us per call; in the server scenario requests per s. p: Mann-Whitney test of the medians of blocks\n"
    note += f"a difference needs p < {ALPHA:g} and more than {LEAST_DIFFERENCE:.0%}, "
    note += f"{LEAST_ON_BUSY_MACHINE:.0%} where a side was noisy or unstable"
    for name, only in (("first", found.only_first), ("second", found.only_second)):
        if only:
            note += f"\nonly in the {name}: {'; '.join(only[:4])}" + (f"; and {len(only) - 4} more" if only[4:] else "")
    return _narrow(table(title, ["", "batch", "first", "second", "ratio", "p", "verdict"], cells, note=note))


_HEADS = {CLASSIFICATION.metric: "acc"}
"""Metrics in the width of a column."""


def _words(rows: Sequence[About], whom: str) -> tuple[str, str]:
    """What accuracies and agreements with `whom` are called, of each task among the rows."""
    kinds = [TASKS[name] for name in dict.fromkeys(row.task for row in rows)]
    return " or ".join(kind.metric for kind in kinds), " or ".join(kind.same.format(whom) for kind in kinds)


def _wrapped(listing: Table) -> Table:
    """The text at the end on the left, on several lines where it must."""
    listing.columns[-1].justify, listing.columns[-1].no_wrap = "left", False
    return _narrow(listing)


def _narrow(listing: Table) -> Table:
    """Where the terminal is too narrow, long names take two lines, so that no figure is lost."""
    listing.columns[0].no_wrap = False
    return listing


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"
