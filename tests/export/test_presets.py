"""Each preset's file answers like the network it came from, or is refused with nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graph2mlp.errors import BundleError, ConfigError, ParityError
from graph2mlp.export import candidate as candidates
from graph2mlp.export.bundle import open_bundle, write_bundle
from graph2mlp.export.candidate import Prepared, build_candidate, prepare
from graph2mlp.export.deploy import export_run
from graph2mlp.export.evidence import measure_gate
from graph2mlp.export.manifest import BundleManifest
from graph2mlp.export.presets import PRESETS
from graph2mlp.export.requests import Requests
from graph2mlp.export.runtime import Predictor
from tests.export.trained import spoil_quantizer, trained_run

ROUNDING = [name for name, preset in PRESETS.items() if not preset.exact]
FORMS = {"dense": {}, "sparse": {"sparse": True, "structure": True}, "structure": {"structure": True}}


@cache
def run_of(form: str) -> Any:
    return trained_run(**FORMS[form])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Bundles by form and preset, each made once; the network of a form is exported once for all its presets."""
    folder = tmp_path_factory.mktemp("presets")

    @cache
    def prepared(form: str) -> Prepared:
        scratch = folder / f"scratch-{form}"
        scratch.mkdir()
        return prepare(run_of(form), "auto", scratch)

    def get(form: str, preset: str) -> Path:
        path = folder / f"{form}-{preset}"
        if not path.exists():
            candidate = build_candidate(prepared(form), PRESETS[preset], 0.02, where=path)
            write_bundle(path, candidate.manifest, candidate.files)
        return path

    return get


@pytest.mark.parametrize("preset", ROUNDING)
@pytest.mark.parametrize("form", FORMS)
def test_round_trip(exported, form: str, preset: str) -> None:
    """Open, self-check, predict: a preset whose operators onnxruntime does not know, or that mixes up the table's
    padding, its scales or its layers, answers at random here."""
    predictor = Predictor(exported(form, preset))
    check, manifest = predictor.self_check(), predictor.manifest
    assert check.requests == 300
    assert check.network_accuracy is not None
    assert manifest.preset == preset
    assert manifest.gate is not None
    assert manifest.gate.network > 0.6  # a student that learned nothing would lose nothing
    assert manifest.gate.drop <= 0.02
    assert manifest.gate.agreement > 0.95
    assert manifest.gate.total_variation < 0.03
    assert manifest.quantized


@pytest.mark.parametrize("form", FORMS)
def test_files_are_smaller(exported, form: str) -> None:
    """A quarter and half of the bytes are what the user trades digits for."""
    sizes = {preset: len(open_bundle(exported(form, preset)).read("model.onnx")) for preset in PRESETS}
    assert sizes["fp16"] < 0.55 * sizes["fp32"]
    for preset in ("int8", "int8-static", "int8-weight"):
        assert sizes[preset] < 0.42 * sizes["fp32"], preset
    assert sizes["int4-weight"] < sizes["int8-weight"]


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "int8"])
def test_answer_does_not_depend_on_the_batch(exported, preset: str) -> None:
    """Only dynamic rounding may look at the other requests; one huge request must leave its neighbours alone."""
    predictor = Predictor(exported("structure", preset))
    sample = predictor.bundle.sample()
    x, neighbors = sample["x"][:8].copy(), sample["neighbors"][:8]
    alone = predictor.predict(x=x[:1], neighbors=neighbors[:1]).logits
    x[1:] *= 50
    np.testing.assert_allclose(predictor.predict(x=x, neighbors=neighbors).logits[:1], alone, atol=1e-4)


@pytest.mark.parametrize("preset", ROUNDING)
@pytest.mark.parametrize("form", ["sparse", "structure"])
def test_padding_and_cold_starts(exported, form: str, preset: str) -> None:
    """Padding weighs 2^-40; rounded like any other number it would be nothing, and a cold start 0 / 0."""
    whole, rounded = (Predictor(exported(form, one)) for one in ("fp32", preset))
    x = run_of(form).graph().x.to_dense()[:3].numpy()
    for neighbors in ([[-1], [-1], [-1]], [[3, 4, -1], [0, -1, -1], [7, 8, 9]]):
        expected, got = (one.predict(x=x, neighbors=neighbors).probabilities for one in (whole, rounded))
        assert np.abs(expected - got).max() < 0.15
        wide = np.pad(neighbors, ((0, 0), (0, 300)), constant_values=-1)
        np.testing.assert_allclose(rounded.predict(x=x, neighbors=wide).probabilities, got, atol=0.02)


