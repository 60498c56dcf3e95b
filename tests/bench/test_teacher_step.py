"""The ways of a training step that are timed do the same work."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from bench import teacher_step
from graph2mlp.data.graph import GraphData
from graph2mlp.teachers import models, propagate


@pytest.mark.parametrize("teacher", teacher_step.TEACHERS)
def test_ways(teacher: str, dense_graph: GraphData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours and torch's gradient agree; the peer has our layers; torch's gradient does not stay."""
    built: list[torch.nn.Module] = []
    for owner, name in ((teacher_step, "build_teacher"), (teacher_step, "_Peer")):
        made = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, made=made, **k: built.append(made(*a, **k)) or built[-1])
    ways = teacher_step.steps(dense_graph.observed(), teacher)
    ours, peer = built
    ours.eval()  # no dropout, which each call would draw anew
    gradients = []
    for way in ("ours", "torch"):
        ours.zero_grad()
        ways[way]()
        gradients.append([one.grad.clone() for one in ours.parameters() if one.grad is not None])
    torch.testing.assert_close(*gradients)
    ways["PyG"]()
    assert all(one.grad is not None for one in peer.parameters())
    assert {tuple(sorted(one.shape)) for one in peer.parameters()} >= {tuple(sorted(one.shape)) for one in gradients[0]}
    assert models.sum_neighbours is propagate.sum_neighbours
    assert propagate.sum_neighbours is not torch.sparse.mm


def test_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for each teacher and way, with the machine."""
    out = tmp_path / "steps.csv"
    monkeypatch.setattr("sys.argv", ["teacher_step", "--graphs", "digits", "--rounds", "1", "--csv", str(out)])
    teacher_step.main()
    rows = list(csv.DictReader(out.open()))
    assert {(row["teacher"], row["what"]) for row in rows} == {
        (teacher, what) for teacher in teacher_step.TEACHERS for what in ("ours", "torch", "PyG", "forward")
    }
    assert all(float(row["cpu_ms"]) > 0 and row["torch"] for row in rows)
