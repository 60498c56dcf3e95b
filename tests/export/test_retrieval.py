"""A student with a bank exports on the same path: same answers, few operators, the bank in the file once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from graph2mlp.errors import ParityError
from graph2mlp.export.bundle import MODEL
from graph2mlp.export.deploy import export_run
from graph2mlp.export.runtime import Predictor
from graph2mlp.export.to_onnx import to_onnx
from graph2mlp.export.verify import check_parity
from graph2mlp.students.retrieval import RetrievalSpec, RetrievalStudent

SPEC = RetrievalSpec(
    features=20, classes=4, hidden=8, bank_rows=400, bank_width=30, neighbours=3, guess_hidden=16
)  # fmt: skip


def random_retrieval(**changed: Any) -> RetrievalStudent:
    torch.manual_seed(0)
    student = RetrievalStudent(replace(SPEC, **changed)).eval()
    student.bank.normal_()
    with torch.no_grad():
        student.guess_scale.fill_(-0.7)  # type: ignore[union-attr]
        student.context_scale.fill_(0.9)  # type: ignore[union-attr]
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 3)
    return student


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("changed", [{}, {"layers": 3, "norm": "batch"}], ids=["plain", "deep with norms"])
def test_file_equals_the_student(sparse: bool, changed: dict[str, Any], make_requests) -> None:
    """At batch sizes 1, 7 and 256, with context and guess far from negligible."""
    student = random_retrieval(**changed)
    model = to_onnx(student, None, sparse=sparse).files[MODEL]
    assert isinstance(model, bytes)
    requests = make_requests(300, sparse=sparse)
    assert check_parity(student, None, model, requests).max_abs < 1e-5
    other = random_retrieval(**changed)
    other.bank.neg_()
    with pytest.raises(ParityError):
        check_parity(other, None, model, requests)


def test_operators_and_size() -> None:
    """At batch 1 each operator costs; and a second, transposed copy of the bank would double a bundle."""
    counts = {}
    for sparse in (False, True):
        found = to_onnx(random_retrieval(), None, sparse=sparse)
        counts[sparse] = found.operators
        model = found.files[MODEL]
        assert isinstance(model, bytes)
        assert SPEC.bank_rows * SPEC.bank_width * 4 < len(model) < 1.5 * SPEC.bank_rows * SPEC.bank_width * 4
    assert {"TopK", "Softmax", "Gather", "MatMul"} <= set(counts[False])
    assert "Transpose" not in counts[True]
    assert (len(counts[False]), len(counts[True])) <= (17, 21), counts


def test_ties_go_to_the_lower_id() -> None:
    """In torch and in onnxruntime: a bank with each row twice, of which K = 1 reads one."""
    student = random_retrieval(neighbours=1)
    student.bank[200:] = student.bank[:200]
    student.mlp.structure.weight.data[:30].mul_(5)  # type: ignore[union-attr]
    model = to_onnx(student, None, sparse=False).files[MODEL]
    x = np.random.default_rng(0).normal(size=(9, 20)).astype(np.float32)
    got = ort.InferenceSession(model).run(["logits"], {"x": x})[0]
    from graph2mlp.students.base import StudentInput

    with torch.no_grad():
        want = student(StudentInput(torch.from_numpy(x))).logits.numpy()
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_bundle_names_its_bank(sparse: bool, make_run, tmp_path) -> None:
    """The run is a stand-in; sample, accuracy and manifest are made as for any student."""
    run = make_run(sparse=sparse, structure=False)
    student = random_retrieval()
    run.student = lambda: student
    summary = export_run(run, out=tmp_path / "bundle")
    predictor = Predictor(tmp_path / "bundle")
    assert predictor.manifest.student.constants == {"bank": (400, 30)}
    assert predictor.manifest.regime == "features"
    assert predictor.self_check().max_abs < 1e-5
    assert summary.metrics == pytest.approx(summary.torch_metrics)


@pytest.mark.parametrize("preset", ["int8", "int8-static", "int8-weight", "int4-weight", "fp16"])
def test_every_preset_rounds_the_bank(preset: str, make_run, tmp_path) -> None:
    """The bank is searched by a product without a bias, and its answer is added to something computed: both once
    stopped every integer preset. Searched and read in few bits, the bank must not stay behind in float32.
    """
    run = make_run(sparse=False, structure=False)
    student = random_retrieval()
    run.student = lambda: student
    for name in ("fp32", preset):
        export_run(run, out=tmp_path / name, preset=name, max_drop=100)
    whole, small = (Predictor(tmp_path / name) for name in ("fp32", preset))
    assert small.self_check().requests
    assert {(one.name, one.form) for one in small.manifest.quantized} >= {
        ("student.bank", "float16" if preset == "fp16" else "int8-rows")
    }
    assert small.bundle.size < 0.75 * whole.bundle.size
    x = whole.bundle.sample()["x"]
    # Rounding may choose another row of the bank; most requests keep theirs.
    apart = np.abs(whole.predict(x=x).probabilities - small.predict(x=x).probabilities).max(1)
    assert np.median(apart) < 0.05


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_without_onnxruntime(sparse: bool, make_run, tmp_path) -> None:
    """A device without onnxruntime was told to export with fp32 what had been exported with fp32."""
    run = make_run(sparse=sparse, structure=False)
    student = random_retrieval()
    run.student = lambda: student
    export_run(run, out=tmp_path / "bundle")
    assert Predictor(tmp_path / "bundle", engine="numpy").self_check().max_abs < 1e-5


def test_requests_that_rounding_decides_are_not_in_the_sample(make_run, tmp_path) -> None:
    """On another processor they may be answered otherwise; the self-check of a correct bundle would fail there."""
    run = make_run(sparse=False, structure=False)
    student = random_retrieval(neighbours=1)
    graph = run.graph()
    with torch.no_grad():
        from graph2mlp.students.base import StudentInput

        student.bank.mul_(0.1)
        wanted = student.guess(StudentInput(graph.features(torch.tensor([12]))))
        # Two rows far along one request's guess, equal but for the last bits: that request cannot choose.
        student.bank[5], student.bank[6] = 5 * wanted[0], 5 * wanted[0] * (1 + 1e-7)
        undecided = student.undecided(StudentInput(graph.features()))
    run.student = lambda: student
    export_run(run, out=tmp_path / "bundle")
    ids = Predictor(tmp_path / "bundle").bundle.sample()["ids"]
    assert bool(undecided[12])
    assert 12 not in ids
    assert set(ids) == {node for node in range(10, 30) if not undecided[node]}
