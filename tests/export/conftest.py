"""Made-up students, tables, requests and runs, small enough to export in about a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from graph2mlp.data.graph import GraphData
from graph2mlp.data.splits import Split
from graph2mlp.export.requests import Requests
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import StudentSpec
from graph2mlp.students.mlp import MLPStudent

FEATURES, WIDTH, NODES, CLASSES = 20, 5, 30, 4


def random_student(
    *, structure: bool = True, layers: int = 2, norm: Literal["none", "batch"] = "none", seed: int = 0
) -> MLPStudent:
    """Random weights; batch normalisation with statistics and signs that would show any slip in the folding."""
    torch.manual_seed(seed)
    spec = StudentSpec(
        features=FEATURES, structure=WIDTH if structure else 0, classes=CLASSES, layers=layers, hidden=8, norm=norm
    )
    student = MLPStudent(spec)
    for module in student.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 3)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return student.eval()


def random_table(seed: int = 0) -> StructureTable:
    """Every fifth node is unknown."""
    generator = torch.Generator().manual_seed(seed)
    known = torch.arange(NODES) % 5 != 0
    return StructureTable("made-up", torch.randn(NODES, WIDTH, generator=generator) * known[:, None], known)


def random_requests(count: int, *, sparse: bool, width: int = 3, seed: int = 0) -> Requests:
    """Between 0 and `width` neighbours per request, unknown ones among them; some rows of features are empty."""
    rng = np.random.default_rng(seed)
    neighbors = rng.integers(0, NODES, (count, width))
    neighbors[np.arange(width) >= rng.integers(0, width + 1, count)[:, None]] = -1
    x = rng.normal(size=(count, FEATURES)) * (rng.random((count, FEATURES)) < 0.3)
    requests = Requests(x=x, neighbors=neighbors, ids=np.arange(count))
    if not sparse:
        return requests
    indices, values = requests.sparse()
    return Requests(indices=indices, values=values, neighbors=neighbors, ids=requests.ids)


def random_run(*, sparse: bool = True, structure: bool = True, setting: str = "production", seed: int = 0) -> Any:
    """A stand-in for a finished run: 30 nodes in a ring with a few chords, the last six unseen."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(NODES, FEATURES, generator=generator)
    x = torch.where(x < 0.3, x, 0.0)
    ring = torch.arange(NODES)
    source = torch.cat([ring, torch.tensor([3, 7, 24, 25])])
    target = torch.cat([(ring + 1) % NODES, torch.tensor([12, 20, 2, 28])])
    production = setting == "production"
    split = Split(
        train=torch.arange(0, 6),
        val=torch.arange(6, 10),
        test=torch.arange(10, 24 if production else 30),
        unseen=torch.arange(24, 30) if production else torch.empty(0, dtype=torch.long),
    )
    graph = GraphData(
        name="ring",
        x=x.to_sparse_csr() if sparse else x,
        edge_index=torch.stack([torch.cat([source, target]), torch.cat([target, source])]),
        y=torch.randint(0, CLASSES, (NODES,), generator=generator),
        split=split,
        class_names=("a", "b", "c", "d"),
    )
    known = torch.ones(NODES, dtype=torch.bool)
    known[split.unseen] = False
    table = StructureTable("made-up", torch.randn(NODES, WIDTH, generator=generator) * known[:, None], known)
    student = random_student(structure=structure, seed=seed)
    return SimpleNamespace(
        path=Path("runs/made-up"),
        result={"method": "nosmog", "seed": seed, "teacher": {"test": 0.5}, "student": {"test": 0.5}},
        config=SimpleNamespace(setting=setting),
        fingerprint="made-up",
        graph=lambda: graph,
        student=lambda: student,
        structure=lambda: table if structure else None,
        teacher=lambda: MeanTeacher(FEATURES, CLASSES, seed),
        control=lambda: MLPStudent(StudentSpec(features=FEATURES, classes=CLASSES, hidden=8)),
    )


class MeanTeacher(nn.Module):
    """Two layers of mean aggregation, the least that needs a 2-hop fetch."""

    hops = 2

    def __init__(self, features: int, classes: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(features, 6, generator=generator))
        self.second = nn.Parameter(torch.randn(6, classes, generator=generator))

    def adjacency(self, graph: GraphData) -> torch.Tensor:
        dense = torch.zeros(graph.num_nodes, graph.num_nodes)
        dense[graph.edge_index[1], graph.edge_index[0]] = 1
        return (dense / dense.sum(1, keepdim=True).clamp(min=1)).to_sparse_csr()

    def forward(
        self, x: Any, adjacency: torch.Tensor, ids: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        from graph2mlp.data.features import project

        hidden = adjacency @ project(x, self.first)
        return adjacency @ (hidden.relu() @ self.second), (hidden,)

    def logits(self, x: Any, adjacency: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        return self(x, adjacency, ids)[0]


@pytest.fixture(scope="session")
def make_student() -> Callable[..., MLPStudent]:
    return random_student


@pytest.fixture(scope="session")
def make_table() -> Callable[..., StructureTable]:
    return random_table


@pytest.fixture(scope="session")
def make_requests() -> Callable[..., Requests]:
    return random_requests


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Any]:
    return random_run


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Bundles by kind, each exported once: `sparse`, `dense` (with structure), `features`, `zip`. Do not change."""
    from graph2mlp.export.deploy import export_run

    folder = tmp_path_factory.mktemp("bundles")
    kinds: dict[str, dict[str, Any]] = {
        "sparse": {"sparse": True},
        "dense": {"sparse": False},
        "features": {"sparse": False, "structure": False, "setting": "transductive"},
        "zip": {"sparse": True},
    }

    def get(kind: str) -> Path:
        path = folder / ("bundle.zip" if kind == "zip" else kind)
        if not path.exists():
            export_run(random_run(**kinds[kind]), out=path)
        return path

    return get
