"""Exact answers of a built-in teacher on a graph whose activations do not fit at once: layer by layer, in row blocks.

A layer of these networks is a product with weights, which needs a node's own row only, and a sum over in-neighbours,
which needs one row of the adjacency. So each layer is computed for a block of nodes at a time, from the layer before
of all nodes, over full neighbourhoods: nothing is sampled. Beside what is returned, memory holds the adjacency and one
product, `_COLUMNS` of its columns at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from graph2mlp.data.features import SparseRows, project, unit_rows
from graph2mlp.data.graph import GraphData
from graph2mlp.teachers.ensemble import Ensemble
from graph2mlp.teachers.models import GCN, SAGE, APPNPTeacher, Teacher

__all__ = ["answer_in_blocks", "needs_blocks"]

_NUMBERS = 1 << 25
"""Numbers in one layer of activations (128 MB) above which a teacher answers in blocks."""
_ROWS = 1 << 16
_COLUMNS = 64

Rows = Callable[[slice], Tensor]
"""The input of a layer, for a block of nodes."""


def needs_blocks(teacher: Teacher, num_nodes: int) -> bool:
    """Whether this teacher can and should answer for so many nodes in blocks.

    GAT, a teacher with structural embeddings, and one of the user's own are asked in one pass whatever the size.
    """
    members = teacher.teachers() if isinstance(teacher, Ensemble) else [teacher]
    known = all(isinstance(one, SAGE | GCN | APPNPTeacher) for one in members)
    return known and num_nodes * max(max(one.widths[1:]) for one in members) > _NUMBERS


@torch.no_grad()
def answer_in_blocks(teacher: Teacher, graph: GraphData, edge_index: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`(logits [N, C], hidden)` of every node, as `teacher(graph.features(), adjacency)` gives them."""
    if not isinstance(teacher, Ensemble):
        return _single(teacher, graph, edge_index)
    answers, last = [], []
    for member in teacher.teachers():
        logits, hidden = _single(member, graph, edge_index)
        answers.append(logits)
        if hidden:
            last.append(hidden[-1])
    for start in range(0, graph.num_nodes, _ROWS):
        part = slice(start, start + _ROWS)
        answers[0][part] = teacher.combine([logits[part] for logits in answers])
        for one in last:
            one[part] = F.normalize(one[part], dim=1)
    return answers[0], (torch.cat(last, 1),) if last else ()


def _single(teacher: Teacher, graph: GraphData, edge_index: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    adjacency = teacher.adjacency(edge_index, graph.num_nodes)
    spread = isinstance(teacher, APPNPTeacher)
    hidden: list[Tensor] = []
    for number in range(teacher.config.layers):
        rows = _activated(hidden[-1]) if hidden else _features(teacher, graph)
        if spread:
            out = _by_rows(_appnp_layer(teacher, number), rows, graph.num_nodes)
        else:
            out = _convolved(_conv(teacher, number), rows, adjacency)
        hidden.append(out)
    logits = hidden.pop()
    return _spread(teacher, logits, adjacency) if spread else logits, tuple(hidden)


def _features(teacher: Teacher, graph: GraphData) -> Callable[[slice, Tensor], Tensor]:
    """Features times a weight `[F, H]`, for a block of nodes."""

    def times(part: slice, weight: Tensor) -> Tensor:
        rows = graph.features(torch.arange(graph.num_nodes)[part]) if graph.is_sparse else graph.x[part]
        if isinstance(rows, SparseRows) and teacher.config.unit_rows:
            rows = unit_rows(rows)
        return project(rows, weight)

    return times


def _activated(hidden: Tensor) -> Callable[[slice, Tensor], Tensor]:
    return lambda part, weight: F.relu(hidden[part]) @ weight
