"""What a bundle costs on this machine, and what the teacher would cost in its place; every side measured in one run.

The bundle's rows need the base install. With a run to compare with, the teacher and the torch student answer the same
nodes, in turns with the bundle (A B A B ...), so that a ratio never mixes two moods of a shared machine.

The teacher is measured three times: with our own exact neighbour fetch, which is as fast as we can make it and which
the ratios refer to; with PyG's `k_hop_subgraph`, as its users would write it; with one pass over the whole graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graph2mlp.errors import BundleError, ConfigError
from graph2mlp.export.bundle import EXTERNAL_DATA, MODEL, ORT_MODEL
from graph2mlp.export.requests import Requests
from graph2mlp.export.runtime import Predictor
from graph2mlp.latency_rows import ANSWER, FETCH, RUN_ONLY, Row
from graph2mlp.measure import Call, Latency, measure_together, peak_rss_mb

if TYPE_CHECKING:
    from graph2mlp.latency_teacher import Opponents, TeacherRun

__all__ = ["bench_bundle"]

_POOL = 64
"""Different batches that take turns, so that no figure is that of one lucky request in the cache."""
_POOL_ROWS = 4096


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
    size = sum(manifest.files[name].bytes for name in (MODEL, ORT_MODEL, EXTERNAL_DATA) if name in manifest.files)
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
