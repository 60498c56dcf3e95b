"""One process at a time in a folder, tried with real processes."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from graph2mlp.errors import RunError
from graph2mlp.lock import LOCK, hold
from tests.cli import assert_one_line_error, distill, invoke
from tests.graphs import community_graph, save_npz

ROOT = Path(__file__).parents[1]

HOLD = "import sys; from pathlib import Path; from graph2mlp.lock import hold\n"
WAIT = HOLD + "with hold(Path(sys.argv[1]), 'x'):\n    print('held', flush=True); sys.stdin.read()\n"
COUNT = (
    HOLD
    + """
from graph2mlp.errors import RunError
done, counter = 0, Path(sys.argv[2])
while done < 40:
    try:
        with hold(Path(sys.argv[1]), 'x'):
            value = int(counter.read_text())
            counter.write_text('')
            counter.write_text(str(value + 1))
            done += 1
    except RunError:
        pass
"""
)


def _start(code: str, *arguments: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)


@contextmanager
def _held(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `file`."""
    with _start(WAIT, file) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        try:
            yield other
        finally:
            other.kill()


def _contents(folder: Path) -> dict[str, bytes]:
    """Without locks: those of killed processes may go."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def graph_file(tmp_path: Path) -> Path:
    """The tiny graph as a user's file."""
    return save_npz(community_graph(), tmp_path / "tiny.npz")


def test_second_process_is_told_who_is_there(tmp_path: Path) -> None:
    """Whoever must decide to wait or to stop the other needs its number, its machine and its age."""
    with _held(tmp_path / LOCK) as other:
        expected = rf"the run is in use: process {other.pid} on {socket.gethostname()} .* since 20\d\d-.*Wait for it"
        with pytest.raises(RunError, match=expected), hold(tmp_path / LOCK, "the run"):
            pytest.fail("held twice")


def test_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    """A stale file that someone must delete by hand would be deleted by hand at the wrong moment, too."""
    with _held(tmp_path / LOCK) as other:
        other.kill()
        other.wait()
        assert (tmp_path / LOCK).exists()
        with hold(tmp_path / LOCK, "the run"):
            assert f'"pid": {os.getpid()}' in (tmp_path / LOCK).read_text()
    assert not list(tmp_path.iterdir())


def test_never_two_at_once(tmp_path: Path) -> None:
    """The file is removed at the end of every turn: who waits on the removed one must not believe to hold it."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    workers = [_start(COUNT, tmp_path / "locks" / LOCK, counter) for _ in range(3)]
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
    assert counter.read_text() == "120"


def test_folder_removed_by_the_last_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes between our making it and our opening the lock, as when another process ends just then."""
    real, calls = os.open, []

    def opening(path: Any, *how: Any) -> int:
        calls.append(path)
        if len(calls) == 1:
            Path(path).parent.rmdir()
        return real(path, *how)

    monkeypatch.setattr("graph2mlp.lock.os.open", opening)
    with hold(tmp_path / "locks" / LOCK, "x"):
        assert len(calls) == 2


def test_lock_that_can_never_be_opened(tmp_path: Path) -> None:
    """A link to nowhere ends in its error, not in an endless loop."""
    (tmp_path / LOCK).symlink_to(tmp_path / "nowhere" / "file")
    with pytest.raises(FileNotFoundError, match=LOCK), hold(tmp_path / LOCK, "x"):
        pass


def test_folders_made_for_a_lock_go_with_it(tmp_path: Path) -> None:
    """A command that ends in a mistake leaves no empty folders behind, and takes none that it did not make."""
    (tmp_path / "mine").mkdir()
    with hold(tmp_path / "mine" / "a" / "b" / LOCK, "x"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_system_without_locks_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence would be taken for safety, and a refusal would shut out whole clusters."""

    def flock(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("graph2mlp.lock.fcntl.flock", flock)
    with pytest.warns(UserWarning, match="cannot be locked .* no other process"), hold(tmp_path / LOCK, "x"):
        pass


@pytest.mark.parametrize("how", [[], ["--resume"], ["--force"], ["--force", "--seeds", "2"]], ids=" ".join)
def test_run_folder_in_use(how: list[str], graph_file: Path, tmp_path: Path) -> None:
    """Two processes would mix their epochs in one journal, or delete each other's weights."""
    out = tmp_path / "run"
    out.mkdir()
    with _held(out / LOCK) as other:
        before = _contents(out)
        assert_one_line_error(distill(graph_file, out, "--method", "mlp", *how), str(out), f"process {other.pid}")
        assert _contents(out) == before


def test_folder_of_seeds_in_use(graph_file: Path, tmp_path: Path) -> None:
    """One seed that someone runs by hand, and the whole folder, each are locked."""
    out = tmp_path / "runs"
    assert distill(graph_file, out, "--method", "mlp", "--seeds", "2").exit_code == 0
    (out / "seed-1" / "result.json").unlink()
    for file, how in (
        (out / LOCK, "--resume"),
        (out / "seed-1" / LOCK, "--resume"),
        (out / "seed-1" / LOCK, "--force"),
    ):
        with _held(file) as other:
            before = _contents(out)
            stopped = distill(graph_file, out, "--method", "mlp", "--seeds", "2", how)
            assert stopped.exit_code == 1
            assert f"process {other.pid}" in stopped.stderr
            assert _contents(out) == before
    assert distill(graph_file, out, "--method", "mlp", "--seeds", "2", "--force").exit_code == 0
    assert not list(out.rglob(LOCK))


def test_bundle_in_use(graph_file: Path, tmp_path: Path) -> None:
    """The lock lies beside the bundle, which holds only what its manifest lists; the old bundle stays."""
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    assert distill(graph_file, run, "--method", "mlp").exit_code == 0
    assert invoke("export", run, "--onnx", "--out", bundle).exit_code == 0
    before = _contents(bundle)
    with _held(tmp_path / ".bundle.lock") as other:
        stopped = invoke("export", run, "--onnx", "--out", bundle, "--force")
        assert_one_line_error(stopped, str(bundle), f"process {other.pid}")
    assert _contents(bundle) == before
    assert invoke("export", run, "--onnx", "--out", bundle, "--force").exit_code == 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
