"""The rows of a latency table, and the files they are written to. No torch."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from graph2mlp.atomic import atomic_path, write_json
from graph2mlp.measure import environment

__all__ = [
    "ANSWER",
    "FETCH",
    "MLP",
    "PYG",
    "RUN_ONLY",
    "TORCH",
    "WHOLE",
    "Row",
    "write_bench_csv",
    "write_bench_json",
]

SCHEMA = 1

RUN_ONLY, ANSWER = "bundle, run only", "bundle, with checks"
FETCH, PYG, WHOLE = "teacher, k-hop fetch", "teacher, PyG k-hop", "teacher, whole graph"
TORCH, MLP = "student, torch", "plain MLP, torch"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured thing. Times are microseconds per call, that is per batch."""

    what: str
    regime: str
    batch: int
    threads: int
    n: int
    p50_us: float
    p95_us: float
    p99_us: float | None
    """None below 662 samples."""
    cpu_us: float
    noisy: bool
    """Others used the machine: wall time is more than 1.1 times the CPU time."""
    ratio: float | None
    """p50 of the teacher with neighbour fetch at this batch, divided by this p50: how many times faster."""
    size_kb: float
    """What must be on the device: the model file; for the teacher its weights, features and edges."""
    peak_rss_mb: float | None
    """Of this process so far, everything included."""
    accuracy: float | None
    """Of the bundle: measured on its file at export. Of the others: what the run reports."""


def write_bench_json(path: Path, rows: Sequence[Row], *, bundle: str | os.PathLike[str]) -> None:
    """Rows and the machine they belong to, in one step."""
    write_json(
        path,
        {
            "schema": SCHEMA,
            "bundle": os.fspath(bundle),
            "environment": environment(),
            "rows": [asdict(row) for row in rows],
        },
    )


def write_bench_csv(path: Path, rows: Sequence[Row], *, bundle: str | os.PathLike[str]) -> None:
    """One line per row with the machine in every line, so that files of several machines can be put together."""
    machine = {"bundle": os.fspath(bundle), **environment()}
    names = [*Row.__dataclass_fields__, *machine]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) | machine for row in rows)
