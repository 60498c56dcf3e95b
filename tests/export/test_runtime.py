"""The device's side: numpy and onnxruntime only, every wrong request refused, every right one answered the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graph2mlp.errors import BundleError, ParityError, RequestError
from graph2mlp.export.bundle import open_bundle, write_bundle
from graph2mlp.export.calls import CHUNK
from graph2mlp.export.requests import Requests
from graph2mlp.export.runtime import Predictor, main
from graph2mlp.export.verify import student_logits

ROOT = Path(__file__).resolve().parents[2]

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torch_geometric", "onnx", "onnxscript", "scipy", "safetensors", "pyarrow"}:
            raise ImportError(f"{name} is not on a device")

sys.meta_path.insert(0, Blocker())
from graph2mlp.export.runtime import Predictor
from graph2mlp.latency.bench import bench_bundle
from graph2mlp.export.answers import write_answers
from graph2mlp.export.inputs import read_requests
from pathlib import Path

predictor = Predictor(sys.argv[1])
print(predictor.self_check().summary())
Path("in.csv").write_text("id,indices,values,neighbors\\na,0 3,1 0.5,1 2\\nb,,,\\n")
requests = read_requests(Path("in.csv"), features=20)
write_answers(Path("out.csv"), predictor.predict(requests), predictor.manifest, requests.ids)
print(len(bench_bundle(Path(sys.argv[1]), batches=[1], seconds=0.02)))
assert "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def sparse(bundles) -> Predictor:
    return Predictor(bundles("sparse"))


@pytest.fixture(scope="module")
def dense(bundles) -> Predictor:
    return Predictor(bundles("dense"))


def test_device_without_torch(bundles, tmp_path: Path) -> None:
    """The base install has no torch: one import of it anywhere on this path breaks every device."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BLOCKED, str(bundles("sparse"))]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert ": ok, 20 requests agree" in found.stdout
    assert (tmp_path / "out.csv").read_text().startswith("id,label,probability\na,")


