"""Made-up graphs for the tests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graph2mlp.data.graph import GraphData
from graph2mlp.data.splits import Split, production_split

NODES, CLASSES, FEATURES = 61, 3, 12


def community_graph(*, sparse: bool = False, seed: int = 7, production: bool = False) -> GraphData:
    """61 nodes in 3 communities that edges mostly respect; the last node is isolated.

    Features are bags of words: mostly zeros, a few values other than 1, a class prefers its own four words. 4 nodes per
    class train, 4 validate, the rest (and the isolated node) test.
    """
    state = np.random.RandomState(seed)
    y = np.arange(NODES) % CLASSES
    same = y[:, None] == y[None, :]
    edges = np.triu(state.rand(NODES, NODES) < np.where(same, 0.25, 0.02), 1)
    edges[:, -1] = False
    source, target = np.nonzero(edges | edges.T)
    own = (np.arange(FEATURES)[None, :] // (FEATURES // CLASSES)) == y[:, None]
    x = (state.rand(NODES, FEATURES) < np.where(own, 0.3, 0.1)) * state.choice([0.5, 1.0, 2.0], (NODES, FEATURES))
    x[5] = 0  # a document without words
    dense = torch.from_numpy(x.astype(np.float32))
    ids = torch.arange(NODES)
    split = Split(ids[:12], ids[12:24], ids[24:])
    return GraphData(
        name="tiny",
        x=dense.to_sparse_csr() if sparse else dense,
        edge_index=torch.from_numpy(np.stack([source, target])),
        y=torch.from_numpy(y),
        split=production_split(split, 0) if production else split,
        class_names=tuple("abc"),
    )


def task_graph(task: str, **how: Any) -> GraphData:
    """The community graph, asked for something else: which of two traits, or two quantities of different size."""
    graph = community_graph(**how)
    kind = graph.y.clone()
    noise = torch.from_numpy(np.random.RandomState(3).randn(NODES, 2).astype(np.float32))
    if task == "classification":
        return graph
    if task == "multilabel":
        return replace(graph, y=torch.stack([kind > 0, kind < 2, kind == 1], 1).long(), class_names=("p", "q", "r"))
    y = torch.stack([kind + 0.1 * noise[:, 0], 5e4 - 1e3 * kind + 100 * noise[:, 1]], 1)
    return replace(graph, y=y, class_names=("age", "income"))


def weighted_graph(**how: Any) -> GraphData:
    """The community graph with a weight of 0.2 to 5 at each edge, the same in both directions."""
    graph = community_graph(**how)
    low, high = graph.edge_index.min(0).values, graph.edge_index.max(0).values
    pair = (low * NODES + high).double()
    return replace(graph, edge_weight=(0.2 + 4.8 * (pair * 0.618034 % 1)).float())


def save_npz(graph: GraphData, path: Path, **changed: Any) -> Path:
    """The graph as a user's plain `.npz` file; `changed` replaces arrays."""
    parts = {name: getattr(graph.split, name).numpy() for name in ("train", "val", "test")}
    arrays = {"x": graph.x.to_dense().numpy(), "edge_index": graph.edge_index.numpy(), "y": graph.y.numpy(), **parts}
    np.savez(path, **{**arrays, **changed})
    return path


def _matrix(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@dataclass(frozen=True)
class F4:
    """Fixture F4 of the method specs: teacher and student features and logits of four nodes."""

    T: Tensor = field(default_factory=lambda: _matrix([[1, 0, 2], [0, 1, 1], [2, 1, 0], [1, 3, 1]]))
    S: Tensor = field(default_factory=lambda: _matrix([[1, 1, 0], [0, 2, 1], [3, 0, 1], [1, -1, 1]]))
    Zt: Tensor = field(default_factory=lambda: _matrix([[2, 0, -1], [0, 1, 0], [1, 1, -2], [0, -1, 3]]))
    Zs: Tensor = field(default_factory=lambda: _matrix([[1, 0, 0], [0, 2, 1], [0, 0, 0], [1, 0, 1]]))
    y: Tensor = field(default_factory=lambda: torch.tensor([0, 1, 1, 2]))
    edges: Tensor = field(default_factory=lambda: torch.tensor([[1, 0, 2, 3, 1, 3, 1, 2], [0, 1, 1, 1, 2, 2, 3, 3]]))
