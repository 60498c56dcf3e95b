"""The built-in teachers, on PyG's layers: GraphSAGE, GCN, GAT, APPNP, and a GCN with structural embeddings.

Each reads sparse or dense features, and edges in the form its `adjacency` gives: a CSR matrix that is normalised once
(of GAT the weights as they are), so a row of it can be cut out and still gives the exact answer for that node.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, SAGEConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import softmax

from graph2mlp.data.features import (
    FeatureLinear,
    Features,
    SparseRows,
    as_tensor,
    drop_features,
    num_rows,
    project,
    unit_rows,
)
from graph2mlp.data.graph import GraphData
from graph2mlp.data.neighbours import csr_neighbours
from graph2mlp.data.targets import Classes, Targets
from graph2mlp.errors import ConfigError
from graph2mlp.teachers.config import TEACHER_NAMES, TeacherConfig
from graph2mlp.teachers.propagate import spread_from, sum_neighbours

__all__ = ["TEACHERS", "Teacher", "build_teacher"]


class Teacher(nn.Module, ABC):
    """`forward(features, adjacency) -> (logits [N, C], hidden)`, `hidden` the pre-activation layers, first to last.

    `ids [N]` says which nodes of the full graph the rows are (None: row i is node i), for a teacher that keeps
    something for each node.
    """

    hops: int
    """How far a node's answer depends on its surroundings; what a request has to fetch."""

    def __init__(self, features: int, classes: int, config: TeacherConfig) -> None:
        super().__init__()
        self.config = config
        self.widths = [features, *[config.hidden] * (config.layers - 1), classes]
        self.hops = config.layers
        self.targets: Targets = Classes()
        self.outputs: nn.Module = nn.Identity()
        """What the answer of the last layer passes through."""

    def answer_for(self, targets: Targets) -> None:
        """Say what the columns of the answer mean, before training."""
        self.targets, self.outputs = targets, targets.output_scale()

    @abstractmethod
    def adjacency(self, graph: GraphData) -> Tensor:
        """The edges in the form `forward` wants, computed once per graph."""

    @abstractmethod
    def forward(
        self, x: Features, adjacency: Tensor, ids: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]: ...

    def penalty(self) -> Tensor | None:
        """What training adds to the cross-entropy, a scalar; None for nothing."""
        return None

    def logits(self, x: Features, adjacency: Tensor, ids: Tensor | None = None) -> Tensor:
        """The answer alone, for who serves: what only a student would look at is not made."""
        return self(x, adjacency, ids)[0]  # type: ignore[no-any-return]

    def activate(self, h: Tensor) -> Tensor:
        return F.dropout(F.relu(h), self.config.dropout, self.training)


class _MeanConv(SAGEConv):  # type: ignore[misc]
    """PyG's SAGEConv with the product first: `mean_j(x_j) W = mean_j(x_j W)`, cheaper and fit for sparse features."""

    def __init__(self, in_channels: int, out_channels: int, *, root_weight: bool) -> None:
        super().__init__(in_channels, out_channels, aggr="add", root_weight=root_weight)
        self.lin_l = FeatureLinear(in_channels, out_channels)
        if root_weight:
            self.lin_r = FeatureLinear(in_channels, out_channels, bias=False)

    def forward(self, x: Features, adjacency: Tensor) -> Tensor:
        neighbours, bias = project(x, self.lin_l.weight), self.lin_l.bias
        assert bias is not None  # asked for above
        # The adjacency carries the 1 / degree, so the sum is the mean.
        out = sum_neighbours(adjacency, neighbours) + bias
        return out + self.lin_r(x) if self.root_weight else out


