"""A disk that is full or read-only, a file where a folder should be: one line, what was there stays, no litter."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli import assert_one_line_error, distill, invoke, result_of
from tests.graphs import community_graph, save_npz

REASONS = ("No space left on device", "File too large")


class Disk:
    """A folder that holds only so many bytes: a file system of its own for root, else files of limited size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
        tried = shutil.which("mount") and os.geteuid() == 0
        self.mounted = bool(tried) and subprocess.run(mount, capture_output=True, check=False).returncode == 0

    @contextmanager
    def only(self, kilobytes: int) -> Iterator[None]:
        """While the block runs nothing beyond `kilobytes` more fits."""
        if self.mounted:
            about = os.statvfs(self.folder)
            filler = self.folder / "filler"
            filler.write_bytes(bytes(about.f_bavail * about.f_frsize - kilobytes * 1024))
            yield
            filler.unlink()
        else:
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (max(1, kilobytes) * 1024, hard))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    yield made
    made.close()


@pytest.fixture
def graph_file(tmp_path: Path) -> Path:
    """The tiny graph as a user's file, on another disk."""
    return save_npz(community_graph(), tmp_path / "tiny.npz")


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _assert_one_reason(result: object, *parts: str, shown: str = "") -> None:
    line = str(result.stderr)  # type: ignore[attr-defined]
    assert any(reason in line for reason in REASONS), line
    assert ".part-" not in line, "the name of a file that is already gone"
    assert_one_line_error(result, *parts, shown=shown)  # type: ignore[arg-type]


@pytest.mark.parametrize("kilobytes", [0, 8, 16, 32, 48])
def test_run_on_a_full_disk_goes_on(kilobytes: int, disk: Disk, graph_file: Path, tmp_path: Path) -> None:
    """Ten hours of training are not thrown away because of the last megabyte; safetensors has an error of its own."""
    whole, out = tmp_path / "whole", disk.folder / "run"
    assert distill(graph_file, whole, "--method", "nosmog").exit_code == 0
    with disk.only(kilobytes):
        stopped = distill(graph_file, out, "--method", "nosmog")
        if stopped.exit_code == 0:
            pytest.skip("file sizes are limited here, not their sum: this run fits")
        _assert_one_reason(stopped, str(out))
        assert not list(disk.folder.rglob(".*")), "a lock or a temporary file"
        assert not (out / "result.json").exists()
    if out.exists():
        assert "--resume" in stopped.stderr
    assert distill(graph_file, out, "--method", "nosmog", "--resume").exit_code == 0
    assert result_of(out)["fingerprint"] == result_of(whole)["fingerprint"]
    assert _contents(out).keys() == _contents(whole).keys()


def test_full_disk_keeps_the_bundle_that_works(disk: Disk, graph_file: Path, tmp_path: Path) -> None:
    """Export and predict write beside what is there, and then nothing is left of the attempt."""
    run, bundle = tmp_path / "run", disk.folder / "bundle"
    assert distill(graph_file, run, "--method", "mlp").exit_code == 0
    assert invoke("export", run, "--onnx", "--out", bundle).exit_code == 0
    before = _contents(disk.folder)
    with disk.only(0):
        _assert_one_reason(invoke("export", run, "--onnx", "--out", bundle, "--force"), str(bundle))
        found = _contents(disk.folder)
        found.pop("filler", None)
        assert found == before


def test_full_disk_keeps_the_old_table(disk: Disk, graph_file: Path, tmp_path: Path) -> None:
    """A bench that cannot be written must not take the one before with it, and what it measured is shown."""
    run, bundle, table = tmp_path / "run", tmp_path / "bundle", disk.folder / "bench.json"
    assert distill(graph_file, run, "--method", "mlp").exit_code == 0
    assert invoke("export", run, "--onnx", "--out", bundle).exit_code == 0
    table.write_text("old")
    with disk.only(0):
        measured = invoke("bench", bundle, "--seconds", "0.02", "--batch", "1", "--cold-starts", "0", "--json", table)
        _assert_one_reason(measured, str(table), shown="run only")
        assert table.read_text() == "old"
    assert [path.name for path in disk.folder.iterdir()] == ["bench.json"]


def test_read_only_disk(disk: Disk, graph_file: Path, tmp_path: Path) -> None:
    """A complete run can still be opened there; anything else is one line."""
    if not disk.mounted:
        pytest.skip("needs a file system of its own")
    out = disk.folder / "run"
    assert distill(graph_file, out, "--method", "mlp").exit_code == 0
    before = _contents(disk.folder)
    disk.remount("ro")
    try:
        for result in (
            distill(graph_file, out, "--method", "mlp", "--force"),
            distill(graph_file, disk.folder / "new", "--method", "mlp"),
            invoke("export", out, "--onnx"),
        ):
            assert_one_line_error(result, "Read-only file system", str(disk.folder))
        assert distill(graph_file, out, "--method", "mlp", "--resume").exit_code == 0
    finally:
        disk.remount("rw")
    assert _contents(disk.folder) == before


def test_file_in_the_way(graph_file: Path, tmp_path: Path) -> None:
    """The path that is wrong is named, whether it is the last part or one before."""
    (tmp_path / "file").write_text("text")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert_one_line_error(distill(graph_file, out, "--method", "mlp"), str(tmp_path / "file"))
        assert_one_line_error(distill(graph_file, out, "--method", "mlp", "--seeds", "2"), str(tmp_path / "file"))
    run = tmp_path / "run"
    assert distill(graph_file, run, "--method", "mlp").exit_code == 0
    assert_one_line_error(invoke("export", run, "--onnx", "--out", tmp_path / "file" / "b"), str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "text"