@pytest.mark.parametrize("form", FORMS)
def test_sample_holds_the_answers_of_the_file(exported, form: str) -> None:
    """A device checks what the file said where it was made; torch's answers stay beside them to show the loss."""
    exact, rounded = (open_bundle(exported(form, preset)) for preset in ("fp32", "int8"))
    sample = rounded.sample()
    np.testing.assert_array_equal(sample["network_logits"], exact.sample()["logits"])
    inputs = {spec.name: sample[spec.name] for spec in rounded.manifest.inputs}
    np.testing.assert_array_equal(Predictor(rounded).predict(Requests(**inputs)).logits, sample["logits"])
    parity = rounded.manifest.parity
    same = (sample["logits"].argmax(1) == sample["network_logits"].argmax(1)).mean()
    assert parity["agreement"] == pytest.approx(float(same))
    assert parity["max_total_variation"] > 0
    assert "max_total_variation" not in exact.manifest.parity
    assert "network_logits" not in exact.sample()


def test_self_check_fails_where_rounding_goes_wrong(exported, tmp_path: Path) -> None:
    """A processor may round one number the other way; one that multiplies wrongly must not pass for that."""
    import io

    bundle = open_bundle(exported("dense", "int8"))
    sample = bundle.sample()
    noise = np.random.default_rng(0).normal(size=sample["logits"].shape).astype(np.float32)
    flat = {"logits": sample["logits"] * 0.9}  # the same labels, other probabilities
    cases = [({"logits": sample["logits"] + 1e-3 * noise}, None), (flat, "total variation")]
    cases += [
        ({"logits": sample["logits"] + 2 * noise}, "same class as those at export"),
        ({"network_logits": noise[:, :1]}, "length"),
    ]
    for change, message in cases:
        buffer = io.BytesIO()
        np.savez(buffer, **{**sample, **change})
        files = {"model.onnx": bundle.read("model.onnx"), "sample.npz": buffer.getvalue()}
        write_bundle(tmp_path / "other", bundle.manifest, files)
        if message is None:
            Predictor(tmp_path / "other").self_check()
        else:
            with pytest.raises(BundleError, match=message):
                Predictor(tmp_path / "other").self_check()


def test_gate_by_hand(exported) -> None:
    """The gate decides what may be deployed: its four figures, recomputed from the file and from torch."""
    run, predictor = run_of("dense"), Predictor(exported("dense", "int4-weight"))
    graph, gate = run.graph(), predictor.manifest.gate
    from graph2mlp.students.base import StudentInput

    val = graph.split.val
    with torch.no_grad():
        network = run.student()(StudentInput(graph.x[val])).logits
    answer = predictor.predict(x=graph.x[val].numpy())
    y = graph.y[val].numpy()
    assert gate is not None
    assert gate.accuracy == pytest.approx((answer.labels == y).mean())
    assert gate.network == pytest.approx((network.argmax(1).numpy() == y).mean())
    assert gate.agreement == pytest.approx((answer.labels == network.argmax(1).numpy()).mean())
    distance = np.abs(answer.probabilities - network.softmax(1).numpy()).sum(1).mean() / 2
    assert gate.total_variation == pytest.approx(distance, rel=1e-3)


def test_gate_reads_no_test_label(exported) -> None:
    """A preset chosen on test labels would flatter the figure it is reported with."""
    run, predictor = run_of("dense"), Predictor(exported("dense", "int8"))
    graph, student = run.graph(), run.student()
    y = graph.y.clone()
    y[graph.split.test] = 0
    before, after = (measure_gate(predictor, student, None, g, 0.0) for g in (graph, replace(graph, y=y)))
    assert before == after


@pytest.mark.parametrize("drop", [0, 0.5])
def test_a_file_that_loses_too_much_is_refused(tmp_path: Path, monkeypatch, drop: float) -> None:
    """One line with both figures, and nothing on disk, not even the folder."""
    spoil_quantizer(monkeypatch, "int8")
    with pytest.raises(BundleError, match=r"Preset 'int8' loses \d+\.\d\d points of validation accuracy") as caught:
        export_run(run_of("dense"), out=tmp_path / "a" / "out", preset="int8", max_drop=drop)
    assert "\n" not in str(caught.value)
    assert f"{drop:.2f} allowed" in str(caught.value)
    assert not list(tmp_path.iterdir())
    export_run(run_of("dense"), out=tmp_path / "out", preset="int8", max_drop=100)
    assert open_bundle(tmp_path / "out").manifest.gate.drop > 0.05


