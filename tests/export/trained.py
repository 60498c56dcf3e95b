"""Runs whose students were trained, in a second or two: rounding must never be judged on random weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from graph2mlp.data.graph import GraphData
from graph2mlp.data.splits import Split
from graph2mlp.export import candidate as candidates
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import StudentInput, StudentSpec
from graph2mlp.students.mlp import MLPStudent

NODES, FEATURES, CLASSES, WIDTH = 900, 64, 5, 16


def trained_run(*, sparse: bool = False, structure: bool = False, hidden: int = 128, noise: float = 1.3) -> Any:
    """A stand-in for a run: five noisy clusters, a student of three layers that has learned most of them.

    A third of the nodes trains, a third validates, a third tests. Sparse features are the positive ones.
    """
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(NODES) % CLASSES
    x = torch.randn(CLASSES, FEATURES, generator=generator)[y] * 0.5
    x = x + noise * torch.randn(NODES, FEATURES, generator=generator)
    x = x.relu() if sparse else x
    order = torch.randperm(NODES, generator=generator)
    ring = torch.arange(NODES)
    graph = GraphData(
        name="clusters",
        x=x.to_sparse_csr() if sparse else x,
        edge_index=torch.stack([torch.cat([ring, ring.roll(1)]), torch.cat([ring.roll(1), ring])]),
        y=y,
        split=Split(order[:300], order[300:600], order[600:]),
        class_names=tuple("abcde"),
    )
    table = None
    if structure:
        known = torch.arange(NODES) % 50 != 0
        rows = torch.randn(CLASSES, WIDTH, generator=generator)[y] + torch.randn(NODES, WIDTH, generator=generator)
        table = StructureTable("made-up", rows * known[:, None], known)
    student = _train(graph, x, table, hidden)
    return SimpleNamespace(
        path=Path("runs/clusters"),
        result={"method": "mlp", "seed": 0},
        config=SimpleNamespace(setting="transductive"),
        fingerprint="clusters",
        graph=lambda: graph,
        student=lambda: student,
        structure=lambda: table,
    )


def _train(graph: GraphData, x: torch.Tensor, table: StructureTable | None, hidden: int) -> MLPStudent:
    torch.manual_seed(0)
    width = 0 if table is None else WIDTH
    spec = StudentSpec(features=FEATURES, structure=width, classes=CLASSES, layers=3, hidden=hidden, norm="batch")
    student = MLPStudent(spec).train()
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    rows = graph.split.train
    for _ in range(25):
        optimizer.zero_grad()
        inputs = StudentInput(x[rows], None if table is None else table.rows[rows])
        F.cross_entropy(student(inputs).logits, graph.y[rows]).backward()
        optimizer.step()
    return student.eval()


def spoil_quantizer(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """The files of presets `names` favour one class: wrong in a way that only an accuracy shows."""
    quantize = candidates.quantize

    def spoil(model, preset, ranges):
        out, done = quantize(model, preset, ranges)
        if preset.name in names:
            for tensor in out.graph.initializer:
                if tensor.name.endswith("bias"):
                    values = np.frombuffer(tensor.raw_data, np.float32)
                    tensor.raw_data = (values + 30 * (np.arange(values.size) == 0)).astype(np.float32).tobytes()
        return out, done

    monkeypatch.setattr(candidates, "quantize", spoil)