class SAGE(Teacher):
    """GraphSAGE (Hamilton, Ying, Leskovec, NeurIPS 2017); the mean is a weighted one where edges have weights.

    Aggregator `mean`: `h_i' = W_1 h_i + W_2 mean_{j in N(i)} h_j`; `gcn`: `h_i' = W mean_{j in N(i) + i} h_j`, the form
    GLNN and NOSMOG report.
    """

    def __init__(self, features: int, classes: int, config: TeacherConfig) -> None:
        super().__init__(features, classes, config)
        if config.aggregator == "auto":
            raise ConfigError("teacher.aggregator 'auto' names two networks; build one of config.candidates()")
        root = config.aggregator == "mean"
        self.convs = nn.ModuleList(_MeanConv(a, b, root_weight=root) for a, b in itertools.pairwise(self.widths))

    def adjacency(self, graph: GraphData) -> Tensor:
        found = csr_neighbours(*graph.edges(), self_loops=self.config.aggregator == "gcn")
        share = torch.repeat_interleave(1.0 / found.strength(), found.count)  # a node without edges has none to share
        return found.matrix(share if found.weight is None else share * found.weight)

    def forward(self, x: Features, adjacency: Tensor, ids: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        return _stack(self, lambda layer, h: self.convs[layer](h, adjacency), x)


class _RowConv(GCNConv):  # type: ignore[misc]
    """PyG's GCNConv over a normalised adjacency, with something added to each node's row before rows are summed."""

    def forward(self, x: Features, adjacency: Tensor, added: Tensor | None = None) -> Tensor:
        rows = self.lin(x)
        out: Tensor = sum_neighbours(adjacency, rows if added is None else rows + added) + self.bias
        return out


class GCN(Teacher):
    """`H' = D^-1/2 (A + I) D^-1/2 H W` (Kipf and Welling, ICLR 2017)."""

    def __init__(self, features: int, classes: int, config: TeacherConfig) -> None:
        super().__init__(features, classes, config)
        self.convs = nn.ModuleList(_RowConv(a, b, normalize=False) for a, b in itertools.pairwise(self.widths))
        self.convs[0].lin = FeatureLinear(features, self.widths[1], bias=False)

    def adjacency(self, graph: GraphData) -> Tensor:
        return _gcn_adjacency(graph)

    def forward(self, x: Features, adjacency: Tensor, ids: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        return _stack(self, lambda layer, h: self.convs[layer](h, adjacency), x)


class _WeightedGATConv(GATConv):  # type: ignore[misc]
    """PyG's GATConv whose attention is multiplied by weights that come as their logarithms, `edge_attr [E]`."""

    def edge_update(
        self, alpha_j: Tensor, alpha_i: Tensor, edge_attr: Tensor, index: Tensor, ptr: Tensor | None, dim_size: int
    ) -> Tensor:
        alpha = F.leaky_relu(alpha_j + alpha_i, self.negative_slope) + edge_attr.unsqueeze(1)
        return F.dropout(softmax(alpha, index, ptr, dim_size), self.dropout, self.training)


class GAT(Teacher):
    """Attention over neighbours and self, `heads` heads of `hidden / heads` (Velickovic et al., ICLR 2018).

    Where edges have weights, node i attends to j with `w_ij exp(e_ij) / sum_k w_ik exp(e_ik)`, `w_ii = 1`.
    """

    def __init__(self, features: int, classes: int, config: TeacherConfig) -> None:
        super().__init__(features, classes, config)
        layers = []
        for number, (a, b) in enumerate(itertools.pairwise(self.widths), start=1):
            last = number == config.layers
            heads = 1 if last else config.heads
            how = {"dropout": config.attention_dropout, "concat": not last, "fill_value": 0.0}  # log 1, of a self-loop
            layers.append(_WeightedGATConv(a, b // heads, heads=heads, **how))
        self.convs = nn.ModuleList(layers)
        self.convs[0].lin = FeatureLinear(features, self.widths[1], bias=False)

    def adjacency(self, graph: GraphData) -> Tensor:
        found = graph.in_neighbours  # GATConv adds the self-loops
        return found.matrix(found.values())

    def forward(self, x: Features, adjacency: Tensor, ids: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        pointer = adjacency.crow_indices()
        target = torch.repeat_interleave(torch.arange(len(pointer) - 1, device=pointer.device), pointer.diff())
        edges, weight = torch.stack([adjacency.col_indices(), target]), adjacency.values().log()
        # GATConv asks for `x.dim()`, which sparse rows lack.
        return _stack(self, lambda layer, h: self.convs[layer](as_tensor(h), edges, weight), x)


class APPNPTeacher(Teacher):
    """An MLP whose predictions are spread by personalised PageRank (Gasteiger et al., ICLR 2019)."""

    def __init__(self, features: int, classes: int, config: TeacherConfig) -> None:
        super().__init__(features, classes, config)
        self.first = FeatureLinear(features, self.widths[1])
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(self.widths[1:]))
        self.hops = config.steps

    def adjacency(self, graph: GraphData) -> Tensor:
        return _gcn_adjacency(graph)

    def forward(self, x: Features, adjacency: Tensor, ids: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        logits, hidden = _layers(self, lambda layer, h: (self.layers[layer - 1] if layer else self.first)(h), x)
        spread = spread_from(logits, adjacency, steps=self.config.steps, teleport=self.config.teleport)
        return self.outputs(spread), hidden


class StructuralGCN(Teacher):
    """`H' = D^-1/2 (A + I) D^-1/2 (H W + S)`, S learned (Cold Brew: Zheng et al., ICLR 2022).

    `S [M, D]`, a row for each of the M nodes it was trained on, stands in the layers `teacher.se_layers` and costs
    `se_reg * sum_l ||S_l||_F`. It starts at N(0, 1): what it keeps, edges and features could not say. A node without
    a row (an unseen one) has S = 0, so it is answered by its features and by its neighbours' rows.
    """

    node_ids: Tensor

    def __init__(self, features: int, classes: int, config: TeacherConfig, node_ids: Tensor | None = None) -> None:
        super().__init__(features, classes, config)
        widths = list(itertools.pairwise(self.widths))
        self.convs = nn.ModuleList(_RowConv(a, b, normalize=False) for a, b in widths)
        self.convs[0].lin = FeatureLinear(features, self.widths[1], bias=False)
        self.register_buffer("node_ids", torch.empty(0, dtype=torch.long) if node_ids is None else node_ids.clone())
        self.structural = nn.ParameterDict(
            {str(layer): nn.Parameter(torch.randn(len(self.node_ids), widths[layer][1])) for layer in self._places()}
        )

    def _places(self) -> list[int]:
        return self.config.structural_layers()

    def adjacency(self, graph: GraphData) -> Tensor:
        return _gcn_adjacency(graph)

    def forward(self, x: Features, adjacency: Tensor, ids: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        rows = self._rows(torch.arange(num_rows(x), device=self.node_ids.device) if ids is None else ids)
        added = {
            int(layer): F.embedding(rows, torch.cat([table, table.new_zeros(1, table.size(1))]))
            for layer, table in self.structural.items()
        }
        return _stack(self, lambda layer, h: self.convs[layer](h, adjacency, added.get(layer)), x)

    def penalty(self) -> Tensor | None:
        if not self.config.se_reg or not self.structural:
            return None
        return self.config.se_reg * torch.stack([table.norm() for table in self.structural.values()]).sum()

    def _rows(self, ids: Tensor) -> Tensor:
        """The row of each node, M for a node without one."""
        rows = torch.searchsorted(self.node_ids, ids)
        found = torch.cat([self.node_ids, self.node_ids.new_full((1,), -1)])[rows]
        return torch.where(found == ids, rows, len(self.node_ids))


TEACHERS: Mapping[str, type[Teacher]] = MappingProxyType(
    dict(zip(TEACHER_NAMES, (SAGE, GCN, GAT, APPNPTeacher, StructuralGCN), strict=True))
)


def build_teacher(
    features: int,
    classes: int,
    config: TeacherConfig,
    *,
    node_ids: Tensor | None = None,
    targets: Targets | None = None,
) -> Teacher:
    """A fresh teacher named `config.name`, for training on nodes `node_ids [M]` (ascending ids in the full graph).

    `targets` say what its answer means; None: one class of several.
    """
    if config.name not in TEACHERS:
        raise ConfigError(f"Teacher '{config.name}' names several networks; build one of config.members()")
    if config.name == "gcn_se":
        teacher: Teacher = StructuralGCN(features, classes, config, node_ids)
    else:
        teacher = TEACHERS[config.name](features, classes, config)
    if targets is not None:
        teacher.answer_for(targets)
    return teacher


def _stack(
    teacher: Teacher, layer: Callable[[int, Features], Tensor], x: Features
) -> tuple[Tensor, tuple[Tensor, ...]]:
    h, hidden = _layers(teacher, layer, x)
    return teacher.outputs(h), hidden


def _layers(
    teacher: Teacher, layer: Callable[[int, Features], Tensor], x: Features
) -> tuple[Tensor, tuple[Tensor, ...]]:
    if isinstance(x, SparseRows):
        x = unit_rows(x) if teacher.config.unit_rows else x
        x = drop_features(x, teacher.config.input_dropout, teacher.training)
    h, hidden = layer(0, x), []
    for number in range(1, teacher.config.layers):
        hidden.append(h)
        h = layer(number, teacher.activate(h))
    return h, tuple(hidden)


def _gcn_adjacency(graph: GraphData) -> Tensor:
    """`D^-1/2 (A + I) D^-1/2` as CSR."""
    found = csr_neighbours(*graph.edges(), self_loops=True)
    edges, size = torch.stack([found.ids, found.targets()]), graph.num_nodes
    return found.matrix(gcn_norm(edges, found.weight, size, add_self_loops=False)[1])
