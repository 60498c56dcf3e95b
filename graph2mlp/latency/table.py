"""`BenchTable`: contenders side by side, each checked first and then timed in turns with the others. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.energy import find_energy
from graph2mlp.errors import Graph2MLPError, RunError
from graph2mlp.export.requests import Ints, Requests
from graph2mlp.export.runtime import Predictor
from graph2mlp.latency.cold import cold_start
from graph2mlp.latency.contender import Contender, bundle_contenders, sample_requests
from graph2mlp.latency.rows import FETCH, TORCH, About, Bench, Failure, Row, ServerRow
from graph2mlp.latency.server import MAX_BATCH, Search, Server, highest_rate
from graph2mlp.measure import Latency, measure_together, peak_rss_mb
from graph2mlp.tasks import CLASSIFICATION, Task

if TYPE_CHECKING:
    from graph2mlp.latency.teacher import Opponents, TeacherRun

__all__ = ["BenchTable"]

_POOL = 64
"""Different batches that take turns, so that no figure is that of one lucky request in the cache."""
_POOL_ROWS = 4096
_ROUNDS = 20
"""Blocks per row: enough medians for a significance test."""
_CHECKED = 5000
"""Most requests answered to measure accuracy, in batches of `_CHECK_BATCH`."""
_CHECK_BATCH = 256


@dataclass(kw_only=True)
class BenchTable:
    """The contenders of one bench, the requests they answer, and what went wrong."""

    threads: int
    seconds: float
    cold_starts: int
    contenders: list[Contender] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    requests: Requests | None = None
    """Of the run; without one each bundle answers its own sample."""
    count: int = 0
    y: NDArray[Any] | None = None
    kind: Task = CLASSIFICATION
    teacher_labels: NDArray[Any] | None = None

    def add_run(self, opponents: Opponents, run: TeacherRun) -> None:
        """Teacher and torch student; from now on everyone answers the run's test nodes."""
        self.requests, self.y, self.count = opponents.requests, opponents.y, len(opponents.requests)
        self.kind = opponents.kind
        with self.guard(FETCH):
            for contender in opponents.teachers():
                self._add(contender, run.path, "teacher" if contender.about.what == FETCH else None)
        with self.guard(TORCH):
            for contender in opponents.students():
                self._add(contender, run.path, "student" if contender.about.what == TORCH else None)

    def add_bundles(self, bundles: Mapping[str, Predictor]) -> None:
        """Bundles by the label that tells each from the others; they answer the run's requests, else their samples."""
        own = {label: self.requests or sample_requests(bundle)[0] for label, bundle in bundles.items()}
        if self.requests is None:
            self.count = min(map(len, own.values()))
        for label, bundle in bundles.items():
            with self.guard(f"bundle {label}".strip()):
                pair = bundle_contenders(bundle, own[label], label)
                cold = self._cold("bundle", bundle.bundle.path, pair[1].about)
                for contender in pair:
                    self._add(replace(contender, about=replace(contender.about, **cold)), bundle.bundle.path, None)

    def measured(self, batches: Sequence[int], slo_p99_us: float | None) -> Bench:
        """Time everyone that was added."""
        bench = Bench(rows=[row for batch in batches for row in self._rows(batch, first=batch == batches[0])])
        if slo_p99_us is not None:
            bench.server.extend(self._server(slo_p99_us))
        bench.failed.extend(self.failed)
        return bench

    def _add(self, contender: Contender, path: Path, cold: str | None) -> None:
        """Check what a contender answers before it is timed."""
        with self.guard(contender.about.what):
            about = contender.about
            if cold is not None:
                about = replace(about, **self._cold(cold, path, about))
            if self.y is not None:
                answered = self._answers(contender)
                if about.what == FETCH:
                    self.teacher_labels = answered
                about = replace(about, **self._scores(answered, about))
            self.contenders.append(replace(contender, about=about))

    def _answers(self, contender: Contender) -> NDArray[Any]:
        rows = np.random.default_rng(0).permutation(self.count)[:_CHECKED]
        if contender.any_batch:
            return contender.labels(rows)
        return np.concatenate([contender.labels(rows[i : i + _CHECK_BATCH]) for i in range(0, len(rows), _CHECK_BATCH)])

    def _scores(self, answered: NDArray[Any], about: About) -> dict[str, Any]:
        assert self.y is not None
        y = self.y[np.random.default_rng(0).permutation(self.count)[:_CHECKED]]
        known, teacher = self.kind.known(y), self.teacher_labels
        return {
            "accuracy": self.kind.score(answered, y) if known.any() else None,
            "accuracy_n": int(known.sum()),
            "agreement": None if teacher is None else self.kind.agreement(answered, teacher),
        }

    def _cold(self, kind: str, path: Path, about: About) -> dict[str, Any]:
        if not self.cold_starts:
            return {}
        try:
            # The teacher's process loads torch and the graph, seconds of work: once says enough.
            found = cold_start(kind, path, threads=self.threads, times=self.cold_starts if kind == "bundle" else 1)
        except RunError as error:
            self.failed.append(Failure(what=about.what, scenario="cold start", batch=None, reason=str(error)))
            return {}
        return {"cold_start_ms": found.milliseconds, "rss_mb": found.rss_mb}

    def _rows(self, batch: int, *, first: bool) -> list[Row]:
        scenario = "single" if batch == 1 else "batch"
        pool = _pool(self.count, batch)
        calls, who = {}, {}
        for contender in self.contenders:
            if first or not contender.any_batch:
                with self.guard(contender.about.what, scenario, batch):
                    calls[contender.about.what] = [contender.prepare(rows) for rows in pool]
                    who[contender.about.what] = contender.about
        errors: dict[str, Exception] = {}
        found = measure_together(calls, seconds=self.seconds, rounds=_ROUNDS, energy=find_energy(), failures=errors)
        for what, error in errors.items():
            self.failed.append(Failure(what=what, scenario=scenario, batch=batch, reason=_reason(error)))
        base = next(iter(found), "")
        return [
            _row(who[what], scenario, batch, self.threads, latency, found[base], base)
            for what, latency in found.items()
        ]

    def _server(self, slo_us: float) -> list[ServerRow]:
        found: list[tuple[About, Search]] = []
        for contender in self.contenders:
            if contender.serve is None:
                continue
            with self.guard(contender.about.what, "server"):
                serve = contender.serve
                singles = [_single(serve, rows) for rows in _pool(self.count, 1)]
                one = measure_together({"": singles}, seconds=self.seconds / 10)[""]
                server = Server(serve=serve, requests=self.count)
                about = {"single_us": one.p50_us, "fastest_us": one.min_us}
                found.append((contender.about, highest_rate(server, slo_us=slo_us, seconds=self.seconds / 4, **about)))
        base = found[0] if found else None
        return [_server_row(about, search, slo_us, self.threads, base) for about, search in found]

    @contextmanager
    def guard(self, what: str, scenario: str = "answers", batch: int | None = None) -> Iterator[None]:
        """An error inside ends one row, which is then listed as failed, and not the table."""
        try:
            yield
        except Exception as error:
            self.failed.append(Failure(what=what, scenario=scenario, batch=batch, reason=_reason(error)))


