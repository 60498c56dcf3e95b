"""Runs with an ensemble: every stage and command that knows one teacher knows several."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from graph2mlp.data.graph import GraphData
from graph2mlp.data.targets import Classes
from graph2mlp.run import open_run
from graph2mlp.teachers import train
from graph2mlp.teachers.ensemble import Ensemble
from graph2mlp.teachers.models import Teacher
from graph2mlp.training.checkpoint import Checkpoint
from graph2mlp.training.journal import Journal
from graph2mlp.training.loop import EpochLog
from tests.cli import assert_one_line_error, distill, invoke, result_of
from tests.graphs import community_graph, save_npz


@torch.no_grad()
def _logits(teacher: Teacher, graph: GraphData) -> Tensor:
    logits: Tensor = teacher(graph.features(), teacher.adjacency(graph))[0]
    return logits


@pytest.fixture
def graph_file(tmp_path: Path) -> Path:
    """The tiny graph as a user's file."""
    return save_npz(community_graph(), tmp_path / "tiny.npz")


def test_production_run(graph_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a run says of a single teacher it says of an ensemble, computed here from the members by hand."""
    monkeypatch.setenv("GRAPH2MLP_CACHE", str(tmp_path / "cache"))  # a member in the cache would not be trained here
    out = tmp_path / "run"
    done = distill(graph_file, out, "--setting", "production", "--teacher", "appnp+gcn+sage")
    assert done.exit_code == 0, done.output
    opened, about = open_run(out), result_of(out)["teacher"]
    graph, ensemble = opened.graph(), opened.teacher()
    assert isinstance(ensemble, Ensemble)
    members = ensemble.teachers()
    assert about["name"] == "appnp+gcn+sage"
    assert about["parameters"] == sum(p.numel() for member in members for p in member.parameters())
    assert [one["name"] for one in about["members"]] == ["appnp", "gcn", "sage"]
    (knowledge,) = opened.knowledge()
    assert (out / "knowledge" / "appnp+gcn+sage.safetensors").exists()
    assert knowledge.name == "appnp+gcn+sage"
    assert [tuple(layer.shape) for layer in knowledge.hidden.values()] == [(len(knowledge.node_ids), 3 * 8)]
    observed = graph.observed()
    for one, member in zip(about["members"], members, strict=True):
        assert one["val"] == Classes().score(
            _logits(member, observed)[observed.split.val], observed.y[observed.split.val]
        )
    source, target = (np.isin(end.numpy(), graph.split.unseen.numpy()) for end in graph.edge_index)
    unseen = graph.split.unseen
    for name, kept in (("ind", ~(source & target)), ("cold", ~(source | target))):
        part = replace(graph, edge_index=graph.edge_index[:, torch.from_numpy(kept)])
        shares = zip(members, ensemble.sharpness, about["members"], strict=True)
        mean = sum(told["weight"] * (sharp * _logits(member, part)).softmax(1) for member, sharp, told in shares)
        assert about[name] == Classes().score(torch.as_tensor(mean)[unseen], graph.y[unseen])
    test = graph.split.test
    assert about["tran"] == Classes().score(knowledge.logits[knowledge.rows(graph.node_ids[test])], graph.y[test])
    assert about["prod"] == pytest.approx(0.8 * about["tran"] + 0.2 * about["ind"])
    stages = {json.loads(line)["stage"] for line in (out / "metrics.jsonl").read_text().splitlines()}
    assert {"teacher appnp", "teacher gcn", "teacher sage"} <= stages


def test_other_commands_take_the_run(graph_file: Path, tmp_path: Path) -> None:
    """The teacher's rows of the bench, and the knowledge file in another run, whose name holds a plus."""
    run, rows = tmp_path / "run", tmp_path / "rows.json"
    assert distill(graph_file, run, "--teacher", "gcn+gat").exit_code == 0
    assert invoke("export", run, "--onnx").exit_code == 0
    done = invoke("bench", run / "bundle", "--batch", 3, "--seconds", 0.02, "--against", run, "--json", rows)
    assert done.exit_code == 0, done.output
    found = json.loads(rows.read_text())["rows"]
    teachers = [row for row in found if row["what"].startswith("teacher") and "sampled" not in row["what"]]
    assert teachers
    wanted = result_of(run)["teacher"]["test"]
    assert [row["accuracy"] for row in teachers] == [pytest.approx(wanted)] * len(teachers)
    file = run / "knowledge" / "gcn+gat.safetensors"
    assert "gcn+gat" in invoke("inspect", file).stdout
    assert distill(graph_file, tmp_path / "other", "--knowledge", file).exit_code == 0
    assert result_of(tmp_path / "other")["student"] == result_of(run)["student"]
    assert_one_line_error(distill(graph_file, tmp_path / "bad", "--teacher", "gcn+gta"), "'gta'", "Did you mean 'gat'?")


@pytest.mark.parametrize("teacher", ["appnp+gcn+sage", "gcn+gcn"])
def test_interrupted_in_the_second_member(
    teacher: str, graph_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours into the second training: the first is not trained again, the second goes on, the result is the same."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    monkeypatch.setenv("GRAPH2MLP_CACHE", str(tmp_path / "cache"))
    assert distill(graph_file, whole, "--teacher", teacher).exit_code == 0
    monkeypatch.setenv("GRAPH2MLP_CACHE", str(tmp_path / "other cache"))
    second = "teacher gcn copy-2" if teacher == "gcn+gcn" else "teacher gcn"
    epochs: list[tuple[str, int]] = []
    stage = Journal.stage
    stops = [4]

    def watched(self: Journal, name: str, also: EpochLog) -> EpochLog:
        write = stage(self, name, also)

        def log(epoch: int, figures: Any) -> None:
            if name == second and stops and epoch == stops[0]:
                stops.clear()
                raise KeyboardInterrupt
            epochs.append((name, epoch))
            write(epoch, figures)

        return log

    monkeypatch.setattr(Journal, "stage", watched)
    monkeypatch.setattr(train, "Checkpoint", partial(Checkpoint, seconds=0))
    stopped = distill(graph_file, out, "--teacher", teacher)
    assert stopped.exit_code == 130
    assert not (out / "result.json").exists()
    resumed = distill(graph_file, out, "--teacher", teacher, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert [epoch for name, epoch in epochs if name == second] == [1, 2, 3, 4, 5, 6], "goes on where it stopped"
    assert len(set(epochs)) == len(epochs), "nothing is trained twice"
    first, again = result_of(whole), result_of(out)
    for part in ("student", "fingerprint"):
        assert again[part] == first[part]
    # The first member of the resumed run came from the cache, the others did not.
    assert {**again["teacher"], "cached": None} == {**first["teacher"], "cached": None}
    files = ("student.safetensors", "teacher.safetensors")
    assert [(whole / file).read_bytes() for file in files] == [(out / file).read_bytes() for file in files]
    assert not (out / "checkpoint").exists()
