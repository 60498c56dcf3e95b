"""Quantities are compared in their own units: neither too strictly where they are large, nor at all loosely."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from graph2mlp.errors import BundleError, ParityError
from graph2mlp.export.bundle import SAMPLE, open_bundle, write_bundle
from graph2mlp.export.parity import compare_logits
from graph2mlp.export.runtime import Predictor
from tests.cli import distill, invoke
from tests.graphs import save_npz, task_graph


@pytest.mark.parametrize(("factor", "shift"), [(1e-6, 0.0), (1.0, 0.0), (1e3, 0.0), (1e6, 0.0), (1.0, 1e6)])
def test_any_unit_can_be_exported_and_checked(factor: float, shift: float, tmp_path: Path) -> None:
    """A mean near zero beside a large deviation: the numbers near zero are as inexact as the others. And a file that
    answers zero, or the mean, must not pass because the quantity is small."""
    graph = task_graph("regression")
    y = (graph.y.numpy() - graph.y.numpy().mean(0)) / graph.y.numpy().std(0)
    source = save_npz(graph, tmp_path / "g.npz", y=(factor * y + shift).astype(np.float32), task="regression")
    given = ("--method", "nosmog", "--set", "teacher.epochs=20", "--set", "train.epochs=20")
    done = distill(source, tmp_path / "run", *given, "--set", "teacher.force=true")
    assert done.exit_code == 0, done.output
    done = invoke("export", tmp_path / "run", "--onnx")
    assert done.exit_code == 0, done.output
    bundle = open_bundle(tmp_path / "run" / "bundle")
    sample = bundle.sample()
    spread = (factor * y + shift)[:12].std(0)
    np.testing.assert_allclose(sample["unit"], spread + abs(shift) / 100, rtol=0.1)
    mean = np.broadcast_to(sample["logits"].mean(0), sample["logits"].shape)
    for wrong in (np.zeros_like(mean), mean):
        with pytest.raises(ParityError, match="per unit of its deviation"):
            compare_logits(sample["logits"], wrong, unit=sample["unit"])
    changed = {**sample, "logits": sample["logits"] + 1e-3 * sample["unit"]}
    with pytest.raises(ParityError, match="on this machine differs"):
        Predictor(_with_sample(bundle, tmp_path / "other", changed)).self_check()


def test_a_bundle_with_a_broken_unit_is_refused(tmp_path: Path) -> None:
    """It decides what passes."""
    source = save_npz(task_graph("regression"), tmp_path / "g.npz", task="regression")
    assert distill(source, tmp_path / "run", "--method", "glnn", "--set", "teacher.force=true").exit_code == 0
    assert invoke("export", tmp_path / "run", "--onnx").exit_code == 0
    bundle = open_bundle(tmp_path / "run" / "bundle")
    for number, unit in enumerate(([1.0], [1.0, 0.0], [1.0, np.nan], [1.0, np.inf], ["a", "b"], [[1.0, 1.0]])):
        changed = _with_sample(bundle, tmp_path / str(number), {**bundle.sample(), "unit": np.array(unit)})
        with pytest.raises(BundleError, match="'unit' of sample.npz must hold a positive number per quantity"):
            Predictor(changed).self_check()
    older = {name: array for name, array in bundle.sample().items() if name != "unit"}
    assert Predictor(_with_sample(bundle, tmp_path / "older", older)).self_check().requests > 0


def _with_sample(bundle, target: Path, sample: dict[str, np.ndarray]) -> Path:  # type: ignore[no-untyped-def]
    buffer = io.BytesIO()
    np.savez(buffer, **sample)
    files = {name: bundle.read(name) for name in bundle.contents} | {SAMPLE: buffer.getvalue()}
    write_bundle(target, bundle.manifest, files)
    return target
