"""The rows of a bench, and the files they are written to. No torch."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from graph2mlp.atomic import atomic_path, write_json
from graph2mlp.energy import find_energy
from graph2mlp.measure import environment
from graph2mlp.tasks import CLASSIFICATION

__all__ = [
    "ANSWER",
    "FETCH",
    "MLP",
    "PYG",
    "RUN_ONLY",
    "SAMPLED",
    "SCHEMA",
    "TORCH",
    "WHOLE",
    "About",
    "Bench",
    "Failure",
    "Row",
    "ServerRow",
    "bench_environment",
    "write_bench_csv",
    "write_bench_json",
]

SCHEMA = 2
"""1 had no `server`, `failed`, `block_p50_us` and fewer columns; every column it had is still there."""

RUN_ONLY, ANSWER = "bundle, run only", "bundle, with checks"
FETCH, SAMPLED = "teacher, k-hop fetch", "teacher, sampled fetch"
PYG, WHOLE = "teacher, PyG k-hop", "teacher, whole graph"
TORCH, MLP = "student, torch", "plain MLP, torch"


@dataclass(frozen=True, kw_only=True)
class About:
    """What is true of a contender at any batch size. Accuracies are the metric of its task, as fractions."""

    what: str
    kind: str
    """`teacher`, `student`, `mlp` or `bundle`."""
    regime: str
    size_kb: float
    """What must be on the device: the model file; for the teacher its weights, features and edges."""
    accuracy: float | None = None
    """Measured here, by what was timed: on the run's test nodes (unseen ones included), else on the bundle's sample."""
    accuracy_n: int = 0
    """Requests with a known label behind `accuracy`."""
    sample_accuracy: float | None = None
    """Of a bundle, measured here: on the requests it carries."""
    reported_accuracy: float | None = None
    """Of a bundle: measured at export. Of the others: what the run reports."""
    agreement: float | None = None
    """How far it answers the same nodes as the teacher with all their neighbours; of classes, the share of nodes."""
    same_labels: float | None = None
    """How far a bundle answers its sample as at export; of classes, the share of requests."""
    status: str = "ok"
    """`ok`, or what is wrong although it answers."""
    cold_start_ms: float | None = None
    """From starting a fresh process to the first answer: interpreter, imports, opening, answering."""
    rss_mb: float | None = None
    """Memory that opening and answering added in that process, after its imports."""
    bundle: str = ""
    preset: str = ""
    model_sha256: str = ""
    task: str = CLASSIFICATION.name
    """What its accuracies and agreements are measured by; see `graph2mlp.tasks`."""


@dataclass(frozen=True, kw_only=True)
class Row(About):
    """One contender at one batch size, one call after the other. Times are microseconds per call, that is per batch."""

    scenario: str
    """`single` (one request per call) or `batch`."""
    batch: int
    threads: int
    n: int
    p50_us: float
    p90_us: float
    p95_us: float
    p99_us: float | None
    """None below 662 samples."""
    mean_us: float
    cpu_us: float
    requests_per_s: float
    """Of one call after the other: batch divided by the mean time."""
    noisy: bool
    """Others used the machine: wall time is more than 1.1 times the CPU time."""
    unstable: bool
    """The same call took over a fifth longer in the middle than at best."""
    spread: float | None
    ratio: float | None
    """p50 of the first row at this batch, divided by this p50: how many times faster."""
    ratio_to: str
    """Which row that is: the teacher with neighbour fetch, or without a teacher the bundle."""
    energy_uj: float | None
    """Energy of the processor package per call, other people's work included; None where it cannot be read."""
    peak_rss_mb: float | None
    """Of the measuring process so far, everything included."""
    block_p50_us: tuple[float, ...] = field(repr=False)
    """Medians of the blocks in which it had its turn; beside the rows in JSON, not in CSV."""


@dataclass(frozen=True, kw_only=True)
class ServerRow(About):
    """The highest rate of random arrivals at which a contender kept the promise about its 99th percentile.

    Times are microseconds from a request's scheduled arrival to its answer, at that rate.
    """

    scenario: str = "server"
    slo_p99_us: float
    """The promise."""
    max_batch: int
    threads: int
    valid: bool
    """Whether any rate kept it; if not, the figures are of the last rate tried (None if none was worth trying)."""
    rate: float | None
    """Arrivals per second, the highest rate that kept the promise with a queue that did not grow."""
    rate_failed: float | None
    """The lowest rate above it that did not; the limit lies between the two."""
    n: int
    p50_us: float | None
    p90_us: float | None
    p95_us: float | None
    p99_us: float | None
    mean_batch: float | None
    noisy: bool
    """The machine took the processor away during the deciding attempt."""
    ratio: float | None
    """This rate divided by that of the first row."""
    ratio_to: str


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A row that could not be measured, and why."""

    what: str
    scenario: str
    batch: int | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Everything one bench found."""

    rows: list[Row]
    server: list[ServerRow] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)


def bench_environment() -> dict[str, str]:
    """The machine, how busy it is, and whether it tells its energy."""
    try:
        load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    except (AttributeError, OSError):  # Windows has none
        load = "not available"
    energy = "package counters" if find_energy() is not None else "not available"
    return environment() | {"load": load, "energy": energy}


def write_bench_json(
    path: Path,
    bench: Bench | Sequence[Row],
    *,
    bundle: str | os.PathLike[str],
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Rows and the machine they belong to, in one step.

    `rows` and `server` are lists of flat objects; `block_p50_us` holds the medians of the blocks, one list for each of
    `rows`; `failed` lists what could not be measured.
    """
    bench = bench if isinstance(bench, Bench) else Bench(rows=list(bench))
    write_json(
        path,
        {
            "schema": SCHEMA,
            "bundle": os.fspath(bundle),
            "environment": bench_environment(),
            "settings": dict(settings or {}),
            "rows": [_flat(row) for row in bench.rows],
            "server": [asdict(row) for row in bench.server],
            "failed": [asdict(one) for one in bench.failed],
            "block_p50_us": [list(row.block_p50_us) for row in bench.rows],
        },
    )


def write_bench_csv(path: Path, bench: Bench | Sequence[Row], *, bundle: str | os.PathLike[str]) -> None:
    """One line per row with the machine in every line, so that files of several machines can be put together.

    Rows of the server scenario follow the others; columns that a row does not have are empty.
    """
    bench = bench if isinstance(bench, Bench) else Bench(rows=list(bench))
    machine = bench_environment()
    lines = [_flat(row) for row in bench.rows] + [asdict(row) for row in bench.server]
    lines = [line | {"bundle": line["bundle"] or os.fspath(bundle)} | machine for line in lines]
    own = [name for name in Row.__dataclass_fields__ if name != "block_p50_us"]
    server = [name for name in ServerRow.__dataclass_fields__ if name not in own and bench.server]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*own, *server, *machine], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def _flat(row: Row) -> dict[str, Any]:
    flat = asdict(row)
    del flat["block_p50_us"]
    return flat
