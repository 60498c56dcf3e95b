"""`torchrun -m graph2mlp distill`: several processes train the student that one process would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from graph2mlp.errors import MethodError
from graph2mlp.run import open_run
from graph2mlp.training import parallel
from tests.cli import assert_one_line_error, invoke, result_of
from tests.graphs import community_graph, save_npz
from tests.pipeline import SMALL

ROOT = Path(__file__).parents[1]


def command(graph: object, out: Path, *arguments: object, ranks: int = 2) -> list[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    start = [sys.executable, "-m"] if ranks == 1 else [*torchrun, "-m"]
    small = [part for setting in SMALL for part in ("--set", setting)]
    return [*start, "graph2mlp", "distill", str(graph), "--out", str(out), *small, *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GRAPH2MLP_CHECKPOINT_SECONDS": "0"}


def launch(*arguments: object, ranks: int = 2) -> subprocess.CompletedProcess[str]:
    line = command(*arguments, ranks=ranks)  # type: ignore[arg-type]
    return subprocess.run(line, env=environment(), capture_output=True, text=True, check=False, timeout=120)


def end_ranks(out: Path) -> None:
    """torchrun starts each rank in a session of its own."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:  # it has ended meanwhile
            continue
        if str(out) in line:
            os.kill(int(folder.name), signal.SIGKILL)


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_npz(community_graph(), tmp_path_factory.mktemp("graph") / "tiny.npz")


def test_two_processes_are_one(graph_file: Path, tmp_path: Path) -> None:
    """Without dropout the weights are those of one process, up to the order of sums; and so is the folder."""
    quiet = ["--method", "glnn", "--set", "student.dropout=0", "--set", "train.epochs=12"]
    for ranks in (1, 2):
        done = launch(graph_file, tmp_path / str(ranks), *quiet, ranks=ranks)
        assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / str(ranks) / "student.safetensors") for ranks in (1, 2))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-5, rtol=1e-4)
    files = [{str(path.relative_to(out)) for path in out.rglob("*")} for out in (tmp_path / "1", tmp_path / "2")]
    assert files[0] == files[1]
    first, second = (result_of(tmp_path / str(ranks)) for ranks in (1, 2))
    assert first.keys() == second.keys()
    assert first["student"]["val"] == pytest.approx(second["student"]["val"], abs=0.003)


def test_every_part_of_the_recipe(graph_file: Path, tmp_path: Path) -> None:
    """Ensemble, table, similarity, adversary, mixing and average; rank 0 alone speaks, once."""
    done = launch(graph_file, tmp_path / "run", "--set", "student.input_dropout=0.2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"run: {tmp_path / 'run'}") == 1
    assert open_run(tmp_path / "run").student().regime == "structure"
    again = launch(graph_file, tmp_path / "run", "--set", "student.input_dropout=0.2", "--resume")
    assert again.returncode == 0, "a finished run needs no help, and nobody waits for it"


def test_killed_run_goes_on(graph_file: Path, tmp_path: Path) -> None:
    """SIGKILL for everyone in the middle of training; `--resume` ends with the weights of a run that was left alone."""
    settings = ("student.dropout=0.4", "train.epochs=150", "train.patience=150")
    noisy = ["--method", "nosmog", *(part for setting in settings for part in ("--set", setting))]
    assert launch(graph_file, tmp_path / "whole", *noisy).returncode == 0
    out = tmp_path / "killed"
    with subprocess.Popen(
        command(graph_file, out, *noisy), env=environment(), stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while process.poll() is None and not (out / "checkpoint" / "student.safetensors").exists():
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
    end_ranks(out)
    assert not (out / "result.json").exists()
    done = launch(graph_file, out, *noisy, "--resume")
    assert done.returncode == 0, done.stderr
    whole, resumed = (load_file(folder / "student.safetensors") for folder in (tmp_path / "whole", out))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "gsdn"], "Method 'gsdn' trains in one process only. Start it without torchrun."),
        (["--method", "glnn", "--set", "student.norm=batch"], "student.norm = 'batch' would normalise"),
        (["--method", "glnn", "--seeds", "2"], "torchrun trains one run"),
    ],
)
def test_what_cannot_be_divided(
    arguments: list[str], message: str, graph_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before the processes have met, and no folder is left."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert_one_line_error(invoke("distill", graph_file, "--out", tmp_path / "run", *arguments), message)
    assert not (tmp_path / "run").exists()


def test_alone_nothing_changes() -> None:
    """Outside `together()`, whatever the environment says."""
    ids, generator = torch.arange(5), torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert parallel.own_part(ids) is ids
    assert parallel.shared_epoch(ids, generator) is ids
    assert torch.equal(generator.get_state(), before)
    assert parallel.gradient_average(torch.nn.Linear(1, 1)) is None


def test_more_processes_than_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over no rows is not a number."""
    monkeypatch.setattr(parallel, "_active", True)
    monkeypatch.setattr(parallel.dist, "get_world_size", lambda: 4)
    with pytest.raises(MethodError, match="3 rows for 4 processes. Start fewer, or raise train.batch_size"):
        parallel.own_part(torch.arange(3))