def _pool(available: int, batch: int) -> list[Ints]:
    """Positions of the requests of each batch: all requests in a fixed random order, repeated as needed."""
    count = max(1, min(_POOL, _POOL_ROWS // batch))
    order = np.random.default_rng(0).permutation(available)
    return list(np.resize(order, (count, batch)))


def _single(serve: Callable[[Ints], object], rows: Ints) -> Callable[[], object]:
    return lambda: serve(rows)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, Graph2MLPError) else f"{type(error).__name__}: {text[:300]}"


def _row(about: About, scenario: str, batch: int, threads: int, latency: Latency, base: Latency, name: str) -> Row:
    return Row(
        **asdict(about),
        scenario=scenario,
        batch=batch,
        threads=threads,
        n=latency.n,
        p50_us=latency.p50_us,
        p90_us=latency.p90_us,
        p95_us=latency.p95_us,
        p99_us=latency.p99_us,
        mean_us=latency.mean_us,
        cpu_us=latency.cpu_us,
        requests_per_s=1e6 * batch / latency.mean_us,
        noisy=latency.noisy,
        unstable=latency.unstable,
        spread=latency.spread,
        ratio=base.p50_us / latency.p50_us,
        ratio_to=name,
        energy_uj=latency.energy_uj,
        peak_rss_mb=peak_rss_mb(),
        block_p50_us=latency.block_p50_us,
    )


def _server_row(
    about: About, search: Search, slo_us: float, threads: int, base: tuple[About, Search] | None
) -> ServerRow:
    shown = search.best or search.last
    first = base[1].best if base is not None else None
    return ServerRow(
        **asdict(about),
        slo_p99_us=slo_us,
        max_batch=MAX_BATCH,
        threads=threads,
        valid=search.best is not None,
        rate=search.best.rate if search.best else None,
        rate_failed=search.rate_failed,
        n=shown.n if shown else 0,
        p50_us=shown.p50_us if shown else None,
        p90_us=shown.p90_us if shown else None,
        p95_us=shown.p95_us if shown else None,
        p99_us=shown.p99_us if shown else None,
        mean_batch=shown.mean_batch if shown else None,
        noisy=shown.disturbed if shown else False,
        ratio=search.best.rate / first.rate if search.best and first else None,
        ratio_to=base[0].what if base is not None else "",
    )
