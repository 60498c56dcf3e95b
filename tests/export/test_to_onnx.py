"""The exported file computes what the network computes, in every form and shape a device may send."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from graph2mlp.errors import BundleError, MethodError, ParityError
from graph2mlp.export.bundle import EXTERNAL_DATA, MODEL
from graph2mlp.export.parity import compare_logits
from graph2mlp.export.to_onnx import to_onnx
from graph2mlp.export.verify import check_parity, student_logits
from graph2mlp.structure.table import StructureTable


def run_bytes(model: bytes, **feeds: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(model).run(["logits"], feeds)[0]


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("structure", [False, True], ids=["features", "structure"])
@pytest.mark.parametrize(("layers", "norm"), [(2, "none"), (3, "batch")])
def test_file_equals_network(make_student, make_table, make_requests, sparse, structure, layers, norm) -> None:
    """Each form is another graph of operators; batch normalisation and the table are folded into the first layer."""
    student = make_student(structure=structure, layers=layers, norm=norm)
    table = make_table() if structure else None
    model = to_onnx(student, table, sparse=sparse).files[MODEL]
    for width in range(1, 6):
        requests = make_requests(300, sparse=sparse, width=width, seed=width)
        parity = check_parity(student, table, model, requests, batch_sizes=(1, 7, 256))
        assert parity.max_abs < 1e-5
        assert parity.ties == 0


def test_number_of_operators(make_student, make_table) -> None:
    """At batch 1 time is the number of operators: a new version of the exporter must not add any unnoticed."""
    for sparse, structure, most in [(True, True, 12), (False, True, 9), (True, False, 8), (False, False, 4)]:
        model = to_onnx(make_student(structure=structure), make_table() if structure else None, sparse=sparse)
        assert len(model.operators) <= most, model.operators


def test_padding_reads_nothing_in_all_three_libraries() -> None:
    """-1 means the last row in ONNX, numpy and torch alike; the tables rely on it to make padding free."""
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(rows[np.array([-1, 0])], rows[[3, 0]])
    np.testing.assert_array_equal(torch.from_numpy(rows)[torch.tensor([-1, 0])].numpy(), rows[[3, 0]])


def test_padding_changes_nothing(make_student, make_table, make_requests) -> None:
    """A request must have one answer, whatever the longest request of its batch is."""
    model = to_onnx(make_student(), make_table(), sparse=True).files[MODEL]
    requests = make_requests(9, sparse=True, width=3)
    plain = {"indices": requests.indices, "values": requests.values, "neighbors": requests.neighbors}
    wide = {name: np.pad(array, ((0, 0), (0, 200)), constant_values=-1) for name, array in plain.items()}
    np.testing.assert_allclose(run_bytes(model, **wide), run_bytes(model, **plain), atol=1e-6)


def test_no_known_neighbour_is_the_cold_start(make_student, make_table) -> None:
    """Unknown neighbours and none at all must give the bias, not a wrong mean: here `0 / 0` would hide."""
    student, table = make_student(), make_table()
    model = to_onnx(student, table, sparse=False).files[MODEL]
    x = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float32)
    neighbors = np.array([[-1, -1, -1], [0, -1, -1], [5, 10, 0]])  # multiples of five are unknown
    cold = np.full((3, 1), -1)
    got, expected = run_bytes(model, x=x, neighbors=neighbors), run_bytes(model, x=x, neighbors=cold)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_hub_with_thousands_of_neighbours(make_student, make_table) -> None:
    """The weight of padding must stay invisible beside many known rows, and sum up where there is none."""
    student, table = make_student(), make_table()
    model = to_onnx(student, table, sparse=False).files[MODEL]
    x = np.zeros((2, 20), np.float32)
    neighbors = np.stack([np.resize(np.arange(30), 5000), np.full(5000, -1)])
    from graph2mlp.export.requests import Requests

    expected = student_logits(student, table, Requests(x=x, neighbors=neighbors))
    compare_logits(expected, run_bytes(model, x=x, neighbors=neighbors))


def test_batch_of_zero(make_student, make_table) -> None:
    """An empty file of requests is not an error."""
    model = to_onnx(make_student(), make_table(), sparse=True).files[MODEL]
    none = np.zeros((0, 1), np.int64)
    assert run_bytes(model, indices=none, values=none.astype(np.float32), neighbors=none).shape == (0, 4)


def test_file_tells_nothing_about_this_machine(make_student, make_table) -> None:
    """The exporter writes stack traces with local paths into the file."""
    content = to_onnx(make_student(), make_table(), sparse=True).files[MODEL]
    assert isinstance(content, bytes)
    for word in (b".py", b"/work", b"site-packages", b"stack_trace"):
        assert word not in content


def test_large_weights_go_beside_the_model(make_student, make_table, make_requests, tmp_path: Path) -> None:
    """A protobuf message ends at 2 GB; the limit is lowered here to see the other way of writing work."""
    student, table = make_student(), make_table()
    model = to_onnx(student, table, sparse=False, scratch=tmp_path, external_from=100)
    assert set(model.files) == {MODEL, EXTERNAL_DATA}
    check_parity(student, table, tmp_path / MODEL, make_requests(20, sparse=False))
    with pytest.raises(BundleError, match="no folder"):
        to_onnx(student, table, sparse=False, external_from=100)


def test_table_of_another_width_is_refused(make_student, make_table) -> None:
    """It would be multiplied with the wrong weights, or fail deep inside the exporter."""
    wrong = StructureTable("other", torch.zeros(30, 9), torch.ones(30, dtype=torch.bool))
    with pytest.raises(MethodError, match="width 5, but the table has width 9"):
        to_onnx(make_student(), wrong, sparse=False)
    with pytest.raises(MethodError, match="width 0"):
        to_onnx(make_student(structure=False), make_table(), sparse=False)


def test_parity_notices_another_network(make_student, make_table, make_requests) -> None:
    """A check that cannot fail proves nothing."""
    table, requests = make_table(), make_requests(8, sparse=False)
    model = to_onnx(make_student(seed=1), table, sparse=False).files[MODEL]
    with pytest.raises(ParityError, match="At batch size 1 the exported file differs"):
        check_parity(make_student(seed=2), table, model, requests)
    other = make_table(seed=5)
    with pytest.raises(ParityError):
        check_parity(make_student(seed=1), other, model, requests)


def test_tolerance_grows_with_large_logits_only() -> None:
    """float32 has 7 digits: at 1000 a difference of 1e-4 is rounding, at 1 it is a mistake."""
    large = np.array([[1000.0, 0.0]])
    assert compare_logits(large, large + np.array([1e-3, 0])).max_abs == pytest.approx(1e-3)
    with pytest.raises(ParityError):
        compare_logits(large, large + np.array([0, 1e-4]))
    with pytest.raises(ParityError, match="not finite"):
        compare_logits(large, large + np.array([np.nan, 0]))
    with pytest.raises(ParityError, match="shape"):
        compare_logits(large, large[:, :1])
    assert compare_logits(np.array([[1.0, 1.0 + 1e-7]]), np.array([[1.0 + 2e-7, 1.0]])).ties == 1
