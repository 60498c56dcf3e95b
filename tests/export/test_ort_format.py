"""`.ort`, the form onnxruntime's reduced builds read: same answers to the bit, and refused where it cannot serve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graph2mlp.errors import BundleError
from graph2mlp.export.bundle import open_bundle
from graph2mlp.export.deploy import export_run
from graph2mlp.export.ort_format import to_ort
from graph2mlp.export.runtime import Predictor


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_same_answers_to_the_bit(make_run, make_requests, bundles, tmp_path: Path, name: str) -> None:
    """Only the container differs; another answer would be another network."""
    export_run(make_run(), out=tmp_path / name, model_format="ort")
    bundle = open_bundle(tmp_path / name)
    assert sorted(bundle.contents) == ["model.ort", "sample.npz"]
    predictor = Predictor(bundle)
    predictor.self_check()
    requests = make_requests(300, sparse=True)
    expected = Predictor(bundles("sparse"), engine="onnxruntime").predict(requests)
    np.testing.assert_array_equal(predictor.predict(requests).logits, expected.logits)


def test_numpy_says_that_it_cannot_read_it(make_run, tmp_path: Path) -> None:
    """A device without onnxruntime must learn why, and what to ask for."""
    export_run(make_run(), out=tmp_path / "b", model_format="ort")
    with pytest.raises(BundleError, match="onnxruntime's own format.*export the bundle with --onnx"):
        Predictor(tmp_path / "b", engine="numpy")


def test_damaged_ort_model(make_run, tmp_path: Path) -> None:
    """It is under a checksum like every other file."""
    export_run(make_run(), out=tmp_path / "b", model_format="ort")
    content = bytearray((tmp_path / "b" / "model.ort").read_bytes())
    content[100] ^= 1
    (tmp_path / "b" / "model.ort").write_bytes(content)
    with pytest.raises(BundleError, match="'model.ort' is damaged"):
        open_bundle(tmp_path / "b")


def test_weights_beside_the_model_are_refused(tmp_path: Path) -> None:
    """The format keeps everything in one file in memory, which is what a large table must not be."""
    with pytest.raises(BundleError, match="too large for onnxruntime's own format"):
        to_ort({"model.onnx": tmp_path / "model.onnx", "model.onnx.data": tmp_path / "d"}, tmp_path)
    with pytest.raises(BundleError, match="cannot write its own format"):
        to_ort({"model.onnx": b"not onnx"}, tmp_path)


def test_auto_chooses_among_files_of_this_form(make_run, tmp_path: Path) -> None:
    """Presets were told apart by `model.onnx`, which a bundle of this form does not have."""
    summary = export_run(make_run(), out=tmp_path / "b", preset="auto", model_format="ort", max_drop=100)
    assert summary.choice is not None
    assert all(trial.bytes for trial in summary.choice.trials if trial.passed)
    assert "model.ort" in open_bundle(tmp_path / "b").contents
