"""The timing core, on a clock that does what it is told."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from graph2mlp.errors import ConfigError
from graph2mlp.measure import P99_MIN_SAMPLES, environment, measure, measure_together, peak_rss_mb, rss_mb

ROOT = Path(__file__).resolve().parents[1]


class FakeTime:
    """A clock that stands still except when something is said to take time."""

    def __init__(self) -> None:
        self.now = 0
        self.cpu = 0

    def clock(self) -> int:
        return self.now

    def cpu_clock(self) -> int:
        return self.cpu

    def work(self, wall_us: float, cpu_us: float | None = None) -> None:
        self.now += int(wall_us * 1000)
        self.cpu += int((wall_us if cpu_us is None else cpu_us) * 1000)


def test_percentiles_of_known_times() -> None:
    fake, times = FakeTime(), np.random.default_rng(0).permutation(np.arange(1, 1001))
    following = iter(times.tolist())
    found = measure(
        lambda: fake.work(next(following)),
        seconds=float(times.sum()) / 1e6,
        warmup=0,
        clock=fake.clock,
        cpu_clock=fake.cpu_clock,
    )
    assert found.n == 1000
    assert found.p50_us == 500.5
    assert found.p95_us == pytest.approx(950.05)
    assert found.p99_us == pytest.approx(990.01)
    assert (found.min_us, found.mean_us) == (1, 500.5)
    assert found.cpu_us == pytest.approx(500.5)


def test_no_p99_from_few_samples() -> None:
    """The 99th percentile of 100 samples is one sample; people would read it as a promise."""
    for count, there in ((P99_MIN_SAMPLES - 1, False), (P99_MIN_SAMPLES, True)):
        fake = FakeTime()
        found = measure(
            lambda fake=fake: fake.work(100), seconds=count * 1e-4, warmup=0, clock=fake.clock, cpu_clock=fake.cpu_clock
        )
        assert found.n == count
        assert (found.p99_us is not None) is there


def test_slow_calls_still_get_their_samples() -> None:
    """A call longer than the time given must not end with one sample, or none."""
    fake = FakeTime()
    found = measure(
        lambda: fake.work(5e6), seconds=1, warmup=50, min_samples=7, clock=fake.clock, cpu_clock=fake.cpu_clock
    )
    assert found.n == 7
    # Warm-up ended after one call: fifty would have taken minutes.
    assert fake.now == 8 * 5_000_000_000


def test_warm_up_is_not_counted() -> None:
    fake, calls = FakeTime(), iter([1000.0] * 3 + [1.0] * 1_000_000)
    found = measure(lambda: fake.work(next(calls)), seconds=0.1, warmup=3, clock=fake.clock, cpu_clock=fake.cpu_clock)
    assert found.mean_us == 1


def test_noise_is_noticed() -> None:
    """Wall time that was not ours belongs to the neighbours, and the row must say so."""
    for cpu, noisy in ((100, False), (80, True)):
        fake = FakeTime()
        found = measure(
            lambda fake=fake, cpu=cpu: fake.work(100, cpu), seconds=0.01, clock=fake.clock, cpu_clock=fake.cpu_clock
        )
        assert found.noisy is noisy
        assert found.wall_per_cpu == pytest.approx(100 / cpu)


def test_things_compared_take_turns() -> None:
    """A machine that slows down half-way must slow down both sides, or the ratio is an artefact."""
    fake, order = FakeTime(), []

    def call(name: str, us: float) -> None:
        if not order or order[-1] != name:
            order.append(name)
        fake.work(us * (1 if fake.now < 2.1e8 else 3))

    calls = {"a": lambda: call("a", 100), "b": lambda: call("b", 200)}
    found = measure_together(calls, seconds=0.2, rounds=20, warmup=0, clock=fake.clock, cpu_clock=fake.cpu_clock)
    assert order == ["a", "b"] * 20
    assert found["b"].mean_us / found["a"].mean_us == pytest.approx(2, rel=0.1)


def test_a_sequence_of_calls_goes_round() -> None:
    """The same request again and again would sit in the cache; real ones do not."""
    fake, seen = FakeTime(), []

    def ask(which: str) -> None:
        seen.append(which)
        fake.work(1000)

    calls = [partial(ask, which) for which in "abc"]
    found = measure(calls, seconds=0.006, warmup=1, clock=fake.clock, cpu_clock=fake.cpu_clock, min_samples=1)
    assert "".join(seen) == "abcabca"
    assert found.n == 6


def test_blocks_keep_their_own_medians() -> None:
    """A significance test needs the blocks: single samples of one block are not independent of each other."""
    fake, times = FakeTime(), iter([10.0] * 4 + [30.0] * 4 + [20.0] * 4)
    found = measure_together(
        {"a": lambda: fake.work(next(times))},
        seconds=1e-9,
        rounds=3,
        min_samples=12,
        warmup=0,
        clock=fake.clock,
        cpu_clock=fake.cpu_clock,
    )["a"]
    assert found.block_p50_us == (10, 30, 20)
    assert found.p90_us == 30


def test_spread_compares_a_call_with_itself() -> None:
    """Requests differ by nature; only the same request taking longer says that the machine is unstable."""
    fake = FakeTime()
    calls = [partial(fake.work, 100), partial(fake.work, 900)]
    how = {"seconds": 0.1, "warmup": 1, "clock": fake.clock, "cpu_clock": fake.cpu_clock}
    steady = measure(calls, **how)
    assert steady.spread == 0
    assert not steady.unstable
    slower = iter([100.0] * 20 + [130.0] * 10_000)
    shaky = measure(lambda: fake.work(next(slower)), **how)
    assert shaky.spread == pytest.approx(0.3)
    assert shaky.unstable
    assert measure(calls, **{**how, "seconds": 1e-4, "min_samples": 4}).spread is None


def test_a_failing_thing_leaves_the_others_their_rows() -> None:
    """One broken contender must not cost the minutes that the others were measured for."""
    fake, left = FakeTime(), iter(range(7))

    def breaks() -> None:
        fake.work(100)
        if next(left) == 6:
            raise ValueError("gone")

    calls = {"good": lambda: fake.work(100), "bad": breaks}
    how = {"seconds": 1e-3, "warmup": 2, "clock": fake.clock, "cpu_clock": fake.cpu_clock}
    failures: dict[str, Exception] = {}
    found = measure_together(calls, failures=failures, **how)
    assert list(found) == ["good"]
    assert found["good"].n == 20
    assert str(failures["bad"]) == "gone"
    left = iter(range(7))
    with pytest.raises(ValueError, match="gone"):
        measure_together(calls, **how)


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"rounds": 0}, {"min_samples": 0}, {"warmup": -1}])
def test_settings_out_of_range(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="A measurement needs"):
        measure_together({"a": lambda: None}, **wrong)


def test_a_real_measurement_is_plausible() -> None:
    found = measure(lambda: sum(range(1000)), seconds=0.05)
    assert 0 < found.min_us <= found.p50_us <= found.p95_us
    assert 0 < found.cpu_us < 10_000


def test_environment_and_memory() -> None:
    found = environment()
    assert {"cpu", "cores", "governor", "os", "python", "numpy", "onnxruntime"} <= found.keys()
    assert all(isinstance(value, str) and value for value in found.values())
    peak, now = peak_rss_mb(), rss_mb()
    assert peak is None or 10 < peak < 100_000
    assert now is None or peak is None or 10 < now <= peak


def test_torch_is_not_imported() -> None:
    """The bench runs on devices that have none."""
    code = "import sys, graph2mlp.measure, graph2mlp.latency.bench; assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=ROOT)
