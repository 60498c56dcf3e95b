"""A large file of weights opens without being read completely, and damage to it does not go unnoticed for that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from graph2mlp.errors import BundleError, ConfigError
from graph2mlp.export import integrity
from graph2mlp.export.bundle import open_bundle, write_bundle
from graph2mlp.export.runtime import Predictor, main
from graph2mlp.export.to_onnx import to_onnx
from graph2mlp.inspection import describe

BLOCKS = 40


@pytest.fixture
def large(bundles, make_student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose weights lie in a file of 40 blocks; blocks are small so that the test is."""
    source = open_bundle(bundles("dense"))
    (tmp_path / "scratch").mkdir()
    model = to_onnx(make_student(seed=0), source_table(), sparse=False, scratch=tmp_path / "scratch", external_from=1)
    size = Path(str(model.files["model.onnx.data"])).stat().st_size
    monkeypatch.setattr(integrity, "BLOCK", -(-size // BLOCKS))
    monkeypatch.setattr(integrity, "LARGE", 1000)
    files = {**model.files, "sample.npz": source.read("sample.npz")}
    write_bundle(tmp_path / "large", source.manifest, files)
    return tmp_path / "large"


def source_table():
    """The table behind the bundle `dense`, so that its sample is answered right."""
    from tests.export.conftest import random_run

    return random_run(sparse=False).structure()


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_intact(large: Path) -> None:
    """Both ways of opening accept what was written, and say which file was only sampled."""
    assert open_bundle(large).sampled == ()
    fast = open_bundle(large, verify="fast")
    assert "model.onnx.data" in fast.sampled
    assert len(fast.manifest.files["model.onnx.data"].blocks) == BLOCKS
    fast.verify()
    assert Predictor(large).self_check().requests == 20


@pytest.mark.parametrize("place", ["first", "last"])
def test_ends_are_always_read(large: Path, place: str) -> None:
    """What damages a file in transport usually damages its end."""
    data = large / "model.onnx.data"
    flip(data, 0 if place == "first" else data.stat().st_size - 1)
    for verify in ("fast", "full"):
        with pytest.raises(BundleError, match="'model.onnx.data' is damaged"):
            open_bundle(large, verify=verify)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", ["cut off", "longer", "empty"])
def test_size_is_always_checked(large: Path, size: str) -> None:
    """A file that is cut off would end the process when its mapped pages are touched."""
    data = large / "model.onnx.data"
    content = data.read_bytes()
    data.write_bytes({"cut off": content[:-1], "longer": content + b"x", "empty": b""}[size])
    with pytest.raises(BundleError, match="'model.onnx.data' is damaged.*bytes, expected"):
        Predictor(large)


def test_another_file_of_the_same_size(large: Path) -> None:
    """Weights of another export: the shapes fit, so nothing but a checksum can tell."""
    data = large / "model.onnx.data"
    data.write_bytes(bytes(b ^ 0x10 for b in data.read_bytes()))
    with pytest.raises(BundleError, match=r"damaged.*block 0 of 40"):
        Predictor(large)


def test_one_byte_between_the_samples(large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What fast opening cannot see, the self-check on the device, `inspect` and `full` must."""
    data = large / "model.onnx.data"
    block = integrity.BLOCK
    sampled = {round(i * (BLOCKS - 1) / 15) for i in range(16)}
    flip(data, next(number for number in range(BLOCKS) if number not in sampled) * block)
    predictor = Predictor(large)
    for refuse in (predictor.self_check, lambda: Predictor(large, verify="full"), lambda: describe(large)):
        with pytest.raises(BundleError, match="'model.onnx.data' is damaged"):
            refuse()
    assert main([str(large)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_bundle_without_blocks_is_read_completely(large: Path) -> None:
    """Bundles written before there were blocks are still verified, only slower."""
    manifest = large / "bundle.json"
    value = json.loads(manifest.read_text())
    del value["files"]["model.onnx.data"]["blocks"]
    manifest.write_text(json.dumps(value))
    assert "model.onnx.data" not in open_bundle(large, verify="fast").sampled
    flip(large / "model.onnx.data", 3 * integrity.BLOCK + 1)
    with pytest.raises(BundleError, match="damaged"):
        open_bundle(large, verify="fast")


@pytest.mark.parametrize("count", [1, BLOCKS - 1, BLOCKS + 1])
def test_wrong_number_of_blocks(large: Path, count: int) -> None:
    """A list that is too short would be a traceback, one that is too long would check the wrong places."""
    manifest = large / "bundle.json"
    value = json.loads(manifest.read_text())
    blocks = value["files"]["model.onnx.data"]["blocks"]
    value["files"]["model.onnx.data"]["blocks"] = (blocks * 2)[:count]
    manifest.write_text(json.dumps(value))
    with pytest.raises(BundleError, match=f"lists {count} blocks of 'model.onnx.data', expected 40"):
        open_bundle(large, verify="fast")


def test_small_files_are_never_sampled(bundles, tmp_path: Path) -> None:
    """Blocks are for what takes long to read; the rest has no excuse."""
    folder = Path(shutil.copytree(bundles("sparse"), tmp_path / "b"))
    assert open_bundle(folder, verify="fast").sampled == ()
    flip(folder / "model.onnx", 900)
    with pytest.raises(BundleError, match="damaged"):
        Predictor(folder)


def test_unknown_kind_of_verification(bundles) -> None:
    """A typing error must not switch verification off."""
    with pytest.raises(ConfigError, match="verify must be 'full' or 'fast'"):
        Predictor(bundles("sparse"), verify="none")  # type: ignore[arg-type]


def test_export_puts_a_large_table_beside_the_model(make_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder it is mapped; a zip is opened in memory and has no use for that."""
    from graph2mlp.export import candidate, deploy

    monkeypatch.setattr(candidate, "EXTERNAL_DATA_FROM", 100)
    deploy.export_run(make_run(), out=tmp_path / "folder")
    deploy.export_run(make_run(), out=tmp_path / "file.zip")
    assert "model.onnx.data" in open_bundle(tmp_path / "folder").contents
    assert "model.onnx.data" not in open_bundle(tmp_path / "file.zip").contents
    for path in (tmp_path / "folder", tmp_path / "file.zip"):
        for engine in ("onnxruntime", "numpy"):
            Predictor(path, engine=engine).self_check()
