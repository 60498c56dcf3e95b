"""`--preset auto`: every preset is a row, the fastest that keeps its accuracy is kept, and the reason is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graph2mlp.export import candidate as candidates
from graph2mlp.export.auto import Choice, choose_preset
from graph2mlp.export.bundle import open_bundle
from graph2mlp.export.candidate import prepare
from graph2mlp.export.deploy import export_run
from graph2mlp.export.presets import PRESETS
from graph2mlp.measure import Latency
from graph2mlp.summary import preset_table
from tests.export.trained import spoil_quantizer, trained_run


def _times(**p50: float) -> Callable[..., dict[int, dict[str, Latency]]]:
    """A measurement with the given outcome, for the presets that reach it."""

    def measure(passed, requests, batches, *, seconds):
        def one(us: float) -> Latency:
            times = {f"{name}_us": us for name in ("p50", "p90", "p95", "mean", "min", "cpu")}
            return Latency(n=9, p99_us=None, spread=None, block_p50_us=(us,), **times)

        return {batch: {name: one(p50.get(name.replace("-", "_"), 50.0)) for name in passed} for batch in batches}

    return measure


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return prepare(trained_run(), "auto", tmp_path_factory.mktemp("scratch"))


def choose(prepared: Any, **p50: float) -> Choice:
    return choose_preset(prepared, 0.02, where=Path("out"), measure=_times(**p50))


def test_auto_keeps_the_fastest(prepared) -> None:
    """The fastest wins, and the line that says so names its figure."""
    choice = choose(prepared, int8=20, int8_static=25)
    assert choice.winner.preset.name == "int8"
    assert choice.reason.startswith("int8 is 2.50 times as fast as fp32")
    assert [trial.preset for trial in choice.trials] == list(PRESETS)
    assert all(trial.passed for trial in choice.trials)


def test_auto_keeps_fp32_unless_there_is_a_reason(prepared) -> None:
    """Noise of two per cent must not decide that digits are thrown away."""
    assert choose(prepared, int8=49).winner.preset.name == "fp32"
    assert "not worth rounding" in choose(prepared, int8=49).reason
    assert "too small for rounding to pay" in choose(prepared, fp32=10).reason


def test_auto_survives_presets_that_fail(prepared, monkeypatch) -> None:
    """The fastest preset is refused by the gate and another crashes: both are rows, and the next one wins."""
    spoil_quantizer(monkeypatch, "int8")
    pack = candidates.quantize

    def crash(model, preset, ranges):
        if preset.name == "int4-weight":
            raise RuntimeError("[ONNXRuntimeError] : no\nsuch operator")
        return pack(model, preset, ranges)

    monkeypatch.setattr(candidates, "quantize", crash)
    choice = choose(prepared, int8=1, int4_weight=1, int8_weight=20)
    assert choice.winner.preset.name == "int8-weight"
    status = {trial.preset: trial.status for trial in choice.trials if not trial.passed}
    assert set(status) == {"int8", "int4-weight"}
    assert "points of validation accuracy" in status["int8"]
    assert status["int4-weight"] == "failed: [ONNXRuntimeError] : no such operator"
    table = preset_table(choice)
    assert table.row_count == len(PRESETS)
    assert "val accuracy" in [column.header for column in table.columns]
    assert "agree: same class as the network; both on validation nodes" in str(table.caption)


def test_auto_measures_and_writes(tmp_path: Path) -> None:
    """From the front: every preset measured for real, one bundle written, and its preset is the one named."""
    summary = export_run(trained_run(sparse=True), out=tmp_path / "out", preset="auto", max_drop=2, batches=(2,))
    assert summary.choice is not None
    assert open_bundle(tmp_path / "out").manifest.preset == summary.preset == summary.choice.winner.preset.name
    assert all(trial.latency[2].p50_us > 0 for trial in summary.choice.trials if trial.passed)
    assert summary.choice.seconds > 0


def test_small_student_has_one_rounded_file(tmp_path: Path) -> None:
    """Layers too small to gain stay float32, so the presets differ in nothing: the table must say so."""
    run = trained_run(structure=True, hidden=16)
    prepared = prepare(run, "auto", tmp_path)
    choice = choose_preset(prepared, 0.02, where=Path("out"), measure=_times(fp32=10))
    status = {trial.preset: trial.status for trial in choice.trials}
    assert status["int8"] == "passed"
    assert {status[name] for name in ("int8-static", "int8-weight", "int4-weight")} == {"same as int8"}
    forms = {one.form for trial in [choice.winner] for one in trial.manifest.quantized}
    assert not forms
