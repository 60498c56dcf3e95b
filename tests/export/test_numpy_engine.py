"""The engine for devices without onnxruntime: same file, same answers, and a clear word where it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graph2mlp.errors import BundleError, ConfigError
from graph2mlp.export.bundle import open_bundle
from graph2mlp.export.numpy_engine import NumpyEngine, UnsupportedModelError
from graph2mlp.export.ort_engine import OnnxruntimeEngine
from graph2mlp.export.requests import Requests
from graph2mlp.export.runtime import Predictor
from graph2mlp.export.to_onnx import to_onnx
from graph2mlp.export.verify import check_parity, student_logits

ROOT = Path(__file__).resolve().parents[2]

WITHOUT_ONNXRUNTIME = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"onnxruntime", "onnx", "torch", "scipy"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
from graph2mlp.errors import MissingExtraError
from graph2mlp.export.predict import predict_file
from graph2mlp.export.runtime import Predictor, main
from graph2mlp.latency.bench import bench_bundle
from pathlib import Path

assert main([sys.argv[1]]) == 0
print(Predictor(sys.argv[1]).engine_name)
try:
    Predictor(sys.argv[1], engine="onnxruntime")
except MissingExtraError as error:
    print(error)
Path("in.csv").write_text("id,indices,values,neighbors\\na,0 3,1 0.5,1 2\\n")
print(predict_file(sys.argv[1], Path("in.csv")).summary())
print(len(bench_bundle(Path(sys.argv[1]), batches=[1], seconds=0.02)))
"""


def test_device_without_onnxruntime(bundles, tmp_path: Path) -> None:
    """One import of onnxruntime on this path, and the device it is not built for has nothing."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ONNXRUNTIME, str(bundles("sparse"))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "ok, 20 requests agree" in lines[0]
    assert lines[1] == "numpy"
    assert "pip install onnxruntime, or use engine='numpy'" in lines[2]
    assert "1 requests answered" in lines[3]


@pytest.mark.parametrize("kind", ["sparse", "dense", "features", "zip"])
@pytest.mark.parametrize("count", [0, 1, 64, 700])
def test_same_answers_as_onnxruntime(bundles, make_requests, kind: str, count: int) -> None:
    """Two engines of one file may differ in the order of summation, nothing else."""
    requests = make_requests(count, sparse=kind == "sparse", seed=count)
    ours, theirs = (Predictor(bundles(kind), engine=engine) for engine in ("numpy", "onnxruntime"))
    assert (ours.engine_name, theirs.engine_name) == ("numpy", "onnxruntime")
    a, b = ours.predict(requests), theirs.predict(requests)
    np.testing.assert_allclose(a.logits, b.logits, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-5)
    if count:
        prepared = ours.prepare(requests)
        prepared()
        np.testing.assert_array_equal(prepared.logits, a.logits)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("layers", [2, 4])
def test_students_of_every_norm(make_table, make_requests, norm: str, layers: int) -> None:
    """Layer normalisation is an operator of its own in the file; the others are folded away."""
    from tests.export.conftest import random_student

    student = random_student(layers=layers, norm=norm)  # type: ignore[arg-type]
    model = to_onnx(student, make_table(), sparse=True)
    content = model.files["model.onnx"]
    assert isinstance(content, bytes)
    requests = make_requests(30, sparse=True)
    parity = check_parity(student, make_table(), content, requests)
    assert parity.engines == ("onnxruntime", "numpy")
    engine = NumpyEngine(content, where="here")
    feeds = {"indices": requests.indices, "values": requests.values, "neighbors": requests.neighbors}
    logits, _ = engine.run(feeds)
    np.testing.assert_allclose(logits, student_logits(student, make_table(), requests), atol=1e-5)


def test_parity_asks_numpy_too(make_student, make_table, make_requests, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third opinion must be able to say no."""
    from graph2mlp.errors import ParityError

    model = to_onnx(make_student(), make_table(), sparse=True).files["model.onnx"]
    monkeypatch.setitem(__import__("graph2mlp.export.numpy_engine").export.numpy_engine.OPERATORS, "Relu", _wrong_relu)
    with pytest.raises(ParityError, match="in numpy"):
        check_parity(make_student(), make_table(), model, make_requests(30, sparse=True))


def _wrong_relu() -> Any:
    return lambda x: np.maximum(x, np.float32(0.01))