def test_command_line_self_check(bundles, tmp_path: Path, capsys) -> None:
    """Scripts on devices rely on the exit code and on one line."""
    for kind in ("sparse", "dense", "features", "zip"):
        assert main([str(bundles(kind))]) == 0
        out = capsys.readouterr().out
        assert "ok" in out
        assert out.count("\n") == 1
    assert main([str(tmp_path / "nothing")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main([]) == 2


def test_self_check_fails_on_other_answers(bundles, tmp_path: Path) -> None:
    """A bundle whose checksums fit, but whose answers differ on this machine, must not be used."""
    import io

    bundle = open_bundle(bundles("sparse"))
    sample = bundle.sample()
    for change, error in (({"logits": sample["logits"] + 1e-3}, ParityError), ({"y": sample["y"][:3]}, BundleError)):
        buffer = io.BytesIO()
        np.savez(buffer, **{**sample, **change})
        files = {"model.onnx": bundle.read("model.onnx"), "sample.npz": buffer.getvalue()}
        write_bundle(tmp_path / "other", bundle.manifest, files)
        with pytest.raises(error):
            Predictor(tmp_path / "other").self_check()


@pytest.mark.parametrize("content", [b"not onnx", None], ids=["no model", "unknown operator"])
def test_model_that_cannot_run(content: bytes | None, bundles, tmp_path: Path) -> None:
    """Refused by us where it is no ONNX at all, else by onnxruntime; in one line either way."""
    bundle = open_bundle(bundles("sparse"))
    other = bundle.read("model.onnx").replace(b"Gather", b"Father")
    write_bundle(
        tmp_path / "bad", bundle.manifest, {"model.onnx": content or other, "sample.npz": bundle.read("sample.npz")}
    )
    with pytest.raises(BundleError, match="cannot be read" if content else "refuses the model") as caught:
        Predictor(tmp_path / "bad")
    assert "\n" not in str(caught.value)


def test_model_with_other_inputs(bundles, tmp_path: Path) -> None:
    """A manifest from another bundle would feed the wrong arrays."""
    sparse, dense = open_bundle(bundles("sparse")), open_bundle(bundles("dense"))
    files = {name: dense.read(name) for name in ("model.onnx", "sample.npz")}
    write_bundle(tmp_path / "swapped", replace(sparse.manifest, files={}), files)
    with pytest.raises(BundleError, match="inputs and outputs"):
        Predictor(tmp_path / "swapped")


def test_dense_and_sparse_features_serve_every_bundle(sparse, dense, make_requests) -> None:
    """Who has rows of numbers need not know how the bundle was exported."""
    one, other = make_requests(40, sparse=False), make_requests(40, sparse=True)
    for predictor in (sparse, dense):
        a, b = predictor.predict(one), predictor.predict(other)
        np.testing.assert_allclose(a.logits, b.logits, atol=1e-6)
        np.testing.assert_array_equal(a.labels, a.logits.argmax(1))
        np.testing.assert_allclose(a.probabilities.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_large_batches_keep_their_order(sparse, make_run, make_requests, count: int) -> None:
    """Large batches are sorted by length and cut; every answer must come back to its own request."""
    run = make_run()
    requests = make_requests(count, sparse=True, width=6, seed=count)
    expected = student_logits(run.student(), run.structure(), requests)
    np.testing.assert_allclose(sparse.predict(requests).logits, expected, atol=1e-5)
    if count:
        prepared = sparse.prepare(requests)
        for _ in range(2):  # bound buffers must survive repetition
            prepared()
            np.testing.assert_allclose(prepared.logits, expected, atol=1e-5)
        np.testing.assert_allclose(prepared.probabilities.sum(1), 1, atol=1e-6)


def test_padding_may_stand_anywhere(sparse) -> None:
    """Large batches are trimmed; an id behind a padding must not be trimmed away with it."""
    count = CHUNK + 50
    left = {"indices": np.array([[-1, -1, 4]]), "values": np.array([[0, 0, 0.5]]), "neighbors": np.array([[-1, 7, -1]])}
    right = {"indices": np.array([[4]]), "values": np.array([[0.5]]), "neighbors": np.array([[7]])}
    many = Requests(**{name: array.repeat(count, 0) for name, array in left.items()})
    expected = sparse.predict(**right).logits
    np.testing.assert_allclose(sparse.predict(many).logits, expected.repeat(count, 0), atol=1e-6)
    np.testing.assert_allclose(sparse.predict(many.trim().take(slice(0, 2))).logits, expected.repeat(2, 0), atol=1e-6)


def test_requests_without_any_feature(sparse, dense) -> None:
    """An empty document is a request like any other, also when all are empty and no column is left."""
    neighbors = np.array([[1], [2]])
    expected = dense.predict(x=np.zeros((2, 20)), neighbors=neighbors).logits
    for predictor in (sparse, dense):
        for indices in (np.zeros((2, 0), int), np.full((2, 1), -1)):
            found = predictor.predict(indices=indices, neighbors=neighbors).logits
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_prepared_call_owns_its_buffers(sparse, make_requests) -> None:
    """The session writes to bare addresses: were the arrays freed, the process would die, or worse, answer."""
    calls = [sparse.prepare(make_requests(1, sparse=True, seed=seed)) for seed in range(200)]
    expected = [sparse.predict(make_requests(1, sparse=True, seed=seed)).logits for seed in range(200)]
    for call, logits in zip(calls, expected, strict=True):
        call()
        np.testing.assert_array_equal(call.logits, logits)


def test_threads_share_one_predictor(sparse, make_requests) -> None:
    """A server has one object and many threads."""
    parts = [make_requests(50 + 100 * seed, sparse=True, seed=seed) for seed in range(4)]
    expected = [sparse.predict(part).logits for part in parts]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(30):
            if not np.array_equal(sparse.predict(parts[number]).logits, expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("bad", [30, 31, 10**12, 2**63 - 1, -2, -31, -(2**63)])
def test_ids_out_of_range(sparse, bad: int) -> None:
    """ONNX wraps negative ids to rows from the end: an unchecked -2 would silently answer with another node."""
    indices = np.array([[0], [1]])
    with pytest.raises(
        RequestError, match=f"Request 1 has the neighbour id {bad}, but they run from 0 to 29"
    ) as caught:
        sparse.predict(indices=indices, neighbors=np.array([[3, -1], [4, bad]]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [20, -2])
def test_feature_index_out_of_range(sparse, dense, bad: int) -> None:
    for predictor in (sparse, dense):
        with pytest.raises(RequestError, match=f"feature index {bad}, but they run from 0 to 19"):
            predictor.predict(indices=np.array([[bad]]), neighbors=np.array([[0]]))


@pytest.mark.parametrize("width", [1, 19, 21, 0])
def test_wrong_width(sparse, dense, width: int) -> None:
    for predictor in (sparse, dense):
        with pytest.raises(RequestError, match=f"takes 20 features per request, got {width}"):
            predictor.predict(x=np.zeros((2, width)), neighbors=np.array([[0], [1]]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_are_not_finite(sparse, dense, bad: float) -> None:
    """NaN in gives NaN out, and NaN's label is class 0; 1e300 is infinite as float32."""
    x = np.zeros((3, 20))
    x[1, 4] = bad
    for predictor in (sparse, dense):
        with pytest.raises(RequestError, match="request 1 holds .* in column 4"):
            predictor.predict(x=x, neighbors=np.zeros((3, 1), int))
    with pytest.raises(RequestError, match="'values' of request 0"):
        sparse.predict(indices=np.array([[1]]), values=np.array([[bad]]), neighbors=np.array([[0]]))


def test_large_finite_numbers_are_not_refused(dense) -> None:
    """The quick check sums squares, which may overflow although every number is finite."""
    assert len(dense.predict(x=np.full((1, 20), 1e30), neighbors=np.array([[0]]))) == 1


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_answers_that_are_not_finite(bundles, engine: str) -> None:
    """Every number is finite, but their weighted sum is not; the label of NaN would be class 0."""
    for kind, count in (("sparse", 2), ("sparse", CHUNK + 50), ("dense", 2)):  # large batches are put back in order
        indices, values = np.full((count, 64), 4), np.zeros((count, 64))  # an index that comes twice counts twice
        values[count - 1] = 3e38
        with pytest.raises(RequestError, match=f"answer to request {count - 1} is not finite") as caught:
            Predictor(bundles(kind), engine=engine).predict(
                indices=indices, values=values, neighbors=np.zeros((count, 1), int)
            )
        assert "\n" not in str(caught.value)


def test_requests_that_lack_something(sparse, bundles) -> None:
    with pytest.raises(RequestError, match="reads structure, but the requests have no 'neighbors'"):
        sparse.predict(x=np.zeros((1, 20)))
    with pytest.raises(RequestError, match="needs features"):
        sparse.predict(neighbors=np.array([[0]]))
    with pytest.raises(RequestError, match="2 rows of features, but 1 of 'neighbors'"):
        sparse.predict(x=np.zeros((2, 20)), neighbors=np.array([[0]]))
    # A bundle that reads features only may be asked with the same file as one that reads structure.
    assert len(Predictor(bundles("features")).predict(x=np.zeros((1, 20)), neighbors=np.array([[0]]))) == 1


def test_no_neighbours_column_wide_or_empty(sparse) -> None:
    """`[B, 0]` is what numpy makes of empty lists; the file itself would divide by zero."""
    x = np.ones((2, 20))
    empty = sparse.predict(x=x, neighbors=np.zeros((2, 0), int)).logits
    np.testing.assert_array_equal(empty, sparse.predict(x=x, neighbors=np.full((2, 1), -1)).logits)
    assert np.isfinite(empty).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": [[1.0, 2.0], [3.0]]}, "different lengths"),
        ({"x": [1.0, 2.0]}, "two dimensions"),
        ({"x": [["a"]]}, "must hold numbers"),
        ({"x": [[1j]]}, "must hold numbers"),
        ({"x": [[1.0]], "neighbors": [[0.5]]}, "whole numbers"),
        ({"indices": [[1]], "values": [[1.0, 2.0]]}, "shape of 'indices'"),
        ({"x": [[1.0]], "indices": [[1]]}, "given twice"),
        ({"x": [[1.0]], "neighbors": np.array([[2**64 - 1]], np.uint64)}, "'neighbors' .* 18446744073709551615"),
    ],
)
def test_arrays_of_the_wrong_kind(arrays: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Requests(**arrays)


def test_threads_must_be_positive(bundles) -> None:
    for wrong in (0, "2", 1.5, None):
        with pytest.raises(RequestError, match=r"threads must be a whole number of at least 1 \(got "):
            Predictor(bundles("sparse"), threads=wrong)


def test_weights_beside_the_model(make_student, make_table, make_requests, bundles, tmp_path: Path) -> None:
    """The form for tables above 1.5 GB: verified, opened by path, answers the same; a zip of it is refused."""
    from graph2mlp.export.to_onnx import to_onnx

    run_bundle = open_bundle(bundles("dense"))
    model = to_onnx(make_student(), make_table(), sparse=False, scratch=tmp_path, external_from=1)
    files = {**model.files, "sample.npz": run_bundle.read("sample.npz")}
    write_bundle(tmp_path / "large", run_bundle.manifest, files)
    requests = make_requests(10, sparse=False)
    expected = student_logits(make_student(), make_table(), requests)
    np.testing.assert_allclose(Predictor(tmp_path / "large").predict(requests).logits, expected, atol=1e-5)
    content = bytearray((tmp_path / "large" / "model.onnx.data").read_bytes())
    content[100] ^= 1
    (tmp_path / "large" / "model.onnx.data").write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        open_bundle(tmp_path / "large")
    shutil.rmtree(tmp_path / "large")
