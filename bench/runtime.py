"""What the runtime costs beside what the hardware allows: `python -m bench.runtime`.

Students with random weights (times do not depend on them), asked by onnxruntime and by numpy in one interleaved run,
with one thread. Beside them the straight export of the same layers: features and positions in one dense row, one
`Gemm` per layer; it looks no positions up and makes no probabilities, so it does less.

`floor_us` is the time to read every number that a batch needs once, at the rate this machine reads an array of that
size, or to do its multiplications at the rate of a large matrix product, whichever is longer. No CPU program is faster;
what is above it is dispatch of operators and intermediate results.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import GraphProto, TensorProto, helper, numpy_helper

from bench.big_table import write_rows
from graph2mlp.export.ort_engine import OnnxruntimeEngine
from graph2mlp.export.requests import Floats, Requests
from graph2mlp.export.runtime import Predictor
from graph2mlp.measure import Call, measure_together

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A student, its table and its requests: `nonzeros` features of `features` per request, 0 for dense ones."""

    name: str
    features: int
    nonzeros: int
    structure: int
    nodes: int
    layers: int
    hidden: int
    classes: int
    batches: tuple[int, ...]


SHAPES = (
    Shape(
        name="bag of words, 1433 -> 128 -> 7",
        features=1433,
        nonzeros=18,
        structure=64,
        nodes=2485,
        layers=2,
        hidden=128,
        classes=7,
        batches=(1, 64, 2485),
    ),
    Shape(
        name="dense, 500 -> 256 -> 256 -> 40",
        features=500,
        nonzeros=0,
        structure=64,
        nodes=2000,
        layers=3,
        hidden=256,
        classes=40,
        batches=(1, 64),
    ),
)


def main() -> None:
    """Measure every shape, engine and batch size, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--csv", type=Path, default=RESULTS / "runtime.csv")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            bundle = make_bundle(shape, Path(folder) / "bundle")
            engines = {name: Predictor(bundle, engine=name) for name in ("onnxruntime", "numpy")}
            peer = straight_export(shape)
            for batch in shape.batches:
                rows += measure_batch(shape, engines, peer, batch, given.seconds)
    write_rows(given.csv, rows)


def make_bundle(shape: Shape, target: Path) -> Path:
    """A bundle of that shape with random weights, held against torch."""
    from graph2mlp.export.bundle import BundleManifest, StructureInfo, StudentInfo, write_bundle
    from graph2mlp.export.to_onnx import to_onnx
    from graph2mlp.export.verify import check_parity
    from graph2mlp.structure.table import StructureTable
    from graph2mlp.students.base import StudentSpec
    from graph2mlp.students.mlp import MLPStudent

    torch.manual_seed(0)
    spec = StudentSpec(
        features=shape.features,
        structure=shape.structure,
        classes=shape.classes,
        layers=shape.layers,
        hidden=shape.hidden,
    )
    student = MLPStudent(spec).eval()
    table = StructureTable(
        "random", torch.randn(shape.nodes, shape.structure), torch.ones(shape.nodes, dtype=torch.bool)
    )
    model = to_onnx(student, table, sparse=bool(shape.nonzeros))
    check_parity(student, table, model.files["model.onnx"], requests_of(shape, 300))  # type: ignore[arg-type]
    manifest = BundleManifest(
        class_names=tuple(map(str, range(shape.classes))),
        inputs=model.inputs,
        outputs=model.outputs,
        features=shape.features,
        regime="structure",
        preset="fp32",
        student=StudentInfo(layers=shape.layers, hidden=shape.hidden, parameters=student.num_parameters),
        structure=StructureInfo(encoder="random", nodes=shape.nodes, known=shape.nodes),
    )
    write_bundle(target, manifest, {**model.files, "sample.npz": b""})
    return target


def requests_of(shape: Shape, count: int) -> Requests:
    """Known nodes; bag-of-words rows of different lengths, `nonzeros` on average."""
    rng = np.random.default_rng(0)
    neighbors = rng.integers(shape.nodes, size=(count, 1))
    if not shape.nonzeros:
        return Requests(x=rng.normal(size=(count, shape.features)), neighbors=neighbors)
    lengths = np.clip(rng.poisson(shape.nonzeros, count), 1, None)
    lengths[0] = shape.nonzeros
    filled = np.arange(lengths.max()) < lengths[:, None]
    indices = np.where(filled, rng.integers(shape.features, size=filled.shape), -1)
    return Requests(indices=indices, neighbors=neighbors)


def straight_export(shape: Shape) -> OnnxruntimeEngine:
    """What an export of the torch module gives: `x [B, F + S]` through one `Gemm` per layer."""
    rng = np.random.default_rng(0)
    widths = [shape.features + shape.structure, *[shape.hidden] * (shape.layers - 1), shape.classes]
    nodes, weights, name = [], [], "x"
    for layer, (read, written) in enumerate(pairwise(widths)):
        parts = {"weight": (written, read), "bias": (written,)}
        named = {f"{part}{layer}": rng.normal(size=size) / read**0.5 for part, size in parts.items()}
        weights += [numpy_helper.from_array(array.astype(np.float32), key) for key, array in named.items()]
        last = layer == shape.layers - 1
        nodes.append(helper.make_node("Gemm", [name, *named], ["logits" if last else f"sum{layer}"], transB=1))
        name = f"hidden{layer}"
        nodes += [] if last else [helper.make_node("Relu", [f"sum{layer}"], [name])]
    info = {"x": widths[0], "logits": widths[-1]}
    given, found = (helper.make_tensor_value_info(key, TensorProto.FLOAT, ["B", size]) for key, size in info.items())
    return engine_of(helper.make_graph(nodes, "straight", [given], [found], weights))


def measure_batch(
    shape: Shape, engines: dict[str, Predictor], peer: OnnxruntimeEngine, batch: int, seconds: float
) -> list[dict[str, Any]]:
    """Both engines, the network alone and with the checks of `predict`, and the straight export, in turns."""
    requests = requests_of(shape, batch).trim()
    arrays = {
        name: array
        for name in ("x", "indices", "values", "neighbors")
        if (array := getattr(requests, name)) is not None and not (shape.nonzeros and name == "x")
    }
    calls: dict[str, Call] = {}
    for name, predictor in engines.items():
        calls[f"{name}, run only"] = predictor.prepare(requests)
        calls[f"{name}, with checks"] = partial(predictor.predict, **arrays)
    row = np.random.default_rng(0).normal(size=(batch, shape.features + shape.structure)).astype(np.float32)
    answer = np.empty((batch, shape.classes), np.float32)  # bound by address, so it has to live as long as the call
    calls["straight export, run only"] = peer.bind({"x": row}, [answer])
    calls["straight export, session.run"] = partial(peer.session.run, None, {"x": row})
    floor = floor_us(shape, requests)
    return [
        {
            "student": shape.name,
            "batch": batch,
            "what": what,
            "n": found.n,
            "min_us": found.min_us,
            "p50_us": found.p50_us,
            "p99_us": found.p99_us,
            "cpu_us": found.cpu_us,
            "floor_us": floor,
        }
        for what, found in measure_together(calls, seconds=seconds, rounds=10).items()
    ]


def floor_us(shape: Shape, requests: Requests) -> float:
    """Least time for a batch: bytes at this machine's rate for an array of that size, or products."""
    count = len(requests)
    width = shape.hidden
    later = (shape.layers - 2) * width * width + width * shape.classes
    if requests.indices is not None:
        gathered = int((requests.indices >= 0).sum()) * width
        rows_read, weights = gathered, shape.features * width
    else:
        gathered = count * shape.features * width
        rows_read = weights = shape.features * width
    read = 4 * (rows_read + count * width + later)
    products = gathered + count * later
    # What is read over and over lies as near as its weights are small.
    return max(read / read_rate(4 * (min(weights, rows_read) + later)), 2 * products / product_rate())