def test_weights_beside_the_model_are_mapped(make_student, make_table, tmp_path: Path) -> None:
    """A table of gigabytes must not be read into memory to answer one request."""
    model = to_onnx(make_student(), make_table(), sparse=False, scratch=tmp_path, external_from=1)
    requests = Requests(x=np.ones((2, 20)), neighbors=np.array([[1], [2]]))
    data = model.files["model.onnx.data"]
    content = Path(model.files["model.onnx"]).read_bytes()  # type: ignore[arg-type]
    engine = NumpyEngine(content, where="here", data=data)  # type: ignore[arg-type]
    mapped = [value for value in engine._values if value is not None and isinstance(value.base, np.memmap)]
    assert max(value.size for value in mapped) == 31 * 9  # the folded table
    logits, _ = engine.run({"x": requests.x, "neighbors": requests.neighbors})
    np.testing.assert_allclose(logits, student_logits(make_student(), make_table(), requests), atol=1e-5)
    with pytest.raises(BundleError, match="lie in another file"):
        NumpyEngine(content, where="here")
    data.write_bytes(data.read_bytes()[:-1])  # type: ignore[union-attr]
    with pytest.raises(BundleError, match="end behind the file"):
        NumpyEngine(content, where="here", data=data)  # type: ignore[arg-type]


def model_of(
    operator: str, arrays: list[np.ndarray], *, outputs: int = 1, opset: int = 20, domain: str = "", **settings: Any
) -> bytes:
    """One operator; its first input is the input of the model, the others are constants."""
    names = ["in", *(f"c{i}" for i in range(1, len(arrays)))]
    node = helper.make_node(operator, names, [f"out{i}" for i in range(outputs)], domain=domain, **settings)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("in", helper.np_dtype_to_tensor_dtype(arrays[0].dtype), arrays[0].shape)],
        [helper.make_empty_tensor_value_info(f"out{i}") for i in range(outputs)],
        [numpy_helper.from_array(array, name) for array, name in zip(arrays[1:], names[1:], strict=True)],
    )
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return bytes(model.SerializeToString())


X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
IDS = np.array([[0, -1], [2, 1]])
CASES: list[tuple[str, list[np.ndarray], dict[str, Any]]] = [
    ("Add", [X, X[:1]], {}),
    ("Cast", [X], {"to": TensorProto.FLOAT16}),
    ("Cast", [IDS], {"to": TensorProto.FLOAT}),
    ("Clip", [X, np.float32(-0.5), np.float32(0.5)], {}),
    ("Concat", [X, X], {"axis": 1}),
    ("Div", [X, X + 5], {}),
    ("Equal", [IDS, np.array([[1]])], {}),
    ("Exp", [X], {}),
    ("Gather", [X, IDS], {}),
    ("Gather", [X, IDS], {"axis": 1}),
    ("Gemm", [X, X], {"transB": 1}),
    ("Gemm", [X, X.T.copy(), X[:, 0].copy()], {"alpha": 0.5, "beta": 2.0}),
    ("Gemm", [X, X, X[0]], {"transA": 1}),
    ("Greater", [X, X[:1]], {}),
    ("GreaterOrEqual", [IDS, np.array([[1]])], {}),
    ("Identity", [X], {}),
    ("LayerNormalization", [X, X[0], X[1]], {"epsilon": 1e-3}),
    ("LayerNormalization", [X, X[0]], {}),
    ("Less", [X, X[:1]], {}),
    ("MatMul", [np.stack([X, X]), X.T.copy()], {}),
    ("Max", [X, X[:1], X[1:2]], {}),
    ("Mul", [X, X[:1]], {}),
    ("Not", [X > 0], {}),
    ("ReduceMean", [X, np.array([1])], {"keepdims": 0}),
    ("ReduceMean", [X], {}),
    ("ReduceSum", [X, np.array([-1])], {}),
    ("ReduceSum", [X, np.array([0, 1])], {"keepdims": 0}),
    ("ReduceSum", [X], {"noop_with_empty_axes": 1}),
    ("Relu", [X], {}),
    ("Reshape", [X, np.array([0, 2, -1])], {}),
    ("Sigmoid", [X], {}),
    ("Softmax", [X], {"axis": 0}),
    ("Softmax", [X], {}),
    ("Split", [X, np.array([3, 1])], {"axis": -1}),
    ("Split", [X, np.array([1, 2])], {"axis": 0}),
    ("Sqrt", [np.abs(X)], {}),
    ("Squeeze", [X[:, None], np.array([1])], {}),
    ("Squeeze", [X[:, None]], {}),
    ("Sub", [X, X[:1]], {}),
    ("Tanh", [X], {}),
    ("TopK", [X, np.array([2])], {}),
    ("TopK", [X, np.array([4])], {"axis": -1}),
    ("TopK", [np.float32([[1, 3, 1, 3, 1], [0, 1, 2, 3, 4], [2, 2, 2, 2, 2]]), np.array([3])], {}),
    ("Transpose", [X], {}),
    ("Transpose", [np.stack([X, X])], {"perm": [2, 0, 1]}),
    ("Unsqueeze", [X, np.array([1])], {}),
    ("Unsqueeze", [X, np.array([0, -1])], {}),
    ("Where", [X > 0, X, X * 2], {}),
]


