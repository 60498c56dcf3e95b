"""Exact answers of a built-in teacher on a graph whose activations do not fit at once: layer by layer, in row blocks.

A layer of these networks is a product with weights, which needs a node's own row only, and a sum over in-neighbours,
which needs one row of the adjacency. So each layer is computed for a block of nodes at a time, from the layer before
of all nodes, over full neighbourhoods: nothing is sampled. Beside what is returned, memory holds the adjacency and one
product, `_COLUMNS` of its columns at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph2mlp.data.features import FeatureLinear, SparseRows, project, unit_rows
from graph2mlp.data.graph import GraphData
from graph2mlp.memory import as_many_as_fit
from graph2mlp.teachers.ensemble import Ensemble
from graph2mlp.teachers.models import GCN, SAGE, APPNPTeacher, Teacher

__all__ = ["answer_in_blocks", "needs_blocks"]

_NUMBERS = 1 << 25
"""Numbers in one layer of activations (128 MB) above which a teacher answers in blocks."""
_COPIES = 6
"""Layers of activations that one pass holds at once, about."""
_ROWS = 1 << 16
_COLUMNS = 64

Times: TypeAlias = Callable[[slice, Tensor], Tensor]
"""A block of rows of a layer's input, times a weight `[D, H]`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class _Layer:
    """Weights `[D, H]` for the sum over neighbours and for the node itself, and a bias `[H]`."""

    neighbours: Tensor | None = None
    own: Tensor | None = None
    bias: Tensor | None


def needs_blocks(teacher: Teacher, num_nodes: int) -> bool:
    """Whether this teacher can and should answer for so many nodes in blocks.

    GAT, a teacher with structural embeddings, and one of the user's own are asked in one pass whatever the size.
    """
    members = teacher.teachers() if isinstance(teacher, Ensemble) else [teacher]
    known = all(isinstance(one, SAGE | GCN | APPNPTeacher) for one in members)
    largest = as_many_as_fit(_NUMBERS, bytes_each=4 * _COPIES)
    return known and num_nodes * max(max(one.widths[1:]) for one in members) > largest


@torch.no_grad()
def answer_in_blocks(teacher: Teacher, graph: GraphData) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`(logits [N, C], hidden)` of every node, as `teacher(graph.features(), adjacency)` gives them."""
    if not isinstance(teacher, Ensemble):
        return _single(teacher, graph)
    members = teacher.teachers()
    if len(members) == 1:
        alone, layers = _single(members[0], graph)
        return teacher.combine([alone]), layers
    answers, last = [], []
    for member in members:
        logits, hidden = _single(member, graph)
        answers.append(logits)
        if hidden:
            last.append(hidden[-1])
    for part in _parts(graph.num_nodes):
        answers[0][part] = teacher.combine([logits[part] for logits in answers])
        for one in last:
            one[part] = F.normalize(one[part], dim=1)
    return answers[0], (torch.cat(last, 1),) if last else ()


def _single(teacher: Teacher, graph: GraphData) -> tuple[Tensor, tuple[Tensor, ...]]:
    adjacency = teacher.adjacency(graph)
    times = _features(teacher, graph)
    outputs: list[Tensor] = []
    for layer in _layers(teacher):
        outputs.append(_layer(layer, times, adjacency, graph.num_nodes))
        times = _activated(outputs[-1])
    logits = outputs.pop()
    if isinstance(teacher, APPNPTeacher):
        logits = _spread(logits, adjacency, teacher.config.steps, teacher.config.teleport)
    return teacher.outputs(logits), tuple(outputs)


def _layers(teacher: Teacher) -> list[_Layer]:
    """The weights of each layer: what neighbours are multiplied with, or the node itself, or both."""
    if isinstance(teacher, APPNPTeacher):
        maps = [_Layer(own=teacher.first.weight, bias=teacher.first.bias)]
        linear = [cast(nn.Linear, one) for one in teacher.layers]
        return maps + [_Layer(own=one.weight.t(), bias=one.bias) for one in linear]
    convs: Any = teacher.convs
    layers = []
    for conv in convs:
        if isinstance(teacher, SAGE):
            own = conv.lin_r.weight if conv.root_weight else None
            layers.append(_Layer(neighbours=conv.lin_l.weight, own=own, bias=conv.lin_l.bias))
        else:
            weight = conv.lin.weight if isinstance(conv.lin, FeatureLinear) else conv.lin.weight.t()
            layers.append(_Layer(neighbours=weight, bias=conv.bias))
    return layers


def _layer(layer: _Layer, times: Times, adjacency: Tensor, num_nodes: int) -> Tensor:
    """`A (rows W) + rows V + b` for all nodes, `[N, H]`."""
    assert layer.bias is not None  # every built-in teacher has one
    out = torch.zeros(num_nodes, len(layer.bias))
    if layer.neighbours is not None:
        # Two such blocks of columns, and as much again to spare.
        for columns in torch.arange(out.size(1)).split(as_many_as_fit(_COLUMNS, bytes_each=16 * num_nodes)):
            product = torch.empty(num_nodes, len(columns))
            for part in _parts(num_nodes):
                product[part] = times(part, layer.neighbours[:, columns])
            for part in _parts(num_nodes):
                out[part, columns] = _rows_of(adjacency, part) @ product
    for part in _parts(num_nodes):
        out[part] += layer.bias
        if layer.own is not None:
            out[part] += times(part, layer.own)
    return out


def _spread(logits: Tensor, adjacency: Tensor, steps: int, teleport: float) -> Tensor:
    """`H <- (1 - a) A H + a H_0`, `steps` times."""
    now, other = logits.clone(), torch.empty_like(logits)
    for _ in range(steps):
        for part in _parts(len(logits)):
            other[part] = (_rows_of(adjacency, part) @ now).mul_(1 - teleport).add_(logits[part], alpha=teleport)
        now, other = other, now
    return now


def _features(teacher: Teacher, graph: GraphData) -> Times:
    def times(part: slice, weight: Tensor) -> Tensor:
        if not graph.is_sparse:
            return project(graph.x[part], weight)
        rows = graph.features(torch.arange(part.start, part.stop))
        assert isinstance(rows, SparseRows)
        return project(unit_rows(rows) if teacher.config.unit_rows else rows, weight)

    return times


def _activated(hidden: Tensor) -> Times:
    return lambda part, weight: F.relu(hidden[part]) @ weight


def _parts(num_nodes: int) -> list[slice]:
    return [slice(start, min(start + _ROWS, num_nodes)) for start in range(0, num_nodes, _ROWS)]


def _rows_of(adjacency: Tensor, part: slice) -> Tensor:
    """Rows `part` of a CSR matrix; its columns and values are views."""
    pointer = adjacency.crow_indices()[part.start : part.stop + 1]
    edges = slice(int(pointer[0]), int(pointer[-1]))
    columns, values = adjacency.col_indices()[edges], adjacency.values()[edges]
    size = (part.stop - part.start, adjacency.size(1))
    return torch.sparse_csr_tensor(pointer - pointer[0], columns, values, size, check_invariants=False)
