"""The one timing core: percentiles of single calls, CPU beside wall time, things compared in one run. No torch.

Wall time on a shared machine contains other people's work; CPU time does not. Every figure therefore comes with both:
where they differ, the machine was busy and the wall figure is not the program's.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graph2mlp.energy import Energy
from graph2mlp.errors import ConfigError

__all__ = [
    "P99_MIN_SAMPLES",
    "Call",
    "Clock",
    "Latency",
    "environment",
    "measure",
    "measure_together",
    "peak_rss_mb",
    "rss_mb",
]

P99_MIN_SAMPLES = 662
"""Fewest samples from which a 99th percentile can be stated with 99 % confidence (MLPerf's early-stopping rule)."""

Clock = Callable[[], int]
Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Time per call in microseconds, over `n` calls."""

    n: int
    p50_us: float
    p90_us: float
    p95_us: float
    p99_us: float | None
    """None below 662 samples: a guess would look like a fact."""
    mean_us: float
    min_us: float
    cpu_us: float
    """CPU time of the whole process per call, over all its threads."""
    spread: float | None
    """How far the middle repetition of a call lies above its fastest one, as a fraction (the median over the different
    calls). Different calls differ by nature, so each is compared with itself; None below 5 repetitions."""
    block_p50_us: tuple[float, ...]
    """The median of each block in which the thing had its turn: what a significance test needs."""
    energy_uj: float | None = None
    """Energy of the processor package per call, other people's work included; None where it cannot be read."""

    @property
    def wall_per_cpu(self) -> float:
        """Mean wall time divided by CPU time: about 1 for one undisturbed thread, more when the machine was busy."""
        return self.mean_us / self.cpu_us if self.cpu_us else float("nan")

    @property
    def noisy(self) -> bool:
        """Whether others used the machine during the run: more than a tenth of the wall time was not ours."""
        return self.wall_per_cpu > 1.1

    @property
    def unstable(self) -> bool:
        """Whether the same call took over a fifth longer in the middle than at best: clock speed, caches, others."""
        return self.spread is not None and self.spread > 0.2


def measure(
    call: Call | Sequence[Call],
    *,
    seconds: float = 2.0,
    warmup: int = 50,
    min_samples: int = 20,
    clock: Clock = time.perf_counter_ns,
    cpu_clock: Clock = time.process_time_ns,
) -> Latency:
    """Time `call` for `seconds`, and at least `min_samples` times, after `warmup` calls.

    A sample contains one reading of the clock, about 0.05 us; it is not subtracted.
    """
    calls = {"": call}
    return measure_together(
        calls, seconds=seconds, warmup=warmup, min_samples=min_samples, rounds=1, clock=clock, cpu_clock=cpu_clock
    )[""]


def measure_together(
    calls: Mapping[str, Call | Sequence[Call]],
    *,
    seconds: float = 2.0,
    warmup: int = 50,
    min_samples: int = 20,
    rounds: int = 5,
    clock: Clock = time.perf_counter_ns,
    cpu_clock: Clock = time.process_time_ns,
    energy: Energy | None = None,
    failures: dict[str, Exception] | None = None,
) -> dict[str, Latency]:
    """Time several things in turns, A B A B ..., so that a change of the machine's speed meets all of them.

    Each gets `seconds` in all, in `rounds` blocks. A thing may be a sequence of calls that follow one another, such as
    the same question about different data. Warm-up ends early after a tenth of `seconds`.

    With `failures`, a thing that raises drops out, its error is put there, and the others go on.

    Raises:
        ConfigError: a number is out of range.
    """
    if not seconds > 0 or rounds < 1 or min_samples < 1 or warmup < 0:
        raise ConfigError(
            "A measurement needs seconds > 0, rounds >= 1, min_samples >= 1 and warmup >= 0 "
            f"(got {seconds}, {rounds}, {min_samples}, {warmup})"
        )
    block = int(seconds * 1e9 / rounds)
    per_block = -(-min_samples // rounds)
    running = {name: _Series(call) for name, call in calls.items()}
    for step in range(-1, rounds):
        for name, series in list(running.items()):
            try:
                if step < 0:
                    series.warm(warmup, int(seconds * 1e8), clock)
                else:
                    series.block(block, per_block, clock, cpu_clock, energy)
            except Exception as error:  # whatever it is, it belongs to this row and not to the table
                if failures is None:
                    raise
                failures[name] = error
                del running[name]
    return {name: series.latency() for name, series in running.items()}


def environment() -> dict[str, str]:
    """The machine and the versions a figure belongs to."""
    found = {
        "cpu": _cpu_model(),
        "cores": str(os.cpu_count()),
        "governor": _first_line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")) or "not available",
        "os": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    for package in ("onnxruntime", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def rss_mb() -> float | None:
    """The memory this process holds now, in MB; None where the system does not say (it does on Linux)."""
    return _status_mb("VmRSS:")


def peak_rss_mb() -> float | None:
    """The most memory this process has held at once, in MB; None where the system does not say."""
    found = _status_mb("VmHWM:")  # unlike ru_maxrss, not inherited from the process that started this one
    if found is not None:
        return found
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def _status_mb(field: str) -> float | None:
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


class _Series:
    """One thing and what was measured of it so far."""

    def __init__(self, call: Call | Sequence[Call]) -> None:
        calls = [call] if callable(call) else list(call)
        self._turn, self._different = cycle(calls), len(calls)
        self._samples = array("q")
        self._ends: list[int] = []
        self._cpu = 0
        self._energy: float | None = 0.0

    def warm(self, times: int, limit_ns: int, clock: Clock) -> None:
        end = clock() + limit_ns
        for _ in range(times):
            next(self._turn)()
            if clock() >= end:
                break

    def block(self, length_ns: int, least: int, clock: Clock, cpu_clock: Clock, energy: Energy | None) -> None:
        samples, turn = self._samples, self._turn
        used, cpu = energy.read_uj() if energy is not None else None, cpu_clock()
        append, now = samples.append, clock()
        end, least = now + length_ns, least + len(samples)
        while now < end or len(samples) < least:
            call = next(turn)  # whose turn it is, is not part of what is timed
            start = clock()
            call()
            now = clock()
            append(now - start)
        self._cpu += cpu_clock() - cpu
        self._ends.append(len(samples))
        after = energy.since_uj(used) if energy is not None and used is not None else None
        self._energy = None if after is None or self._energy is None else self._energy + after

    def latency(self) -> Latency:
        us = np.frombuffer(self._samples, dtype=np.int64) / 1000
        p50, p90, p95, p99 = np.percentile(us, [50, 90, 95, 99])
        return Latency(
            n=len(us),
            p50_us=float(p50),
            p90_us=float(p90),
            p95_us=float(p95),
            p99_us=float(p99) if len(us) >= P99_MIN_SAMPLES else None,
            mean_us=float(us.mean()),
            min_us=float(us.min()),
            cpu_us=self._cpu / 1000 / len(us),
            spread=_spread(us, self._different),
            block_p50_us=tuple(float(np.median(block)) for block in np.split(us, self._ends[:-1])),
            energy_uj=None if self._energy is None else self._energy / len(us),
        )


def _spread(us: NDArray[np.float64], calls: int) -> float | None:
    # Calls go round and round, so every `calls`-th sample belongs to the same one.
    repetitions = len(us) // calls
    if repetitions < 5:
        return None
    each = us[: repetitions * calls].reshape(repetitions, calls)
    return float(np.median(np.median(each, axis=0) / np.maximum(each.min(axis=0), 1e-3)) - 1)


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
