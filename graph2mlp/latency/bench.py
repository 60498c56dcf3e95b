"""What bundles cost on this machine, and what the teacher would cost in their place; every side measured in one run.

The bundles' rows need the base install. With a run to compare with, the teacher and the torch student answer the same
nodes, in turns with the bundles (A B A B ...), so that a ratio never mixes two moods of a shared machine.

The teacher is measured four times: with our own exact neighbour fetch, which is as fast as we can make it and which
the ratios refer to; with at most ten sampled neighbours per node, which is not exact; with PyG's `k_hop_subgraph`, as
its users would write it; with one pass over the whole graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graph2mlp.errors import BundleError, ConfigError, Graph2MLPError, RunError
from graph2mlp.export.runtime import Predictor
from graph2mlp.latency.contender import sample_requests
from graph2mlp.latency.rows import Bench, Failure, Row
from graph2mlp.latency.table import BenchTable

if TYPE_CHECKING:
    from graph2mlp.latency.teacher import TeacherRun

__all__ = ["bench_bundle", "bench_bundles"]

Given = Path | Predictor


def bench_bundle(
    bundle: Given,
    *,
    batches: Sequence[int] = (1, 64, 4096),
    threads: int = 1,
    seconds: float = 2.0,
    against: TeacherRun | None = None,
) -> list[Row]:
    """Measure one bundle at several batch sizes, `seconds` per row; `against` adds rows of the run it came from.

    Without a run the requests are the bundle's own sample, repeated as needed; with one they are test nodes.

    Raises:
        ConfigError: a batch size, threads or seconds is out of range.
        BundleError: the bundle is damaged, or was not exported from `against`.
        RunError: a row could not be measured.
    """
    found = bench_bundles([bundle], batches=batches, threads=threads, seconds=seconds, against=against)
    if found.failed:
        raise RunError(f"{found.failed[0].what}: {found.failed[0].reason}")
    return found.rows


def bench_bundles(
    bundles: Sequence[Given],
    *,
    batches: Sequence[int] = (1, 64, 4096),
    threads: int = 1,
    seconds: float = 2.0,
    against: TeacherRun | None = None,
    slo_p99_us: float | None = None,
    cold_starts: int = 0,
) -> Bench:
    """Measure several bundles side by side; what cannot be measured is listed with its reason, and the rest goes on.

    `slo_p99_us` adds the server scenario (see `graph2mlp.latency.server`), `cold_starts` the cost of a fresh process,
    the median of so many. With no `batches`, the server scenario alone.

    Raises:
        ConfigError: a batch size, threads, seconds, promise or number of starts is out of range.
        BundleError: no bundle at all can be measured.
    """
    _check_settings(bundles, batches, threads, seconds, slo_p99_us, cold_starts)
    table = BenchTable(threads=threads, seconds=seconds, cold_starts=cold_starts)
    opened = _open_all(bundles, threads, against, table.failed)
    if against is None:
        table.add_bundles(opened)
        return _something(table.measured(batches, slo_p99_us))
    from graph2mlp.latency.teacher import Opponents  # torch is optional here
    from graph2mlp.threads import torch_threads

    with torch_threads(threads):
        table.add_run(Opponents(against), against)
        table.add_bundles(opened)
        return _something(table.measured(batches, slo_p99_us))


def _check_settings(
    bundles: Sequence[Given],
    batches: Sequence[int],
    threads: int,
    seconds: float,
    slo_p99_us: float | None,
    cold_starts: int,
) -> None:
    if not bundles:
        raise ConfigError("bench needs a bundle to measure (got none)")
    if not batches and slo_p99_us is None:
        raise ConfigError("bench needs batch sizes, or a promise for the server scenario (got neither)")
    if low := [batch for batch in batches if batch < 1]:
        raise ConfigError(f"bench needs batch sizes of at least 1 (got {low[0]})")
    if threads < 1:
        raise ConfigError(f"bench needs threads of at least 1 (got {threads})")
    if not 0 < seconds < math.inf:
        raise ConfigError(f"bench needs seconds above 0, and an end (got {seconds})")
    if slo_p99_us is not None and not 0 < slo_p99_us < math.inf:
        raise ConfigError(f"bench needs a promise (--slo-p99-us) above 0, and an end (got {slo_p99_us})")
    if cold_starts < 0:
        raise ConfigError(f"bench needs cold starts of at least 0 (got {cold_starts})")


def _something(bench: Bench) -> Bench:
    if not bench.rows and not bench.server:
        raise BundleError(f"Nothing could be measured: {bench.failed[0].what}: {bench.failed[0].reason}")
    return bench


def _open_all(
    bundles: Sequence[Given], threads: int, run: TeacherRun | None, failed: list[Failure]
) -> dict[str, Predictor]:
    """The bundles by label; one that is damaged fails its rows, all of them the bench."""
    opened: list[Predictor] = []
    errors: list[Graph2MLPError] = []
    for given in bundles:
        try:
            opened.append(_open(given, threads, run))
        except Graph2MLPError as error:
            errors.append(error)
            failed.append(Failure(what=f"bundle {given}", scenario="open", batch=None, reason=str(error)))
    if not opened:
        raise errors[0]
    return dict(zip(_labels(opened, len(bundles)), opened, strict=True))


def _open(given: Given, threads: int, run: TeacherRun | None) -> Predictor:
    predictor = given if isinstance(given, Predictor) else Predictor(given, threads=threads)
    if run is not None and predictor.manifest.fingerprints.get("run") != run.fingerprint:
        raise BundleError(
            f"{predictor.bundle.path} was not exported from {run.path}: comparing them would mean nothing. "
            "Give the run it came from."
        )
    sample_requests(predictor)  # a bundle without a sample cannot be checked here
    return predictor


def _labels(opened: Sequence[Predictor], given: int) -> list[str]:
    """What tells bundles apart: nothing for the only one, the preset where it differs, else the end of the path."""
    if given == 1:
        return [""]
    presets = [predictor.manifest.preset for predictor in opened]
    paths = [str(Path(*predictor.bundle.path.parts[-2:])) for predictor in opened]
    names = [preset if presets.count(preset) == 1 else path for preset, path in zip(presets, paths, strict=True)]
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1)]
