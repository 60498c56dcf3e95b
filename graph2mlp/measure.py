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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle
from pathlib import Path

import numpy as np

from graph2mlp.errors import ConfigError

__all__ = ["P99_MIN_SAMPLES", "Call", "Latency", "environment", "measure", "measure_together", "peak_rss_mb"]

P99_MIN_SAMPLES = 662
"""Fewest samples from which a 99th percentile can be stated with 99 % confidence (MLPerf's early-stopping rule)."""

Clock = Callable[[], int]
Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Time per call in microseconds, over `n` calls."""

    n: int
    p50_us: float
    p95_us: float
    p99_us: float | None
    """None below 662 samples: a guess would look like a fact."""
    mean_us: float
    min_us: float
    cpu_us: float
    """CPU time of the whole process per call, over all its threads."""

    @property
    def wall_per_cpu(self) -> float:
        """Mean wall time divided by CPU time: about 1 for one undisturbed thread, more when the machine was busy."""
        return self.mean_us / self.cpu_us if self.cpu_us else float("nan")

    @property
    def noisy(self) -> bool:
        """Whether others used the machine during the run: more than a tenth of the wall time was not ours."""
        return self.wall_per_cpu > 1.1


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
) -> dict[str, Latency]:
    """Time several things in turns, A B A B ..., so that a change of the machine's speed meets all of them.

    Each gets `seconds` in all, in `rounds` blocks. A thing may be a sequence of calls that follow one another, such as
    the same question about different data. Warm-up ends early after a tenth of `seconds`.

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
    samples = {name: array("q") for name in calls}
    cpu = dict.fromkeys(calls, 0)
    turns = {name: cycle([call] if callable(call) else call) for name, call in calls.items()}
    for turn in turns.values():
        _warm(turn, warmup, int(seconds * 1e8), clock)
    for _ in range(rounds):
        for name, turn in turns.items():
            before = cpu_clock()
            _block(turn, samples[name], block, per_block, clock)
            cpu[name] += cpu_clock() - before
    return {name: _latency(samples[name], cpu[name]) for name in calls}


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


def peak_rss_mb() -> float | None:
    """The most memory this process has held at once, in MB; None where the system does not say."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):  # unlike ru_maxrss, not inherited from the process that started this one
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def _warm(turn: Iterator[Call], times: int, limit_ns: int, clock: Clock) -> None:
    end = clock() + limit_ns
    for _ in range(times):
        next(turn)()
        if clock() >= end:
            break


def _block(turn: Iterator[Call], samples: array[int], length_ns: int, least: int, clock: Clock) -> None:
    end = clock() + length_ns
    least += len(samples)
    append = samples.append
    now = clock()
    while now < end or len(samples) < least:
        call = next(turn)  # whose turn it is, is not part of what is timed
        start = clock()
        call()
        now = clock()
        append(now - start)


def _latency(samples: array[int], cpu_ns: int) -> Latency:
    us = np.frombuffer(samples, dtype=np.int64) / 1000
    p50, p95, p99 = np.percentile(us, [50, 95, 99])
    return Latency(
        n=len(us),
        p50_us=float(p50),
        p95_us=float(p95),
        p99_us=float(p99) if len(us) >= P99_MIN_SAMPLES else None,
        mean_us=float(us.mean()),
        min_us=float(us.min()),
        cpu_us=cpu_ns / 1000 / len(us),
    )


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