@pytest.mark.parametrize(("operator", "arrays", "settings"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_operators_mean_what_they_mean_in_onnxruntime(
    operator: str, arrays: list[np.ndarray], settings: dict[str, Any]
) -> None:
    """An operator that is subtly different would be right for our students of today and wrong for the next."""
    content = model_of(operator, arrays, outputs=2 if operator in ("Split", "TopK") else 1, **settings)
    ours = NumpyEngine(content, where="here").run({"in": arrays[0]})
    theirs = OnnxruntimeEngine(content, where="here", threads=1).run({"in": arrays[0]})
    for a, b in zip(ours, theirs, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_every_operator_has_a_case() -> None:
    """A new line in the table without a case would be held against nothing."""
    from graph2mlp.export.numpy_operators import OPERATORS

    assert {case[0] for case in CASES} == set(OPERATORS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (model_of("Softplus", [X]), "cannot run the operator 'Softplus'. Install onnxruntime"),
        (model_of("Gelu", [X], domain="com.microsoft"), "'com.microsoft.Gelu'"),
        (model_of("Softmax", [X], opset=12), "opsets 13 to 24, the model has 12"),
        (model_of("TopK", [X, np.array([2])], outputs=2, largest=0), "of 'TopK'"),
        (model_of("Cast", [X], to=TensorProto.DOUBLE), r"settings \['to'\] of 'Cast'"),
    ],
)
def test_what_numpy_cannot_run_is_named(content: bytes, message: str) -> None:
    """Quantised presets use operators that are not worth having twice; the user must learn which way out there is."""
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        NumpyEngine(content, where="here")
    assert "\n" not in str(caught.value)


def test_shapes_that_do_not_fit_are_refused(bundles) -> None:
    """A damaged model must not end in numpy's own error."""
    engine = NumpyEngine(model_of("Add", [X, np.ones((5, 5), np.float32)]), where="here")
    with pytest.raises(BundleError, match="fails in numpy"):
        engine.run({"in": X})
    with pytest.raises(BundleError, match="fails in onnxruntime|refuses the model"):
        OnnxruntimeEngine(model_of("Add", [X, np.ones((5, 5), np.float32)]), where="here", threads=1).run({"in": X})


@pytest.mark.parametrize("cut", [0, 1, 10, 0.5, -1])
def test_cut_off_models(bundles, cut: float) -> None:
    """Half a file must not be half a network."""
    content = open_bundle(bundles("sparse")).read("model.onnx")
    length = int(cut * len(content)) if isinstance(cut, float) else cut
    with pytest.raises(BundleError, match="cannot be read without onnxruntime"):
        NumpyEngine(content[:length], where="here")


def test_constant_with_too_few_bytes() -> None:
    """Its shape says one thing, its bytes another: neither may be believed."""
    model = onnx.load_from_string(model_of("Add", [X, X]))
    model.graph.initializer[0].dims[0] = 2**40
    with pytest.raises(BundleError, match="bytes, expected"):
        NumpyEngine(model.SerializeToString(), where="here")


def test_unknown_engine(bundles) -> None:
    """A typing error must not quietly become the default."""
    with pytest.raises(ConfigError, match="engine must be one of auto, onnxruntime, numpy"):
        Predictor(bundles("sparse"), engine="numpi")


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_eight_threads_get_the_same_answers(bundles, make_requests, engine: str) -> None:
    """One object and many threads: nothing a call writes may be seen by another."""
    predictor = Predictor(bundles("sparse"), engine=engine)
    parts = [make_requests(1 + 90 * seed, sparse=True, seed=seed) for seed in range(8)]
    expected = [predictor.predict(part).logits for part in parts]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            if not np.array_equal(predictor.predict(parts[number]).logits, expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
