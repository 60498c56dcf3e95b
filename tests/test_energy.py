"""Energy counters, on made-up files: real ones exist on few machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graph2mlp.energy import Energy, find_energy
from graph2mlp.measure import measure, measure_together


def counters(root: Path, **values: int) -> Path:
    """`intel-rapl:NAME` folders as the kernel shows them, wrapping after 1000 microjoules."""
    for name, value in values.items():
        zone = root / f"intel-rapl:{name.replace('_', ':')}"
        zone.mkdir(exist_ok=True)
        (zone / "energy_uj").write_text(f"{value}\n")
        (zone / "max_energy_range_uj").write_text("999\n")
    return root


def test_packages_are_summed_and_their_parts_are_not(tmp_path: Path) -> None:
    """A core's energy is in its package's already: counting both would double it."""
    zone0, part, zone1 = "a", "a_0", "b"
    energy = find_energy(counters(tmp_path, **{zone0: 100, part: 50, zone1: 900}))
    assert energy is not None
    before = energy.read_uj()
    assert before == (100, 900)
    counters(tmp_path, **{zone0: 130, part: 80, zone1: 20})  # the second one has started again
    assert energy.since_uj(before) == 30 + 120


def test_unreadable_is_not_available(tmp_path: Path) -> None:
    """Most systems let only the administrator read them; a guess in their place would be a lie."""
    assert find_energy(tmp_path) is None
    assert find_energy(tmp_path / "absent") is None
    (counters(tmp_path, a=5) / "intel-rapl:a" / "energy_uj").write_text("")
    assert find_energy(tmp_path) is None


def test_energy_per_call(tmp_path: Path) -> None:
    """The figure is per call, and vanishes when the counter does half-way."""
    energy = find_energy(counters(tmp_path, a=0))
    assert energy is not None
    used = iter(range(10_000))
    now = iter(range(0, 10**9, 1_000_000))

    def call() -> None:
        counters(tmp_path, a=7 * next(used) % 1000)

    found = measure_with(call, energy, now)
    assert found == pytest.approx(6.3)  # ten steps of 7, the first from 0 to 0

    def lose() -> None:
        (tmp_path / "intel-rapl:a" / "energy_uj").unlink(missing_ok=True)

    assert measure_with(lose, energy, iter(range(0, 10**9, 1_000_000))) is None


def measure_with(call: Callable[[], object], energy: Energy, now: Iterator[int]) -> float | None:
    """Ten calls in one block."""
    return measure_together(
        {"": call}, seconds=1e-9, rounds=1, min_samples=10, warmup=0, clock=lambda: next(now), energy=energy
    )[""].energy_uj


def test_no_counter_no_figure() -> None:
    """Without counters the row has no energy rather than zero."""
    assert measure(lambda: None, seconds=0.001).energy_uj is None
