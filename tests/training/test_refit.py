"""Validation nodes taught last: `train.teach_val=refit`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graph2mlp.data.graph import GraphData
from graph2mlp.methods.base import Stage
from graph2mlp.students.base import StudentSpec
from graph2mlp.training.checkpoint import Checkpoint
from graph2mlp.training.student import train_student
from tests.cli import distill, result_of
from tests.graphs import community_graph, save_npz
from tests.pipeline import make_stage, same_weights, small_config

SETTINGS = ["train.epochs=300", "train.patience=10", "train.lr=0.05", "train.burn_in=5", "student.dropout=0.4"]
"""On any machine the epoch that is kept comes after the fifth and before the last; which one, rounding decides."""


def prepared(graph: GraphData, teach_val: str, **changed: Any) -> tuple[Any, StudentSpec, Stage]:
    """What `train_student` takes; new nodes are to be answered unless told otherwise."""
    config = small_config("blend_features", overrides=[*SETTINGS, f"train.teach_val={teach_val}"])
    stage, spec = make_stage(config, graph)
    return config.hyper, spec, replace(stage, **{"new_nodes": True} | changed)


def test_as_many_epochs_as_were_best_without_them(dense_graph: GraphData) -> None:
    """The weights are those of a training on all nodes; what is said of it, of the one that chose its length."""
    method, spec, stage = prepared(dense_graph, "known")
    _, chosen = train_student(method, spec, stage)
    assert 5 < chosen.best_epoch < chosen.epochs
    always = replace(stage.train, teach_val="always", epochs=chosen.best_epoch, burn_in=chosen.best_epoch)
    wanted, alone = train_student(method, spec, replace(stage, train=always))
    student, fitted = train_student(*prepared(dense_graph, "refit"))
    assert same_weights(student.state_dict(), wanted.state_dict())
    assert alone.epochs == alone.best_epoch == chosen.best_epoch
    assert (fitted.val, chosen.val) == (chosen.best.value, None)  # without a table there is one form of request
    assert (fitted.best, fitted.best_epoch, fitted.epochs) == (chosen.best, chosen.best_epoch, chosen.epochs)


def test_one_training_where_all_nodes_are_known(dense_graph: GraphData) -> None:
    """There validation nodes are taught from the start."""
    student, fitted = train_student(*prepared(dense_graph, "refit", new_nodes=False))
    same, _ = train_student(*prepared(dense_graph, "known", new_nodes=False))
    assert same_weights(student.state_dict(), same.state_dict())
    assert fitted.val is None


@pytest.mark.parametrize("when", ["log", "refit_log"])
def test_goes_on_where_it_was_interrupted(when: str, dense_graph: GraphData, tmp_path: Path) -> None:
    """In either training, to the same bits; a training that is over does not run again."""
    given = prepared(dense_graph, "refit")
    whole, _ = train_student(*given)

    def stop(epoch: int, _: Any) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    def checkpoint() -> Checkpoint:
        return Checkpoint(tmp_path / "student.safetensors", seconds=0)

    with pytest.raises(KeyboardInterrupt):
        train_student(*given, **{when: stop}, checkpoint=checkpoint())
    epochs: dict[str, list[int]] = {"log": [], "refit_log": []}
    logs = {name: lambda epoch, _, seen=seen: seen.append(epoch) for name, seen in epochs.items()}
    resumed, _ = train_student(*given, **logs, checkpoint=checkpoint())  # type: ignore[arg-type]
    assert epochs[when][0] == 3
    assert (epochs["log"] == []) == (when == "refit_log")
    assert same_weights(whole.state_dict(), resumed.state_dict())


def test_result_says_what_was_known_before(tmp_path: Path) -> None:
    """The validation accuracy of a run is that of the training which had not seen these nodes; the test figures are
    those of the student that is kept. The plain MLP is the same either way."""
    graph = save_npz(community_graph(), tmp_path / "tiny.npz")
    found = {}
    for teach in ("known", "refit"):
        given = [part for one in (*SETTINGS, f"train.teach_val={teach}") for part in ("--set", one)]
        out = tmp_path / teach
        done = distill(graph, out, "--method", "blend_features", "--setting", "production", *given)
        assert done.exit_code == 0, done.output
        found[teach] = result_of(out)
    known, refit = found["known"], found["refit"]
    assert known["student"]["val"] == refit["student"]["val"]
    assert known["mlp"] == refit["mlp"]
    assert known["fingerprint"] != refit["fingerprint"]
    lines = [json.loads(line) for line in (tmp_path / "refit" / "metrics.jsonl").read_text().splitlines()]
    again = [one["epoch"] for one in lines if one["stage"] == "student, validation nodes taught"]
    kept = max(one["kept"] for one in lines if one["stage"] == "student")
    assert again == list(range(1, kept + 1))