def read_rate(size: int) -> float:
    """Bytes per microsecond at which one thread reads an array of `size` bytes again and again, at best."""
    array = np.ones(max(size // 4, 1024), np.float32)
    tensor = torch.from_numpy(array)
    calls: dict[str, Call] = {"numpy": lambda: np.dot(array, array), "torch": lambda: torch.dot(tensor, tensor)}
    return array.nbytes / best_us(calls)


def product_rate() -> float:
    """Floating point operations per microsecond of a large matrix product on one thread, at best."""
    a, out = np.ones((512, 512), np.float32), np.empty((512, 512), np.float32)
    b, out_b = torch.from_numpy(a), torch.from_numpy(out)
    calls: dict[str, Call] = {
        "numpy": lambda: np.matmul(a, a, out=out),
        "torch": lambda: torch.mm(b, b, out=out_b),
        "onnxruntime": product_model(a).bind({"a": a}, [out]),
    }
    return 2 * 512**3 / best_us(calls)


def product_model(weight: Floats) -> OnnxruntimeEngine:
    """One matrix product as a model: onnxruntime's own is the fastest of the three on some processors."""
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, weight.shape) for name in ("a", "c")]
    nodes = [helper.make_node("MatMul", ["a", "b"], ["c"])]
    return engine_of(helper.make_graph(nodes, "product", info[:1], info[1:], [numpy_helper.from_array(weight, "b")]))


def engine_of(graph: GraphProto) -> OnnxruntimeEngine:
    """A graph, ready to run on one thread."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return OnnxruntimeEngine(model.SerializeToString(), where=graph.name, threads=1)


def best_us(calls: dict[str, Call]) -> float:
    """The shortest time of any call of any of them."""
    return min(found.min_us for found in measure_together(calls, seconds=0.3).values())


if __name__ == "__main__":
    main()
