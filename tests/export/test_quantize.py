"""The steps of the presets, one at a time, against the float32 network and by hand."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from graph2mlp.export.bundle import EXTERNAL_DATA, MODEL
from graph2mlp.export.onnx_edit import ModelEditor, split_gemm
from graph2mlp.export.presets import PRESETS
from graph2mlp.export.quantize import load_model, quantize
from graph2mlp.export.quantize_dense import BLOCK, pack_blocks, round_weights
from graph2mlp.export.quantize_float import halve_rows
from graph2mlp.export.quantize_tables import int8_rows, round_rows
from graph2mlp.export.to_onnx import to_onnx
from graph2mlp.export.verify import check_parity
from tests.export.trained import trained_run


@pytest.fixture(scope="module")
def wide():
    """A file with layers wide enough to be rounded, and without a table."""
    return load_model(to_onnx(trained_run().student(), None, sparse=False).files)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("structure", [False, True])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_gemm_as_matmul_is_exact(make_student, make_table, make_requests, sparse, structure, norm) -> None:
    """The rewrite every integer product starts from; a transposed weight or a lost bias would be a wrong network."""
    student = make_student(structure=structure, layers=3, norm=norm)
    table = make_table() if structure else None
    editor = ModelEditor(load_model(to_onnx(student, table, sparse=sparse).files))
    for layer in editor.dense_layers():
        split_gemm(editor, layer)
    model = editor.model()
    assert "Gemm" not in {node.op_type for node in model.graph.node}
    parity = check_parity(student, table, model.SerializeToString(), make_requests(100, sparse=sparse))
    assert parity.max_abs < 1e-5


def test_taking_apart_changes_nothing(wide) -> None:
    """Constants that nobody reads and inferred shapes go; everything else, and the model given, stays."""
    before = wide.SerializeToString()
    editor = ModelEditor(wide)
    editor.constant("unused", np.zeros(3, np.float32))
    again = editor.model()
    assert [node.op_type for node in again.graph.node] == [node.op_type for node in wide.graph.node]
    assert {t.name for t in again.graph.initializer} == {t.name for t in wide.graph.initializer}
    assert not again.graph.value_info
    quantize(wide, PRESETS["int8"], lambda names: {})
    assert wide.SerializeToString() == before


def test_rounding_by_hand() -> None:
    """Scales per output and per row, signed, no step lost; zeros stay zeros instead of 0 / 0."""
    weight = np.array([[1.0, 0.0], [-2.54, 0.0], [0.02, 0.0]], np.float32)
    q, scale = round_weights(weight)
    np.testing.assert_array_equal(q[:, 0], [50, -127, 1])
    np.testing.assert_array_equal(q[:, 1], 0)
    assert scale[0] == pytest.approx(0.02)
    q, scale = round_rows(weight.T)
    np.testing.assert_array_equal(q[0], [50, -127, 1])
    np.testing.assert_allclose(scale, [0.02, 0], rtol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_are_packed_as_onnxruntime_reads_them(bits: int) -> None:
    """Order of nibbles, of blocks, padding of the last block: any slip gives noise of the right size."""
    weight = np.random.default_rng(0).normal(size=(BLOCK + 7, 5)).astype(np.float32)
    packed, scale = pack_blocks(weight, bits)
    assert packed.shape == (5, 2, BLOCK * bits // 8)
    codes = packed.astype(int)
    if bits == 4:
        codes = np.stack([codes & 15, codes >> 4], -1).reshape(5, 2, BLOCK)
    restored = ((codes - 2 ** (bits - 1)) * scale[:, :, None]).reshape(5, -1)[:, : len(weight)].T
    assert np.abs(restored - weight).max() <= np.abs(scale).max() * (1.0 if bits == 4 else 0.51)
    assert np.abs(restored[:BLOCK]).max() == pytest.approx(np.abs(weight[:BLOCK]).max())
    from onnx import TensorProto, helper, numpy_helper

    inputs = [("packed", packed), ("scale", scale)]
    node = helper.make_node(
        "MatMulNBits", ["x", "packed", "scale"], ["y"], domain="com.microsoft", K=len(weight), N=5, bits=bits,
        block_size=BLOCK,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, len(weight)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 5])],
        [numpy_helper.from_array(array, name) for name, array in inputs],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    x = np.eye(len(weight), dtype=np.float32)
    got = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_allclose(got, restored, atol=1e-5)


def test_half_precision_keeps_rows_that_it_cannot_hold() -> None:
    """2^-40 is the weight of padding: as float16 it is 0, and a request without edges would be 0 / 0."""
    rows = np.array([[0.5, 1.0], [2.0**-41, 2.0**-40], [0, 0], [1e6, -2e6]], np.float32)
    half, scale = halve_rows(rows)
    assert scale is not None
    np.testing.assert_allclose(half.astype(np.float32) * scale, rows, rtol=1e-3)
    assert scale[0] == 1
    assert halve_rows(rows[:1])[1] is None
    assert np.isfinite(half).all()


def test_tables_keep_the_count_of_known_rows(make_student, make_table, make_requests) -> None:
    """A rounded count would scale every answer; a rounded padding would count as a node."""
    student, table = make_student(), make_table()
    for sparse in (False, True):
        base = load_model(to_onnx(student, table, sparse=sparse).files)
        editor = ModelEditor(base)
        for node in [node for node in editor.nodes if node.op_type == "Gather"]:
            int8_rows(editor, node)
        model = editor.model().SerializeToString()
        requests = make_requests(200, sparse=sparse, width=6)
        feeds = {"indices": requests.indices, "values": requests.values} if sparse else {"x": requests.x}
        feeds["neighbors"] = requests.neighbors
        expected, got = (
            ort.InferenceSession(one).run(["logits"], feeds)[0] for one in (base.SerializeToString(), model)
        )
        assert np.abs(expected - got).max() < 0.03
        assert not np.array_equal(expected, got)
        counts = {name: array for name, array in editor.constants.items() if name.endswith(".count")}
        assert set(counts["structure_rows.count"].tolist()) == {1.0, 2.0**-40}


def test_small_constants_are_left_alone(make_student, make_table) -> None:
    """Every rounded constant costs an operator or two; one of a few hundred bytes is not worth it."""
    base = load_model(to_onnx(make_student(), make_table(), sparse=False).files)
    for preset in PRESETS.values():
        model, done = quantize(base, preset, lambda names: {})
        assert not done
        assert len(model.graph.node) == len(base.graph.node)


@pytest.mark.parametrize("preset", ["int8", "int8-static"])
def test_layers_are_single_products_of_integers(wide, tmp_path, preset: str) -> None:
    """onnxruntime restores the weights in every call when it does not recognise the pattern, at ten times the cost."""
    import onnx

    model, done = quantize(wide, PRESETS[preset], lambda names: dict.fromkeys(names, (-3.0, 3.0)))
    assert [one.form for one in done] == [PRESETS[preset].dense] * 2  # the last layer is too small to gain
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "seen.onnx"), 4
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    seen = [node.op_type for node in onnx.load(tmp_path / "seen.onnx").graph.node]
    assert sum("MatMulIntegerToFloat" in one or "DynamicQuantizeMatMul" in one for one in seen) == 2, seen
    assert not {"DequantizeLinear", "MatMulInteger", "Cast"} & set(seen), seen


@pytest.mark.parametrize("size", [1.0, 1e-11, 1e-20])
@pytest.mark.parametrize("biased", [False, True])
def test_static_grid_fits_the_range(size: float, biased: bool) -> None:
    """A bank's queries may be 1e-11 long: on a grid made for 1e-8 they were all zero, and any row the nearest."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    x = (size * rng.uniform(-1, 3, (50, 128))).astype(np.float32)
    arrays = {"w": rng.normal(size=(96, 128)).astype(np.float32), "b": (size * rng.normal(size=96)).astype(np.float32)}
    arrays["w"][:, ::2] = 0  # processors without 8-bit dot products add pairs in 16 bits, which would overflow
    names = ["w", "b"] if biased else ["w"]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", *names], ["y"], transB=1)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 128])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 96])],
        [numpy_helper.from_array(arrays[name], name) for name in names],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    rounded, done = quantize(model, PRESETS["int8-static"], lambda names: {"x": (float(x.min()), float(x.max()))})
    assert [one.form for one in done] == ["int8-static"]
    want = x @ arrays["w"].T + (arrays["b"] if biased else 0)
    got = ort.InferenceSession(rounded.SerializeToString()).run(None, {"x": x})[0]
    assert np.abs(got - want).max() < 0.02 * np.abs(want).max()
    # A range of nothing is no error: all requests of the calibration had that hidden unit off.
    none, _ = quantize(model, PRESETS["int8-static"], lambda names: {"x": (0.0, 0.0)})
    got = ort.InferenceSession(none.SerializeToString()).run(None, {"x": 0 * x})[0]
    np.testing.assert_array_equal(got, np.broadcast_to(arrays["b"] if biased else 0, got.shape))