@pytest.mark.parametrize("wrong", [{"max_drop": -1}, {"max_drop": float("nan")}, {"max_drop": 101}, {"batches": [0]}])
def test_numbers_out_of_range(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """NaN compares false with everything: as a limit it would let every file through."""
    with pytest.raises(ConfigError, match="--max-drop|--batch"):
        export_run(run_of("dense"), out=tmp_path / "out", preset="int8", **wrong)


def test_summary_says_when_rounding_does_not_pay(tmp_path: Path, monkeypatch) -> None:
    """A user who asked for int8 must not have to find out alone that it is slower."""
    from graph2mlp.export import deploy

    for ratio, expected in ((0.7, "too small for int8 to pay"), (1.5, "1.50 at batch 1")):
        monkeypatch.setattr(deploy, "_speed", lambda *a, ratio=ratio: {1: ratio, 64: ratio})
        text = export_run(run_of("dense"), out=tmp_path / "out", preset="int8", force=True, max_drop=2).summary()
        assert expected in text


def test_bundles_from_before_there_were_presets_open(exported, tmp_path: Path) -> None:
    """A field deployed last month has no gate and no list of tensors, and its sample one set of answers."""
    bundle = open_bundle(exported("dense", "fp32"))
    value = json.loads(bundle.manifest.to_json())
    del value["gate"], value["quantized"]
    old = BundleManifest.from_json(json.dumps(value).encode(), where="old")
    write_bundle(tmp_path / "old", old, {name: bundle.read(name) for name in ("model.onnx", "sample.npz")})
    text = json.loads((tmp_path / "old" / "bundle.json").read_text())
    del text["gate"], text["quantized"]
    (tmp_path / "old" / "bundle.json").write_text(json.dumps(text))
    assert Predictor(tmp_path / "old").self_check().network_accuracy is None
    assert Predictor(tmp_path / "old").manifest.gate is None


def test_manifest_keeps_gate_and_tensors(exported) -> None:
    """What `inspect` shows comes from the file, so it must survive being written and read."""
    manifest = open_bundle(exported("sparse", "int4-weight")).manifest
    assert BundleManifest.from_json(manifest.to_json().encode(), where="here") == manifest
    forms = {one.name: one.form for one in manifest.quantized}
    assert forms["feature_rows"] == forms["structure_rows"] == "int8-rows"
    assert "int4-blocks" in forms.values()
    assert all(one.bytes < 4 * np.prod(one.shape) for one in manifest.quantized)


def test_fp32_still_fails_on_parity(monkeypatch, tmp_path: Path) -> None:
    """The gate tolerates half a point; the exact preset tolerates nothing beyond rounding."""
    to_onnx, other = candidates.to_onnx, trained_run(noise=1.0)
    monkeypatch.setattr(candidates, "to_onnx", lambda student, table, **how: to_onnx(other.student(), table, **how))
    with pytest.raises(ParityError):
        export_run(run_of("dense"), out=tmp_path / "out", max_drop=100)
    assert not list(tmp_path.iterdir())


def test_cora(data_root: Path, tmp_path: Path) -> None:
    """A real graph: bag-of-words features, a real structure table, unseen nodes; the default gate, a short training."""
    from graph2mlp.config import resolve_config
    from graph2mlp.console import Reporter
    from graph2mlp.distill import distill

    short = ["train.epochs=30", "teacher.epochs=40", "nosmog.adversarial=0"]
    config = resolve_config(
        graph="cpf:cora", method="nosmog", setting="production", root=str(data_root), overrides=short
    )
    run = distill(config, tmp_path / "run", reporter=Reporter(quiet=True))
    prepared = prepare(run, "auto", tmp_path)
    sizes = {}
    for name in ("fp32", "int8", "fp16"):
        candidate = build_candidate(prepared, PRESETS[name], 0.005, where=tmp_path / name)
        write_bundle(tmp_path / name, candidate.manifest, candidate.files)
        predictor = Predictor(tmp_path / name)
        assert predictor.self_check().requests == 500
        assert predictor.manifest.gate is not None
        assert predictor.manifest.gate.network > 0.6
        assert predictor.manifest.gate.agreement > 0.98
        sizes[name] = len(predictor.bundle.read("model.onnx"))
    assert sizes["int8"] < 0.3 * sizes["fp32"]
    assert sizes["fp16"] < 0.52 * sizes["fp32"]
