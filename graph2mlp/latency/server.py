"""Open-loop load: requests arrive at random, whether or not the server is ready. numpy only.

What is played, in real time and not in a model of it:

1. Arrivals are a Poisson process: the gaps are exponential, drawn with a fixed seed before the clock starts.
2. One thread serves. When it is free it takes everything that has arrived, up to `max_batch` requests, in order of
   arrival; puts the batch together; answers it; and takes the next. Nothing waits for a batch to fill. When nothing has
   arrived it waits in a busy loop, so that waking up costs nothing (as a server with a processor of its own does).
3. A request's latency runs from its *scheduled* arrival to the end of the batch that answers it. A stall therefore
   counts for everyone who arrived while it lasted (no coordinated omission).
4. A rate is VALID if at most 1 % of its requests, of at least 662, are later than the promise, and if the server kept
   up with it: at least once during the last quarter of the requests it left none behind that had arrived. At a rate
   that it cannot bear the queue grows for as long as the attempt lasts, and if the promise is long beside the attempt,
   nobody is late yet when it ends. An attempt ends as soon as too many are late. One that the operating system
   disturbed is repeated, at most twice.
5. The highest valid rate is found by doubling or halving from a first guess and then bisecting to 5 %.

No network, no serialisation, no second thread: it says what the way of answering can bear, not what a web server can.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph2mlp.errors import ConfigError
from graph2mlp.measure import P99_MIN_SAMPLES, Clock

__all__ = ["MAX_BATCH", "Attempt", "Search", "Server", "highest_rate"]

MAX_BATCH = 64
"""Most requests in one batch."""
_RESOLUTION = 1.05
_LEAST_LOAD = 0.01
"""Share of the time spent answering below which a slower rate would change nothing."""
_DISTURBED = 1.02
"""Wall time by CPU time of the serving thread, which never sleeps: more means that it was interrupted."""
_ATTEMPTS = 3
_LAST = 0.25
"""Share of the requests, the last ones, in which the queue must have been empty once."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One rate, played once. Times are microseconds from scheduled arrival to answer, of the requests answered."""

    rate: float
    n: int
    p50_us: float
    p90_us: float
    p95_us: float
    p99_us: float | None
    """None below 662 answers, when the attempt ended early."""
    mean_batch: float
    kept_up: bool
    """Whether the queue was empty once during the last quarter, while requests still arrived."""
    valid: bool
    """Whether it kept up, and at most 1 % were late."""
    disturbed: bool


