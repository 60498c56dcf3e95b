"""`torchrun -m graph2mlp distill`: several processes train the student that one process would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from graph2mlp.data.features import SparseRows, row_slice
from graph2mlp.errors import MethodError
from graph2mlp.noise import Part, part_of_batch
from graph2mlp.run import open_run
from graph2mlp.students.base import StudentInput, StudentSpec
from graph2mlp.students.mlp import MLPStudent
from graph2mlp.training import parallel
from tests.cli import assert_one_line_error, invoke, result_of
from tests.graphs import community_graph, save_npz
from tests.pipeline import SMALL

ROOT = Path(__file__).parents[1]
NOISE = ("student.dropout", "student.input_dropout", "student.structure_dropout")
WIDE: dict[str, Any] = {"features": 12, "classes": 3, "structure": 5, "layers": 3, "hidden": 7}


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


CASES = {
    "glnn": (["--method", "glnn"], False, 3),
    # Attack, mixing, table, three teachers, and terms over pairs, over neighbours and with heads of their own.
    "blend": (["--method", "blend", "--set", "loss.gcrd=0.1", "--set", "loss.lsp=1", "--set", "loss.gsp=0.1"], True, 2),
}


@pytest.mark.parametrize("case", CASES)
def test_several_processes_are_one(case: str, tmp_path: Path) -> None:
    """The weights are those of one process up to the order of sums, dropout included; and so is the folder."""
    method, sparse, most = CASES[case]
    file = community_graph(sparse=sparse).save(tmp_path / "tiny.npz")
    noisy = [*method, *(part for name in NOISE for part in ("--set", f"{name}=0.3")), "--set", "train.epochs=12"]
    for ranks in (1, most):
        done = launch(file, tmp_path / str(ranks), *noisy, ranks=ranks)
        assert done.returncode == 0, done.stderr
    one, many = (load_file(tmp_path / str(ranks) / "student.safetensors") for ranks in (1, most))
    for name, weight in one.items():
        torch.testing.assert_close(many[name], weight, atol=1e-4, rtol=1e-3)
    files = [{str(path.relative_to(out)) for path in out.rglob("*")} for out in (tmp_path / "1", tmp_path / str(most))]
    assert files[0] == files[1]
    first, second = (result_of(tmp_path / str(ranks)) for ranks in (1, most))
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


def test_nobody_leaves_before_all_are_done(graph_file: Path, tmp_path: Path) -> None:
    """A student that is trained already has no step in which ranks would meet: rank 0 must not finish the run, and
    remove the checkpoint, while another still reads its graph."""
    driver = tmp_path / "driver.py"
    driver.write_text(_DRIVER, encoding="utf-8")
    glnn = ["--method", "glnn"]
    for how, code in (("interrupt", 1), ("slow", 0)):
        line = [str(driver) if part == "graph2mlp" else part for part in command(graph_file, tmp_path / "run", *glnn)]
        line.pop(line.index(str(driver)) - 1)  # -m
        line += ["--resume"] if how == "slow" else []
        done = subprocess.run(
            line, env={**environment(), "HOW": how}, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == code, done.stderr
    assert (tmp_path / "run" / "result.json").exists()


_DRIVER = """
import importlib, os, time

rank = int(os.environ["RANK"])
if os.environ["HOW"] == "interrupt":
    def stop(*_):
        raise OSError(28, "No space left on device")
    importlib.import_module("graph2mlp.distill")._control = stop
elif rank:
    ranks = importlib.import_module("graph2mlp.ranks")
    read = ranks.read_inputs
    def slowly(*given):
        time.sleep(4)
        return read(*given)
    ranks.read_inputs = slowly
importlib.import_module("graph2mlp.cli").app()
"""


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
    student = MLPStudent(StudentSpec(features=4, classes=3, hidden=5)).eval()
    inputs = StudentInput(torch.rand(6, 4))
    embedded = parallel.embed(student, inputs)
    assert torch.equal(embedded, student.embed(inputs))
    assert torch.equal(parallel.head(student, embedded).logits, student(inputs).logits)
    assert parallel.whole_gradient(embedded) is embedded
    assert parallel.gradient_sum(student) is None


def test_more_processes_than_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone would have nothing to do, and every step would wait for it."""
    monkeypatch.setattr(parallel, "_active", True)
    monkeypatch.setattr(parallel.dist, "get_world_size", lambda: 4)
    monkeypatch.setattr(parallel.dist, "get_rank", lambda: 0)
    student = MLPStudent(StudentSpec(features=4, classes=3))
    with pytest.raises(MethodError, match="3 rows for 4 processes. Start fewer, or raise train.batch_size"):
        parallel.embed(student, StudentInput(torch.rand(3, 4)))


@pytest.mark.parametrize("sparse", [False, True])
def test_parts_draw_what_the_whole_draws(sparse: bool) -> None:
    """Dropout of features, of rows and of activations, in three parts, is that of the whole batch, to the last bit."""
    student = MLPStudent(StudentSpec(**WIDE, dropout=0.4, input_dropout=0.3, structure_dropout=0.2))
    graph = community_graph(sparse=sparse)
    structure = torch.rand(61, 5)
    torch.manual_seed(1)
    whole = student(StudentInput(graph.features(torch.arange(61)), structure))
    state = torch.get_rng_state()
    for start, stop in ((0, 21), (21, 22), (22, 61)):
        features = graph.features(torch.arange(61))
        entries = None
        if isinstance(features, SparseRows):
            entries = Part(*features.offsets[[start, stop, 61]].tolist())
        torch.manual_seed(1)
        with part_of_batch(Part(start, stop, 61), entries):
            part = student(StudentInput(row_slice(features, start, stop), structure[start:stop]))
        assert torch.equal(torch.get_rng_state(), state)
        torch.testing.assert_close(part.logits, whole.logits[start:stop], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("device", "wanted"), [("cpu", "gloo"), ("cuda:1", "cpu:gloo,cuda:nccl")])
def test_processes_meet_where_they_train(device: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores and calls are numbers of the CPU even where outputs and gradients lie on a GPU."""
    met: list[object] = []
    monkeypatch.setattr("torch.distributed.init_process_group", lambda backend, **_how: met.append(backend))
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: met.append("left"))
    monkeypatch.setattr("torch.cuda.set_device", lambda one: met.append(str(one)))
    with parallel.joined(torch.device(device)) as rank:
        assert rank == 1
    assert met == [*([device] if device != "cpu" else []), wanted, "left"]
