"""What a bundle costs on this machine, and what the teacher would cost in its place; every side measured in one run.

The bundle's rows need the base install. With a run to compare with, the teacher and the torch student answer the same
nodes, in turns with the bundle (A B A B ...), so that a ratio never mixes two moods of a shared machine.

The teacher is measured three times: with our own exact neighbour fetch, which is as fast as we can make it and which
the ratios refer to; with PyG's `k_hop_subgraph`, as its users would write it; with one pass over the whole graph.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graph2mlp.atomic import atomic_path, write_json
from graph2mlp.errors import BundleError, ConfigError
from graph2mlp.export.bundle import EXTERNAL_DATA, MODEL
from graph2mlp.export.requests import Requests
from graph2mlp.export.runtime import Predictor
from graph2mlp.measure import Call, Latency, environment, measure_together, peak_rss_mb

if TYPE_CHECKING:
    from graph2mlp.latency_teacher import Opponents, TeacherRun

__all__ = ["FETCH", "Row", "bench_bundle", "write_bench_csv", "write_bench_json"]

RUN_ONLY, ANSWER = "bundle, run only", "bundle, with checks"
FETCH, PYG, WHOLE = "teacher, k-hop fetch", "teacher, PyG k-hop", "teacher, whole graph"
TORCH, MLP = "student, torch", "plain MLP, torch"

_POOL = 64
"""Different batches that take turns, so that no figure is that of one lucky request in the cache."""
_POOL_ROWS = 4096
SCHEMA = 1


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


def bench_bundle(
    bundle: Path | Predictor,
    *,
    batches: Sequence[int] = (1, 64, 4096),
    threads: int = 1,
    seconds: float = 2.0,
    against: TeacherRun | None = None,
) -> list[Row]:
    """Measure a bundle at several batch sizes, `seconds` per row; `against` adds rows of the run it came from.

    Without a run the requests are the bundle's own sample, repeated as needed; with one they are test nodes.

    Raises:
        ConfigError: a batch size, threads or seconds is out of range.
        BundleError: the bundle is damaged, or was not exported from `against`.
        RunError: `against` has no teacher.
    """
    if not batches or min(batches) < 1 or threads < 1 or not seconds > 0:
        raise ConfigError(
            "bench needs batch sizes and threads of at least 1 and seconds above 0 "
            f"(got {list(batches)}, {threads}, {seconds})"
        )
    predictor = bundle if isinstance(bundle, Predictor) else Predictor(bundle, threads=threads)
    if against is None:
        return _rows(predictor, None, batches, threads, seconds)
    if predictor.manifest.fingerprints.get("run") != against.fingerprint:
        raise BundleError(
            f"{predictor.bundle.path} was not exported from {against.path}: comparing them would mean nothing. "
            "Give the run it came from."
        )
    from graph2mlp.latency_teacher import Opponents  # torch is optional here
    from graph2mlp.threads import torch_threads

    with torch_threads(threads):
        return _rows(predictor, Opponents(against), batches, threads, seconds)


def _rows(
    predictor: Predictor, opponents: Opponents | None, batches: Sequence[int], threads: int, seconds: float
) -> list[Row]:
    rows: list[Row] = []
    requests = opponents.requests if opponents is not None else _sample_requests(predictor)
    for batch in batches:
        pool = _pool(len(requests), batch)
        calls = _bundle_calls(predictor, requests, pool)
        if opponents is not None:
            # One pass over the whole graph costs the same for any batch.
            calls |= opponents.calls(pool, whole=batch == batches[0])
        found = measure_together(calls, seconds=seconds)
        teacher = found.get(FETCH)
        for what, latency in found.items():
            facts = _facts(predictor)
            if opponents is not None and what not in (RUN_ONLY, ANSWER):
                facts = opponents.facts(what)
            rows.append(_row(what, batch, threads, latency, teacher, facts))
    return rows


def _bundle_calls(predictor: Predictor, requests: Requests, pool: Sequence[np.ndarray]) -> dict[str, Sequence[Call]]:
    parts = [requests.take(rows).trim() for rows in pool]
    arrays = [
        {n: a for n in ("x", "indices", "values", "neighbors") if (a := getattr(p, n)) is not None} for p in parts
    ]
    return {
        RUN_ONLY: [predictor.prepare(part) for part in parts],
        ANSWER: [partial(predictor.predict, **one) for one in arrays],
    }


def _sample_requests(predictor: Predictor) -> Requests:
    sample = predictor.bundle.sample()
    missing = [spec.name for spec in predictor.manifest.inputs if spec.name not in sample]
    if missing or not len(sample[predictor.manifest.inputs[0].name]):
        raise BundleError(f"{predictor.bundle.path}: sample.npz holds no requests. Export it again.")
    return Requests(**{spec.name: sample[spec.name] for spec in predictor.manifest.inputs})


def _pool(available: int, batch: int) -> list[np.ndarray]:
    """Positions of the requests of each batch: all requests in a fixed random order, repeated as needed."""
    count = max(1, min(_POOL, _POOL_ROWS // batch))
    order = np.random.default_rng(0).permutation(available)
    return list(np.resize(order, (count, batch)))


def _facts(predictor: Predictor) -> dict[str, Any]:
    manifest = predictor.manifest
    size = sum(manifest.files[name].bytes for name in (MODEL, EXTERNAL_DATA) if name in manifest.files)
    accuracy = manifest.metrics.get("test", manifest.metrics.get("prod"))
    return {"regime": manifest.regime, "size_kb": size / 1024, "accuracy": accuracy}


def _row(
    what: str, batch: int, threads: int, latency: Latency, teacher: Latency | None, facts: Mapping[str, Any]
) -> Row:
    return Row(
        what=what,
        batch=batch,
        threads=threads,
        n=latency.n,
        p50_us=latency.p50_us,
        p95_us=latency.p95_us,
        p99_us=latency.p99_us,
        cpu_us=latency.cpu_us,
        noisy=latency.noisy,
        ratio=teacher.p50_us / latency.p50_us if teacher is not None else None,
        peak_rss_mb=peak_rss_mb(),
        **facts,
    )


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