def test_command_line_names_every_preset() -> None:
    """One table drives everything: a preset that --help does not name does not exist for users."""
    from tests.cli import invoke

    shown = "".join(invoke("export", "--help").stdout.split())
    for name in (*PRESETS, "auto"):
        assert name in shown or name.replace("-", "") in shown.replace("-", "")


def test_weights_beside_the_model(tmp_path) -> None:
    """Tables above 1.5 GB lie beside the model: the presets must read them there, and calibrate with them."""
    from graph2mlp.export.calibrate import activation_ranges

    student = trained_run().student()
    files = to_onnx(student, None, sparse=False, scratch=tmp_path, external_from=100).files
    assert set(files) == {MODEL, EXTERNAL_DATA}
    inside = to_onnx(student, None, sparse=False).files
    x = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    found = []
    for number, one in enumerate((files, inside)):
        (tmp_path / str(number)).mkdir()
        model = load_model(one)
        names = [node.input[0] for node in model.graph.node if node.op_type == "Gemm"]
        found.append(activation_ranges(model, names, [{"x": x[:20]}, {"x": x[20:]}], tmp_path / str(number)))
    assert found[0] == found[1]
    assert found[0]["x"] == (x.min(), x.max())
    assert all(low == 0 for name, (low, high) in found[0].items() if name != "x")  # behind a ReLU
