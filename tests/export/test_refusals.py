"""Hostile and unlucky bundles beyond a wrong checksum: each is refused in one line, before it costs anything."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from graph2mlp.errors import BundleError
from graph2mlp.export.bundle import open_bundle, write_bundle
from graph2mlp.export.npz_file import read_npz
from graph2mlp.export.runtime import Predictor


def npz(**members: bytes) -> bytes:
    """A zip of members as they are, named `.npy`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """An array file with any header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + body


def good(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def compressed() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.zeros(1_000_000))
    return buffer.getvalue()


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return npz(x=buffer.getvalue())


def header(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


SAMPLES: dict[str, Callable[[], bytes]] = {
    "not a zip": lambda: b"hello",
    "empty": lambda: b"",
    "decompression bomb": compressed,
    "pickled objects": pickled,
    "header asks for 4 TB": lambda: npz(x=npy(header("(1000000000000,)"))),
    "header asks for more than 64 bits": lambda: npz(x=npy(header("(9223372036854775807, 9223372036854775807)"))),
    "negative shape": lambda: npz(x=npy(header("(-1,)"))),
    "shape is text": lambda: npz(x=npy(header("'abc'"))),
    "no width": lambda: npz(x=npy(header("(10,)", "'<U0'"))),
    "deeply nested header": lambda: npz(x=npy("(" * 5000)),
    "header is code": lambda: npz(x=npy("__import__('os').system('false')")),
    "more bytes than its shape": lambda: npz(x=npy(header("(1,)"), b"12345678")),
    "unknown version": lambda: npz(x=npy(header("(0,)"), version=b"\x09\x00")),
    "a member that is no array": lambda: npz(x=b"hello"),
    "lacks what the model takes": lambda: npz(x=good(np.zeros(3, np.float32))),
    "wrong types": lambda: npz(
        **{name: good(np.array(["a"])) for name in ("indices", "values", "neighbors", "logits", "labels", "y")}
    ),
    "wrong shapes": lambda: npz(
        **{name: good(np.zeros((2, 2, 2))) for name in ("indices", "values", "neighbors", "logits", "labels", "y")}
    ),
}


@pytest.fixture
def signed(bundles, tmp_path: Path) -> Callable[..., Path]:
    """A bundle with other content under checksums that fit: nothing but the reader stands in the way."""
    source = open_bundle(bundles("sparse"))
    files = {name: source.read(name) for name in ("model.onnx", "sample.npz")}

    def make(**changes: bytes) -> Path:
        changed = {**files, **{name.replace("_", "."): content for name, content in changes.items()}}
        write_bundle(tmp_path / "signed", replace(source.manifest, files={}), changed)
        return tmp_path / "signed"

    return make


@pytest.mark.parametrize("kind", SAMPLES)
def test_hostile_samples(signed, kind: str) -> None:
    """`numpy.load` would believe most of these headers; a device with 64 MB cannot afford one."""
    path = signed(sample_npz=SAMPLES[kind]())
    with pytest.raises(BundleError, match=r"sample\.npz") as caught:
        Predictor(path).self_check()
    assert "\n" not in str(caught.value)


def test_npz_of_numpy_is_read(tmp_path: Path) -> None:
    """The strict reader must still read what `numpy.savez` writes, in every layout."""
    arrays = {"a": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "b": np.array(5), "c": np.zeros((0, 3), bool)}
    np.savez(tmp_path / "a.npz", **arrays)
    found = read_npz((tmp_path / "a.npz").read_bytes())
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def edited(model: bytes, change: Callable[[onnx.ModelProto], object]) -> bytes:
    loaded = onnx.load_from_string(model)
    change(loaded)
    return bytes(loaded.SerializeToString())


def cyclic(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[1] = "logits"


def huge_constant(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**31, 2**31, 2**31]


def renamed_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "nowhere"


def future_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "ReadFile"


def narrower_weights(model: onnx.ModelProto) -> None:
    constant = next(item for item in model.graph.initializer if len(item.dims) == 2)
    constant.dims[:] = [constant.dims[1], constant.dims[0]]


def other_inputs(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "x"


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
@pytest.mark.parametrize(
    "change",
    [cyclic, huge_constant, renamed_output, future_opset, unknown_operator, narrower_weights, other_inputs],
)
def test_hostile_models(signed, bundles, engine: str, change: Callable[[onnx.ModelProto], object]) -> None:
    """Both engines refuse when the bundle is opened or checked; neither may end in an exception of its own."""
    model = edited((bundles("sparse") / "model.onnx").read_bytes(), change)
    path = signed(model_onnx=model)
    with pytest.raises(BundleError) as caught:
        Predictor(path, engine=engine).self_check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
@pytest.mark.parametrize("offset", ["10000000000", "-1", "9" * 30, "abc"])
def test_weights_outside_their_file(
    bundles, make_student, make_table, tmp_path: Path, engine: str, offset: str
) -> None:
    """Mapped beyond its end, a file ends the process with a bus error; before its start, with someone else's data."""
    from graph2mlp.export.to_onnx import to_onnx

    source = open_bundle(bundles("dense"))
    model = to_onnx(make_student(), make_table(), sparse=False, scratch=tmp_path, external_from=1)
    loaded = onnx.load(str(model.files["model.onnx"]), load_external_data=False)
    for constant in loaded.graph.initializer:
        for entry in constant.external_data:
            entry.value = offset if entry.key == "offset" else entry.value
    files = {**model.files, "model.onnx": loaded.SerializeToString(), "sample.npz": source.read("sample.npz")}
    write_bundle(tmp_path / "b", replace(source.manifest, files={}), files)
    with pytest.raises(BundleError) as caught:
        Predictor(tmp_path / "b", engine=engine)
    assert "\n" not in str(caught.value)


def test_pipe_in_the_place_of_a_bundle(tmp_path: Path) -> None:
    """Reading it would wait for ever."""
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(BundleError, match="not a plain file"):
        open_bundle(tmp_path / "pipe.zip")


def test_two_models(bundles, tmp_path: Path) -> None:
    """One would be run and the other one inspected."""
    source = open_bundle(bundles("sparse"))
    files = {name: source.read(name) for name in ("model.onnx", "sample.npz")}
    write_bundle(tmp_path / "b", replace(source.manifest, files={}), {**files, "model.ort": files["model.onnx"]})
    with pytest.raises(BundleError, match="holds two models"):
        open_bundle(tmp_path / "b")


def test_damaged_compressed_member(bundles, tmp_path: Path) -> None:
    """Re-packed by hand with compression, then cut: zlib has an error of its own."""
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bundle.json", (bundles("sparse") / "bundle.json").read_bytes())
        archive.writestr("padding", os.urandom(50_000))
    content = bytearray(path.read_bytes())
    content[60:80] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not a readable zip"):
        open_bundle(path)


def test_large_manifest(bundles, tmp_path: Path) -> None:
    """A file of gigabytes is not a list of a few names."""
    folder = Path(shutil.copytree(bundles("sparse"), tmp_path / "b"))
    with (folder / "bundle.json").open("ab") as file:
        file.truncate(17 * 2**20)
    with pytest.raises(BundleError, match="larger than"):
        open_bundle(folder)
