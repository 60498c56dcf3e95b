"""A run that was interrupted and goes on ends exactly where an uninterrupted one does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import torch

from graph2mlp.data.graph import GraphData
from graph2mlp.errors import RunError
from graph2mlp.methods import METHODS
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.train import train_teacher
from graph2mlp.training.checkpoint import Checkpoint
from graph2mlp.training.loop import EpochLog, silent
from tests.pipeline import run_method, same_weights

NOISY = (
    "train.epochs=7", "student.dropout=0.4", "student.input_dropout=0.1", "student.structure_dropout=0.2",
)  # fmt: skip


def _interrupt_after(epoch: int) -> EpochLog:
    def log(now: int, _: Mapping[str, float]) -> None:
        if now > epoch:
            raise KeyboardInterrupt

    return log


@pytest.mark.parametrize("after", [1, 4])
@pytest.mark.parametrize("method", METHODS)
def test_resumed_student_is_bit_equal(method: str, after: int, dense_graph: GraphData, tmp_path: Path) -> None:
    """Weights, optimisers, dropout and the order of batches all go on where they stopped."""
    whole = run_method(method, dense_graph, overrides=NOISY)
    file = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run_method(
            method, dense_graph, overrides=NOISY, checkpoint=Checkpoint(file, seconds=0), log=_interrupt_after(after)
        )
    epochs: list[int] = []
    resumed = run_method(
        method, dense_graph, overrides=NOISY, checkpoint=Checkpoint(file), log=lambda now, _: epochs.append(now)
    )
    assert epochs[0] == after + 1
    assert same_weights(whole.weights(), resumed.weights())
    assert (whole.fitted.epochs, whole.fitted.best_epoch) == (resumed.fitted.epochs, resumed.fitted.best_epoch)
    assert whole.fitted.best == resumed.fitted.best


def test_resumed_adversary_with_random_start(dense_graph: GraphData, tmp_path: Path) -> None:
    """The paper's schedule draws noise as well."""
    overrides = [*NOISY, "nosmog.steps=3", "nosmog.step_size=0.25", "nosmog.random_start=true", "nosmog.rows=1.0"]
    whole = run_method("nosmog", dense_graph, overrides=overrides)
    file = tmp_path / "c.safetensors"
    checkpoint = Checkpoint(file, seconds=0)
    with pytest.raises(KeyboardInterrupt):
        run_method("nosmog", dense_graph, overrides=overrides, checkpoint=checkpoint, log=_interrupt_after(3))
    resumed = run_method("nosmog", dense_graph, overrides=overrides, checkpoint=Checkpoint(file))
    assert same_weights(whole.weights(), resumed.weights())


@pytest.mark.parametrize("candidate", ["sage-mean", "sage-gcn"])
def test_resumed_teacher_is_bit_equal(
    candidate: str, dense_graph: GraphData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teachers are the long part of a run; each candidate goes on where it stopped."""
    monkeypatch.setattr("graph2mlp.teachers.train.Checkpoint", partial(Checkpoint, seconds=0))
    config = TeacherConfig(hidden=8, epochs=6, burn_in=1, dropout=0.3)
    graph = dense_graph.observed()
    whole, fitted = train_teacher(graph, config, seed=0)

    def interrupted(name: str) -> EpochLog:
        return _interrupt_after(3) if name == candidate else silent

    with pytest.raises(KeyboardInterrupt):
        train_teacher(graph, config, seed=0, checkpoints=tmp_path, log=interrupted)
    resumed, again = train_teacher(graph, config, seed=0, checkpoints=tmp_path)
    assert same_weights(whole.state_dict(), resumed.state_dict())
    assert (fitted.epochs, fitted.best) == (again.epochs, again.best)


def test_early_stop_after_resuming(dense_graph: GraphData, tmp_path: Path) -> None:
    """Patience goes on counting; a finished loop does not train another epoch."""
    overrides = ["train.epochs=60", "train.patience=2", "train.lr=0.05"]
    whole = run_method("mlp", dense_graph, overrides=overrides)
    assert whole.fitted.epochs < 60
    file = tmp_path / "c.safetensors"
    run_method("mlp", dense_graph, overrides=overrides, checkpoint=Checkpoint(file, seconds=0))
    epochs: list[int] = []
    again = run_method(
        "mlp", dense_graph, overrides=overrides, checkpoint=Checkpoint(file), log=lambda now, _: epochs.append(now)
    )
    assert not epochs
    assert again.fitted.epochs == whole.fitted.epochs
    assert same_weights(whole.weights(), again.weights())


def test_small_runs_write_nothing(dense_graph: GraphData, tmp_path: Path) -> None:
    """A checkpoint costs a flush to disk; a run of a second should not pay for it."""
    run_method("mlp", dense_graph, checkpoint=Checkpoint(tmp_path / "c.safetensors", seconds=3600))
    assert not list(tmp_path.iterdir())


def test_another_number_of_epochs_is_another_loop(dense_graph: GraphData, tmp_path: Path) -> None:
    """A training of fewer epochs that went on behind its end would keep the weights it started from."""
    file = tmp_path / "c.safetensors"
    five, seven = (["train.epochs=5", "train.burn_in=5"], ["train.epochs=7", "train.burn_in=7"])
    run_method("glnn", dense_graph, overrides=seven, checkpoint=Checkpoint(file, seconds=0))
    whole = run_method("glnn", dense_graph, overrides=five)
    again = run_method("glnn", dense_graph, overrides=five, checkpoint=Checkpoint(file))
    assert again.fitted.best_epoch == 5
    assert same_weights(whole.weights(), again.weights())


@pytest.mark.parametrize("damage", ["truncated", "another method", "another width"])
def test_checkpoint_that_does_not_fit(damage: str, dense_graph: GraphData, tmp_path: Path) -> None:
    """Going on from something else would give a result that no setting describes."""
    file = tmp_path / "c.safetensors"
    overrides = ["student.hidden=9"] if damage == "another width" else []
    method = "gsdn" if damage == "another method" else "glnn"
    run_method("glnn", dense_graph, checkpoint=Checkpoint(file, seconds=0))
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(RunError, match="c.safetensors does not fit this run .* Delete it to start over"):
        run_method(method, dense_graph, overrides=overrides, checkpoint=Checkpoint(file))


def test_checkpoint_holds_no_pickle(dense_graph: GraphData, tmp_path: Path) -> None:
    """A run folder may come from someone else; opening it must not execute anything."""
    from safetensors import safe_open

    file = tmp_path / "c.safetensors"
    run_method("nosmog", dense_graph, checkpoint=Checkpoint(file, seconds=0))
    with safe_open(file, framework="pt") as stored:
        assert stored.metadata()["loop"]
        assert all(isinstance(stored.get_tensor(name), torch.Tensor) for name in stored.keys())  # noqa: SIM118