@dataclass(frozen=True, kw_only=True)
class Search:
    """What the search for the highest rate found."""

    best: Attempt | None
    """The highest rate that kept the promise, None if none did."""
    rate_failed: float | None
    """The lowest rate above it that did not; None if the search reached its limit."""
    last: Attempt | None
    """The last attempt, None if none was worth making."""
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Server:
    """One thread that answers batches; see the top of this module."""

    serve: Callable[[Ints], object]
    """Answers the requests at some positions, `[B]`."""
    requests: int
    """How many different requests there are; they come in a random order, again and again."""
    max_batch: int = MAX_BATCH
    clock: Clock = time.perf_counter_ns
    cpu_clock: Clock = time.thread_time_ns
    wait: Callable[[int], None] | None = None
    """Waits until the clock shows a time; None: a busy loop."""

    def __post_init__(self) -> None:
        if self.requests < 1 or self.max_batch < 1:
            raise ConfigError(
                f"A server needs requests and a batch of at least 1 (got {self.requests}, {self.max_batch})"
            )

    def play(self, rate: float, count: int, slo_us: float, *, seed: int = 0) -> Attempt:
        """`count` requests at `rate` per second; ends early when more than 1 % of them are later than `slo_us`."""
        rng = np.random.default_rng(seed)
        arrivals: Ints = (rng.exponential(1e9 / rate, count).cumsum()).astype(np.int64)
        order = np.resize(rng.permutation(self.requests), count)
        latency, batches, late, done, emptied = np.empty(count, dtype=np.int64), 0, 0, 0, 0
        slo, allowed = int(slo_us * 1000), count // 100
        cpu, start = self.cpu_clock(), self.clock()
        while done < count and late <= allowed:
            self._wait_until(start + int(arrivals[done]))
            # Only what can be in the batch is looked at, and the next one: the queue behind them may be long.
            near = arrivals[done : done + self.max_batch + 1]
            due = int(near.searchsorted(self.clock() - start, "right"))
            end = done + min(max(1, due), self.max_batch)
            # One that has yet to come: after the last arrival any queue gets empty, however long it has grown.
            emptied = end if due < len(near) else emptied
            self.serve(order[done:end])
            latency[done:end] = self.clock() - start - arrivals[done:end]
            late += int(np.count_nonzero(latency[done:end] > slo))
            done, batches = end, batches + 1
        wall, cpu = self.clock() - start, self.cpu_clock() - cpu
        p50, p90, p95, p99 = np.percentile(latency[:done] / 1000, [50, 90, 95, 99])
        kept_up = emptied >= (1 - _LAST) * count
        return Attempt(
            rate=rate,
            n=done,
            p50_us=float(p50),
            p90_us=float(p90),
            p95_us=float(p95),
            p99_us=float(p99) if done >= P99_MIN_SAMPLES else None,
            mean_batch=done / batches,
            kept_up=kept_up,
            valid=kept_up and late <= allowed,
            disturbed=wall > _DISTURBED * cpu,
        )

    def _wait_until(self, due: int) -> None:
        if self.wait is not None:
            self.wait(due)
            return
        clock = self.clock
        while clock() < due:
            pass


def highest_rate(server: Server, *, slo_us: float, seconds: float, single_us: float, fastest_us: float) -> Search:
    """The highest rate that keeps `p99 <= slo_us` with a queue that does not grow.

    An attempt lasts `seconds`, or 662 requests if that is longer. `single_us` is the usual time of a single answer, the
    first guess of the search; `fastest_us` the shortest one seen: when even that breaks the promise, no rate is tried.

    Raises:
        ConfigError: a number is out of range.
    """
    if not (slo_us > 0 and seconds > 0 and single_us > 0 and fastest_us > 0):
        given = f"{slo_us}, {seconds}, {single_us}, {fastest_us}"
        raise ConfigError(f"The server scenario needs times above 0 (got {given})")
    if fastest_us > slo_us:
        return Search(best=None, rate_failed=None, last=None, attempts=0)
    attempts: list[Attempt] = []

    def attempt(rate: float) -> Attempt:
        for seed in range(_ATTEMPTS):
            tried = server.play(rate, max(P99_MIN_SAMPLES, int(rate * seconds)), slo_us, seed=seed)
            attempts.append(tried)
            if tried.valid or not tried.disturbed:
                break
        return tried

    best, failed = _bracket(attempt, 0.5e6 / single_us, _LEAST_LOAD * 1e6 / single_us, 1e9 / fastest_us)
    while best is not None and failed is not None and failed / best.rate > _RESOLUTION:
        tried = attempt(math.sqrt(best.rate * failed))
        if tried.valid:
            best = tried
        else:
            failed = tried.rate
    return Search(best=best, rate_failed=failed, last=attempts[-1], attempts=len(attempts))


def _bracket(
    attempt: Callable[[float], Attempt], first: float, least: float, most: float
) -> tuple[Attempt | None, float | None]:
    """A rate that is valid and the next one tried that is not, a factor of two apart."""
    tried = attempt(first)
    best, failed = (tried, None) if tried.valid else (None, tried.rate)
    rate = first
    while failed is None and rate * 2 <= most:
        rate *= 2
        tried = attempt(rate)
        if tried.valid:
            best = tried
        else:
            failed = rate
    while best is None and rate / 2 >= least:
        rate /= 2
        tried = attempt(rate)
        if tried.valid:
            best = tried
        else:
            failed = rate
    return best, failed
