"""What one training step of a built-in teacher costs: `python -m bench.teacher_step --graphs cpf:cora,cpf:a-computer`.

Forward and backward pass over the whole graph, one thread, CPU time, the ways in turns: `ours`; `torch`, the same
network with torch's own gradient of the sparse product, which sorts the edges anew at every step; and `PyG`, its layers
over an edge list as its examples have them (messages gathered and scattered). `forward` is our forward pass alone: with
the same products to do twice more, three times it is about what a step must cost.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import APPNP, GCNConv, SAGEConv

from bench.big_table import write_rows
from graph2mlp.data.datasets import load_graph
from graph2mlp.data.features import dense_rows
from graph2mlp.data.graph import GraphData
from graph2mlp.teachers import models, propagate
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.models import build_teacher
from graph2mlp.training.seed import seeded

RESULTS = Path(__file__).parent / "results"
TEACHERS = ("gcn", "sage", "appnp")


class _Peer(nn.Module):
    """The teacher of PyG's own layers, of our widths; edges are normalised once, as ours are."""

    def __init__(self, name: str, graph: GraphData, config: TeacherConfig) -> None:
        super().__init__()
        widths, self.dropout = (graph.num_features, config.hidden, graph.num_classes), config.dropout
        self.spread: nn.Module | None = None
        if name == "appnp":
            self.layers = nn.ModuleList([nn.Linear(*widths[:2]), nn.Linear(*widths[1:])])
            self.spread = APPNP(config.steps, config.teleport, cached=True)
        else:
            conv, how = (GCNConv, {"cached": True}) if name == "gcn" else (SAGEConv, {})
            self.layers = nn.ModuleList([conv(*widths[:2], **how), conv(*widths[1:], **how)])

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        edge = () if self.spread is not None else (edges,)
        h = F.dropout(F.relu(self.layers[0](x, *edge)), self.dropout, self.training)
        out: Tensor = self.layers[1](h, *edge)
        return out if self.spread is None else self.spread(out, edges)  # type: ignore[no-any-return]


@contextmanager
def _torch_gradient() -> Iterator[None]:
    """In here teachers use torch's own gradient of the product."""
    kept = propagate.sum_neighbours
    propagate.sum_neighbours = models.sum_neighbours = torch.sparse.mm  # type: ignore[attr-defined]
    try:
        yield
    finally:
        propagate.sum_neighbours = models.sum_neighbours = kept  # type: ignore[attr-defined]


def steps(graph: GraphData, name: str) -> dict[str, Callable[[], object]]:
    """One step of each way."""
    config = TeacherConfig(name=name, aggregator="mean")
    with seeded(0, "bench"):
        ours = build_teacher(graph.num_features, graph.num_classes, config, node_ids=graph.node_ids)
        peer = _Peer(name, graph, config)
    x, adjacency, train = graph.features(), ours.adjacency(graph), graph.split.train
    rows = dense_rows(x)

    def step(logits: Tensor) -> None:
        F.cross_entropy(logits[train], graph.y[train]).backward()

    def own() -> None:
        step(ours(x, adjacency, graph.node_ids)[0])

    def with_torch() -> None:
        with _torch_gradient():
            own()

    def forward() -> None:
        with torch.no_grad():
            ours(x, adjacency, graph.node_ids)

    return {"ours": own, "torch": with_torch, "PyG": lambda: step(peer(rows, graph.edge_index)), "forward": forward}


def measure(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU milliseconds of each, called in turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 2):
        for name, way in ways.items():
            started = process_time()
            way()
            if turn >= 2:  # the first ones make what is made once
                times[name].append(1000 * (process_time() - started))
    return {name: median(found) for name, found in times.items()}


def main() -> None:
    """Measure every teacher on every graph, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", default="cpf:cora,cpf:a-computer")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--csv", type=Path, default=RESULTS / "teacher_step.csv")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for graph_name in given.graphs.split(","):
        graph = load_graph(graph_name, seed=0).observed()
        for name in TEACHERS:
            found = measure(steps(graph, name), given.rounds)
            about = {"graph": graph_name, "nodes": graph.num_nodes, "edges": graph.num_edges, "teacher": name}
            rows += [{**about, "what": what, "cpu_ms": round(ms, 3)} for what, ms in found.items()]
            print(graph_name, name, {what: round(ms, 1) for what, ms in found.items()}, flush=True)
    write_rows(given.csv, rows)


if __name__ == "__main__":
    main()
