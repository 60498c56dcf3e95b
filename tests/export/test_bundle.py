"""A bundle opens exactly as it was written, or is refused in one line."""

from __future__ import annotations

import contextlib
import json
import shutil
import stat
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graph2mlp.errors import BundleError
from graph2mlp.export.bundle import MODEL, open_bundle, write_bundle
from graph2mlp.export.manifest import BundleManifest

FILES = ("bundle.json", "model.onnx", "sample.npz")


@pytest.fixture
def folder(bundles, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(bundles("sparse"), tmp_path / "bundle"))


def refused(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "bundle.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def rezip(folder: Path, target: Path, **extra: bytes) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for name in FILES:
            archive.write(folder / name, name)
        for name, content in extra.items():
            archive.writestr(name, content)
    return target


def test_folder_and_zip_hold_the_same(bundles) -> None:
    folder, zipped = open_bundle(bundles("sparse")), open_bundle(bundles("zip"))
    assert folder.manifest == zipped.manifest
    assert folder.read(MODEL) == zipped.read(MODEL)
    assert sorted(folder.contents) == ["model.onnx", "sample.npz"]


def test_manifest_round_trip(bundles) -> None:
    manifest = open_bundle(bundles("sparse")).manifest
    again = BundleManifest.from_json(manifest.to_json().encode(), where="here")
    assert again == manifest
    assert manifest.sparse
    assert manifest.structure is not None
    assert manifest.structure.nodes == 30


def test_names_of_features_cost_nothing_where_there_are_none(folder: Path) -> None:
    """A bag of 100,000 words has no names; a bundle made before there were names opens, and is what it was."""
    assert b"feature_names" not in (folder / "bundle.json").read_bytes()
    manifest = open_bundle(folder).manifest
    assert manifest.feature_names == ()
    assert "feature_names" not in manifest.to_json(), "answers that are resumed know their bundle by this text"


def test_names_that_no_device_would_read(folder: Path, tmp_path: Path) -> None:
    """A manifest has a limit; a bundle beyond it must not be written, for it would not open."""
    names = tuple(f"{i} {'x' * 2**20}" for i in range(20))
    with pytest.raises(BundleError, match="Shorten the names"):
        write_bundle(tmp_path / "new", replace(open_bundle(folder).manifest, feature_names=names), {"sample.npz": b""})
    assert not (tmp_path / "new").exists()


def test_same_run_gives_the_same_bytes(bundles, make_run, tmp_path: Path) -> None:
    """Then a checksum says whether two people have the same model."""
    from graph2mlp.export.deploy import export_run

    export_run(make_run(), out=tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == bundles("zip").read_bytes()


@pytest.mark.parametrize("name", ["model.onnx", "sample.npz"])
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_one_changed_byte_is_noticed(folder: Path, name: str, place: float) -> None:
    content = bytearray((folder / name).read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    (folder / name).write_bytes(content)
    assert f"'{name}' is damaged" in refused(folder)


def test_one_changed_byte_in_the_manifest_is_noticed_or_harmless(folder: Path) -> None:
    """bundle.json has no checksum of its own; whatever is read from it must still be complete and of the right type."""
    original = (folder / "bundle.json").read_bytes()
    for position in range(0, len(original), 7):
        content = bytearray(original)
        content[position] ^= 1
        (folder / "bundle.json").write_bytes(content)
        with contextlib.suppress(BundleError):  # anything else would be a traceback on the device
            open_bundle(folder)


@pytest.mark.parametrize("name", FILES)
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert name in refused(folder)


@pytest.mark.parametrize("name", FILES)
def test_truncated_file(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    assert name in refused(folder)


@pytest.mark.parametrize("name", FILES)
def test_empty_file(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    assert name in refused(folder)


def test_extra_file(folder: Path) -> None:
    """What is not listed was not verified; a device must not carry it along."""
    (folder / "model.onnx.data").write_bytes(b"weights of someone else")
    assert "does not list" in refused(folder)


def test_links_and_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    """A link could lead to any file of the device."""
    secret = tmp_path / "secret"
    shutil.move(folder / "model.onnx", secret)
    (folder / "model.onnx").symlink_to(secret)
    assert "not a plain file" in refused(folder)
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    assert "not a plain file" in refused(folder)


def test_not_there_and_not_a_bundle(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nowhere")
    assert "no bundle.json" in refused(tmp_path)
    (tmp_path / "file.zip").write_bytes(b"not a zip")
    assert "not a readable zip" in refused(tmp_path / "file.zip")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[]", b"3", b'{"a": 1}', b"null", b"[" * 100_000])
def test_manifest_that_is_not_one(folder: Path, text: bytes) -> None:
    (folder / "bundle.json").write_bytes(text)
    assert "bundle.json" in refused(folder)


@pytest.mark.parametrize("schema", [0, 2, "1", True, None, [1]])
def test_another_schema_is_refused_by_name(folder: Path, schema: object) -> None:
    edit_manifest(folder, lambda m: m.update(schema=schema))
    assert "schema" in refused(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("class_names", "abc"),
        ("class_names", [1, 2, 3, 4]),
        ("class_names", ["a"]),
        ("inputs", []),
        ("inputs", [{"name": "x"}]),
        ("outputs", None),
        ("features", "20"),
        ("features", 0),
        ("features", True),
        ("feature_names", ["a"]),
        ("feature_names", ["a"] * 20),
        ("feature_names", list(range(20))),
        ("feature_names", "abcdefghijklmnopqrst"),
        ("structure", 5),
        ("structure", None),
        ("student", {"layers": 2}),
        ("regime", "xyz"),
        ("regime", "features"),
        ("metrics", {"test": "high"}),
        ("metrics", {"test": float("nan")}),
        ("metrics", {"test": float("-inf")}),
        ("metrics", {"test": 10**400}),
        ("parity", {"requests": 3, "max_abs": float("nan")}),
        ("files", {"model.onnx": "abc"}),
        ("files", []),
    ],
)
def test_field_of_the_wrong_type(folder: Path, field: str, value: object) -> None:
    """A wrong type would surface as a traceback in the middle of a prediction."""
    edit_manifest(folder, lambda m: m.update({field: value}))
    assert "bundle.json" in refused(folder)


@pytest.mark.parametrize("field", ["class_names", "inputs", "features", "regime", "preset", "student"])
def test_missing_field_is_named(folder: Path, field: str) -> None:
    edit_manifest(folder, lambda m: m.pop(field))
    assert f"'{field}'" in refused(folder)


def test_unknown_field_is_ignored(folder: Path) -> None:
    """A later version may say more without breaking older devices."""
    edit_manifest(folder, lambda m: m.update(carbon=1))
    open_bundle(folder)


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", "..", ".hidden", "C:\\evil", ""])
def test_names_that_leave_the_folder(folder: Path, tmp_path: Path, name: str) -> None:
    edit_manifest(folder, lambda m: m["files"].update({name: m["files"]["model.onnx"]}))
    assert "plain file" in refused(folder)
    if name:
        assert "plain file" in refused(rezip(folder, tmp_path / "evil.zip", **{name: b"x"}))
    assert not (tmp_path / "evil").exists()


def test_zip_with_a_link(folder: Path, tmp_path: Path) -> None:
    path = rezip(folder, tmp_path / "link.zip")
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert "not the name of a plain file" in refused(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_with_a_name_twice(folder: Path, tmp_path: Path) -> None:
    """Two programs could read two different files under one verified name."""
    path = rezip(folder, tmp_path / "twice.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model.onnx", b"another")
    assert "twice" in refused(path)


def test_truncated_zip(bundles, tmp_path: Path) -> None:
    content = bundles("zip").read_bytes()
    path = tmp_path / "cut.zip"
    for part in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:part])
        assert "zip" in refused(path)


def test_changed_byte_in_zip(bundles, tmp_path: Path) -> None:
    content = bytearray(bundles("zip").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bad.zip").write_bytes(content)
    refused(tmp_path / "bad.zip")


def test_decompression_bomb(folder: Path, tmp_path: Path) -> None:
    """A few kilobytes must not become gigabytes in the memory of a small device."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bundle.json", b" " * 50_000_000)
    assert path.stat().st_size < 100_000
    assert "more than its size" in refused(path)


def test_model_that_reads_other_files(folder: Path, tmp_path: Path) -> None:
    """An ONNX file may name a file to read weights from; with valid checksums only this check stands in the way."""
    import onnx

    model = onnx.load(folder / MODEL)
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    content = (tmp_path / "m.onnx").read_bytes().replace(b"weights", b"/passwd")
    manifest = open_bundle(folder).manifest
    write_bundle(tmp_path / "evil", manifest, {MODEL: content, "sample.npz": (folder / "sample.npz").read_bytes()})
    assert "wants to read the file" in refused(tmp_path / "evil")


@pytest.mark.parametrize("place", ["initializer", "value first", "attribute", "branch", "sparse", "function"])
def test_model_that_hides_what_it_reads(place: str, folder: Path, tmp_path: Path) -> None:
    """A field may come in any order, and a tensor lie in many places; onnxruntime would read the file from them all."""
    import onnx
    from onnx import TensorProto, helper

    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add(key="location", value="secret.bin")
    model = onnx.load(folder / MODEL)
    if place in ("initializer", "value first"):
        model.graph.initializer.append(tensor)
    elif place == "sparse":
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif place == "attribute":
        model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    elif place == "branch":
        branch = helper.make_graph([], "branch", [], [], [tensor])
        model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch))
    else:
        node = helper.make_node("Constant", [], ["c"], value=tensor)
        model.functions.append(helper.make_function("own", "f", [], ["c"], [node], [helper.make_opsetid("", 20)]))
    content = model.SerializeToString()
    if place == "value first":
        key, value = b"\x0a\x08location", b"\x12\x0asecret.bin"
        assert key + value == entry.SerializeToString()
        content = content.replace(key + value, value + key)
        assert onnx.load_from_string(content).graph.initializer[-1].external_data[0].value == "secret.bin"
    manifest = open_bundle(folder).manifest
    write_bundle(tmp_path / "evil", manifest, {MODEL: content, "sample.npz": (folder / "sample.npz").read_bytes()})
    assert "wants to read the file 'secret.bin'" in refused(tmp_path / "evil")


def test_model_of_graphs_within_graphs(folder: Path, tmp_path: Path) -> None:
    """Each within the other to the end of the file: looked through, that would take longer than anyone waits."""

    def field(number: int, content: bytes) -> bytes:
        size, varint = len(content), b""
        while size > 127:
            varint, size = varint + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + varint + bytes([size]) + content

    content = b""
    for _ in range(2000):
        content = field(1, field(5, field(6, content)))  # graph.node.attribute.g
    manifest = open_bundle(folder).manifest
    files = {MODEL: field(7, content), "sample.npz": (folder / "sample.npz").read_bytes()}
    write_bundle(tmp_path / "deep", manifest, files)
    assert "too deeply" in refused(tmp_path / "deep")


def test_write_refuses_bad_names(bundles, tmp_path: Path) -> None:
    manifest = open_bundle(bundles("sparse")).manifest
    for name in ("../a", "bundle.json", "a/b"):
        with pytest.raises(BundleError, match="cannot hold"):
            write_bundle(tmp_path / "new", manifest, {name: b""})
    with pytest.raises(BundleError, match="too large for a zip"):
        write_bundle(tmp_path / "new.zip", manifest, {"model.onnx.data": b""})
    assert not list(tmp_path.iterdir())
