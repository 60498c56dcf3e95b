"""`kill -9` at file operations of a run, then `--resume`: the end is that of a run that was never killed.

The full trial, with fresh processes, random moments and five methods on a real graph: `python -m tests.kill 20`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli import distill, hears_interrupts, invoke
from tests.graphs import community_graph, save_npz
from tests.kill import ROOT, outcome

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

CASES = {"nosmog": ("--method", "nosmog"), "seeds": ("--method", "cold_brew", "--seeds", "2")}
MOMENTS = 7


@pytest.fixture
def graph_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny graph as a user's file; every epoch is kept."""
    monkeypatch.setenv("GRAPH2MLP_CHECKPOINT_SECONDS", "0")
    return save_npz(community_graph(), tmp_path / "tiny.npz")


def _in_child(work: Callable[[], Any], watched: tuple[str, ...], last: int) -> tuple[int, int]:
    """Do `work` in a forked process that kills itself at file operation `last`: its signal, and operations seen."""
    read, write = os.pipe()
    if not (child := os.fork()):
        seen = 0

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if event in ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove") and str(arguments[0]).startswith(
                watched
            ):
                seen += 1
                os.write(write, b".")
                if seen == last:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            os._exit(work().exit_code)
        finally:
            os._exit(99)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        seen = len(pipe.read())
    _, status = os.waitpid(child, 0)
    return (os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)), seen


@pytest.mark.parametrize("case", CASES)
def test_killed_run_goes_on(case: str, graph_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of the journal lost or doubled, equal bytes in every file of weights, no temporary file left."""
    whole = tmp_path / "whole"

    def run(out: Path, *how: str) -> Any:
        monkeypatch.setenv("GRAPH2MLP_CACHE", str(tmp_path / f"{out.name} cache"))
        return distill(graph_file, out, *CASES[case], *how)

    code, operations = _in_child(lambda: run(whole), (str(whole),), 0)
    assert code == 0
    expected = outcome(whole)
    for number in range(MOMENTS):
        out = tmp_path / f"killed-{number}"
        last = 1 + (2 * number + 1) * operations // (2 * MOMENTS)
        code, _ = _in_child(lambda out=out: run(out), (str(out), str(tmp_path / f"{out.name} cache")), last)
        assert code == signal.SIGKILL, f"ended before operation {last}"
        resumed = run(out, "--resume")
        assert resumed.exit_code == 0, f"killed at operation {last}: {resumed.output}"
        found = outcome(out)
        assert {name for name in expected | found if expected.get(name) != found.get(name)} == set(), last


def test_killed_replacement_can_be_replaced(graph_file: Path, tmp_path: Path) -> None:
    """--force empties a folder file by file: half-empty, it must be neither believed nor beyond --force."""
    out = tmp_path / "run"
    for last in (2, 4, 7, 12):
        assert distill(graph_file, out, "--method", "mlp", "--force").exit_code == 0
        code, _ = _in_child(lambda: distill(graph_file, out, "--method", "glnn", "--force"), (str(out),), last)
        assert code == signal.SIGKILL
        assert distill(graph_file, out, "--method", "glnn", "--force").exit_code == 0
        assert not list(out.rglob(".*"))


def test_killed_export_leaves_a_bundle(graph_file: Path, tmp_path: Path) -> None:
    """At every moment there is a bundle that works, the old or the new one; the next export clears up."""
    run, bundle = tmp_path / "run", tmp_path / "out" / "bundle"
    assert distill(graph_file, run, "--method", "mlp").exit_code == 0
    assert invoke("export", run, "--onnx", "--out", bundle).exit_code == 0
    export = ("export", run, "--onnx", "--out", bundle, "--force")
    code, operations = _in_child(lambda: invoke(*export), (str(bundle.parent),), 0)
    assert code == 0
    for last in (operations - 6, operations - 2):
        code, _ = _in_child(lambda: invoke(*export), (str(bundle.parent),), last)
        assert code == signal.SIGKILL
        assert invoke("inspect", bundle).exit_code == 0
    assert invoke(*export).exit_code == 0
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_interrupt_says_how_to_go_on(graph_file: Path, tmp_path: Path) -> None:
    """Ctrl-C in a real process: exit code 130, one line, and the same command with --resume ends the work."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "graph2mlp", "distill", str(graph_file), "--method", "mlp", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    endless = [*command, "--set", "train.epochs=1000000", "--set", "train.patience=1000000"]
    how: dict[str, Any] = {"env": environment, "stderr": subprocess.PIPE, "text": True, "preexec_fn": hears_interrupts}
    with subprocess.Popen(endless, **how) as process:
        while process.poll() is None and not (out / "metrics.jsonl").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130, said
    assert said.strip().splitlines()[-1].startswith("interrupted. Go on with the same command and --resume")
    assert "Traceback" not in said
    assert not list(out.glob(".*"))
