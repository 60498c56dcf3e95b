"""`GraphData`: the only gate for input. What passes here is valid, and nobody checks again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from graph2mlp.data.features import Features, all_finite, as_tensor, take_rows
from graph2mlp.data.neighbours import Neighbours, csr_neighbours
from graph2mlp.data.splits import Split
from graph2mlp.data.targets import HIDDEN_LABEL, Targets, known_rows, targets_of, task_of, unknown_like
from graph2mlp.errors import DataError
from graph2mlp.tasks import CLASSIFICATION, MULTILABEL, REGRESSION, Task

__all__ = ["HIDDEN_LABEL", "GraphData"]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class GraphData:
    """A graph whose nodes are to be answered for: N nodes, E directed edges, F features, C columns in an answer.

    Shapes: `x [N, F]` float32, dense or torch CSR; `edge_index [2, E]` int64 (source, target; an undirected edge is
    stored both ways); `edge_weight [E]` float32, positive, None where an edge is there or not; `y`, whose form says the
    task: classes `[N]` int64, any number of labels `[N, C]` int64 of 0 and 1 (`HIDDEN_LABEL` where unknown), or
    quantities `[N, C]` float32 (NaN where unknown); `class_names` of the C classes, labels or quantities; `node_ids
    [N]` int64: the id of each node in the graph it was cut from, its own position unless this is a subgraph; `names
    [N]` int64 or text: what the user calls each node, None where positions are its only names; `feature_names` of the F
    features in their order, None where they have none. `notes` say what a reader found and left out.

    Edges stay as they were stored, in their order, so that a user's own teacher sees what it was trained on. Everything
    of ours that learns from edges counts a repeated edge once, its weights added, and passes over self edges (see
    `csr_neighbours`).

    Raises:
        DataError: anything is of the wrong shape or type, out of range, not finite, or contradictory.
    """

    name: str
    x: Tensor
    edge_index: Tensor
    y: Tensor
    split: Split
    class_names: tuple[str, ...]
    node_ids: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    names: NDArray[Any] | None = None
    notes: tuple[str, ...] = ()
    edge_weight: Tensor | None = None
    feature_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.node_ids.numel():
            object.__setattr__(self, "node_ids", torch.arange(self.num_nodes))
        self._check_features()
        self._check_feature_names()
        self._check_edges()
        self._check_weights()
        self._check_labels()
        self._check_names()
        self.split.check(self.num_nodes)
        self._check_labelled()

    def __repr__(self) -> str:
        """What it is, in a line: its tensors would fill the screen."""
        counts = {"nodes": self.num_nodes, "edges": self.num_edges, "features": self.num_features}
        sizes = [f"{count:,} {what}" for what, count in (counts | {self.task.units: self.num_classes}).items()]
        parts = [f"{name} {len(part):,}" for name, part in self.split.parts().items() if len(part)]
        return f"GraphData({', '.join([repr(self.name), *sizes, *parts])})"

    @property
    def num_nodes(self) -> int:
        return self.x.size(0)

    @property
    def num_edges(self) -> int:
        return self.edge_index.size(1)

    @property
    def num_features(self) -> int:
        return self.x.size(1)

    @property
    def num_classes(self) -> int:
        """C, the columns of an answer: classes, labels or quantities."""
        return len(self.class_names)

    @cached_property
    def targets(self) -> Targets:
        """What learning from the labels means here."""
        return targets_of(self.y, self.split.train)

    @property
    def task(self) -> Task:
        """How answers are read and scored."""
        return self.targets.task

    @property
    def is_sparse(self) -> bool:
        """Whether the features are stored as CSR."""
        return self.x.layout == torch.sparse_csr

    def features(self, ids: Tensor | None = None) -> Features:
        """Feature rows of nodes `ids` (all when None): dense `[B, F]`, or `SparseRows` for a sparse graph."""
        return take_rows(self.x, ids)

    def observed(self) -> GraphData:
        """What training may see: unseen nodes and their edges are gone, labels outside train and val are hidden.

        Nodes keep their order; `node_ids` says which node of this graph each one is.
        """
        y = unknown_like(self.y)
        for part in (self.split.train, self.split.val):
            y[part] = self.y[part]
        if not self.split.unseen.numel():
            return replace(self, y=y)  # features and edges are shared, not copied
        kept = self._observed()
        position = torch.full((self.num_nodes,), -1, dtype=torch.long)
        position[kept] = torch.arange(len(kept))
        edges = position[self.edge_index]
        inside = (edges >= 0).all(0)
        return replace(
            self,
            x=_subset(self.x, kept),
            edge_index=edges[:, inside],
            edge_weight=None if self.edge_weight is None else self.edge_weight[inside],
            y=y[kept],
            split=self.split.relabel(position),
            node_ids=self.node_ids[kept],
            names=None if self.names is None else self.names[kept.numpy()],
        )

    def edges(self) -> tuple[Tensor, int, Tensor | None]:
        """`edge_index`, N and `edge_weight`, as `csr_neighbours` takes them."""
        return self.edge_index, self.num_nodes, self.edge_weight

    def with_edges(self, kept: Tensor) -> GraphData:
        """The same graph with the edges `kept [E]` bool only."""
        weight = None if self.edge_weight is None else self.edge_weight[kept]
        return replace(self, edge_index=self.edge_index[:, kept], edge_weight=weight)

    def observed_ids(self) -> Tensor:
        """`node_ids` of the nodes that training may see, ascending."""
        return self.node_ids[self._observed()]

    def _observed(self) -> Tensor:
        keep = torch.ones(self.num_nodes, dtype=torch.bool)
        keep[self.split.unseen] = False
        return torch.nonzero(keep).squeeze(1)

    @cached_property
    def in_neighbours(self) -> Neighbours:
        """In-neighbours of every node as CSR, each once and without self-loops; see `csr_neighbours`."""
        return csr_neighbours(*self.edges())

    def fingerprint(self) -> str:
        """A short hash of everything a teacher or a structure encoder can depend on."""
        digest = hashlib.blake2b(digest_size=16)
        x = (self.x.crow_indices(), self.x.col_indices(), self.x.values()) if self.is_sparse else (self.x,)
        weight = () if self.edge_weight is None else (self.edge_weight,)
        for tensor in (*x, self.edge_index, *weight, self.y, self.node_ids, *self.split.parts().values()):
            digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().view(-1).numpy())  # the array itself: bytes of it would be a copy
        return digest.hexdigest()

    @classmethod
    def from_arrays(cls, x: Any, edge_index: Any, y: Any, **options: Any) -> GraphData:
        """Arrays `x [N, F]` (dense or scipy sparse), `edge_index [2, E]`, `y [N]`; options: see `graph_from_arrays`."""
        from graph2mlp.data.convert import graph_from_arrays

        return graph_from_arrays(x, edge_index, y, **options)

    @classmethod
    def from_pyg(cls, data: Any, **options: Any) -> GraphData:
        """A `torch_geometric.data.Data`; options: see `graph_from_pyg`."""
        from graph2mlp.data.convert import graph_from_pyg

        return graph_from_pyg(data, **options)

    @classmethod
    def from_hetero(cls, data: Any, target: str, metapaths: Sequence[Sequence[str]] = (), **options: Any) -> GraphData:
        """One node type of a `torch_geometric.data.HeteroData`; see `graph_from_hetero`."""
        from graph2mlp.data.hetero import graph_from_hetero

        return graph_from_hetero(data, target, metapaths, **options)

    @classmethod
    def from_networkx(cls, graph: Any, features: str | Sequence[str] = "x", **options: Any) -> GraphData:
        """A NetworkX graph with attributes on its nodes; options: see `graph_from_networkx`."""
        from graph2mlp.data.convert import graph_from_networkx

        return graph_from_networkx(graph, features, **options)

    @classmethod
    def from_dgl(cls, graph: Any, **options: Any) -> GraphData:
        """A homogeneous DGL graph; options: see `graph_from_dgl`."""
        from graph2mlp.data.convert import graph_from_dgl

        return graph_from_dgl(graph, **options)

    def save(self, path: Path | str) -> Path:
        """Write the graph with its split and names as an `.npz` file that `graph2mlp distill` reads."""
        from graph2mlp.data.npz import save_graph

        return save_graph(self, Path(path))

    def _fail(self, message: str) -> None:
        raise DataError(f"Graph '{self.name}': {message}")

    def _check_features(self) -> None:
        if self.x.dim() != 2 or self.x.dtype != torch.float32:
            self._fail(f"features must be float32 [nodes, features], got {self.x.dtype} {list(self.x.shape)}.")
        if not self.num_nodes or not self.num_features:
            self._fail(f"features are empty, got shape {list(self.x.shape)}.")
        values = self.x.values() if self.is_sparse else self.x
        if not all_finite(values):
            count = int((~torch.isfinite(values)).sum())
            self._fail(f"{count} feature values are NaN or infinite. Clean or impute them first.")

    def _check_feature_names(self) -> None:
        names = self.feature_names
        if names is not None and not self.num_features == len(names) == len(set(names)):
            self._fail(
                f"feature_names must be a name of its own for each of {self.num_features} features, got {len(names)} "
                f"names, {len(set(names))} of them different."
            )

    def _check_edges(self) -> None:
        edges = self.edge_index
        if edges.dim() != 2 or edges.size(0) != 2 or edges.dtype != torch.long:
            self._fail(f"edge_index must be int64 [2, edges], got {edges.dtype} {list(edges.shape)}.")
        if edges.numel() and (int(edges.min()) < 0 or int(edges.max()) >= self.num_nodes):
            bad = int(edges[(edges < 0) | (edges >= self.num_nodes)][0])
            self._fail(f"an edge names node {bad}, but nodes run from 0 to {self.num_nodes - 1}.")

    def _check_weights(self) -> None:
        weight = self.edge_weight
        if weight is None:
            return
        if weight.shape != (self.num_edges,) or weight.dtype != torch.float32:
            self._fail(f"edge_weight must be float32 [{self.num_edges}], got {weight.dtype} {list(weight.shape)}.")
        if bad := int((~(torch.isfinite(weight) & (weight > 0))).sum()):
            self._fail(f"{bad} edge weights are not positive, finite numbers. Leave such edges out, or rescale them.")

    def _check_labels(self) -> None:
        task = task_of(self.y)
        shape = (self.num_nodes,) if task is CLASSIFICATION else (self.num_nodes, self.num_classes)
        dtype = torch.float32 if task is REGRESSION else torch.long
        if self.y.shape != shape or self.y.dtype != dtype:
            kind = str(dtype).removeprefix("torch.")
            self._fail(f"labels must be {kind} {list(shape)}, got {self.y.dtype} {list(self.y.shape)}.")
        if task is CLASSIFICATION and self.num_classes < 2:
            self._fail(f"classification needs at least 2 classes, got {self.num_classes}.")
        if twice := [name for name, held in Counter(self.class_names).items() if held > 1 and task is CLASSIFICATION]:
            self._fail(f"two classes are called '{twice[0][:40]}', so answers could not be told apart. Rename one.")
        if not self.num_classes:
            self._fail(f"{task.name} needs at least one {task.unit}, got none.")
        if task is not CLASSIFICATION and len({"id", *self.class_names}) <= self.num_classes:
            self._fail(f"the {task.units} need different names, none of them 'id' (got {', '.join(self.class_names)}).")
        if task is REGRESSION:
            if bool((self.y.isnan().any(1) != self.y.isnan().all(1)).any()) or bool(self.y.isinf().any()):
                self._fail("a node's quantities must be all known (finite) or all unknown (NaN).")
            return
        most = self.num_classes - 1 if task is CLASSIFICATION else 1
        low, high = int(self.y.min()), int(self.y.max())
        if low < HIDDEN_LABEL or high > most:
            self._fail(f"labels must be 0 to {most} (or -1, unknown), got {low} to {high}.")
        if task is MULTILABEL and bool(((self.y < 0).any(1) != (self.y < 0).all(1)).any()):
            self._fail("a node's labels must be all known (0 or 1) or all unknown (-1).")

    def _check_names(self) -> None:
        if self.names is None:
            return
        if self.names.shape != (self.num_nodes,):
            self._fail(f"there must be one name for each of {self.num_nodes} nodes, got shape {self.names.shape}.")
        if self.names.dtype.kind not in "iU":
            self._fail(f"names of nodes must be int64 or text, got {self.names.dtype}.")

    def _check_labelled(self) -> None:
        """Whoever teaches or selects needs a label."""
        nodes = torch.cat([self.split.train, self.split.val])
        unknown = nodes[~known_rows(self.y[nodes])]
        if len(unknown):
            first = int(unknown[0])
            called = f"node {first}" if self.names is None else f"'{str(self.names[first])[:40]}'"
            self._fail(
                f"{len(unknown)} of {len(nodes)} training or validation nodes have no label, such as {called}. Label "
                "them, or put them in no part (an empty split): they are answered all the same."
            )


def _subset(x: Tensor, ids: Tensor) -> Tensor:
    return as_tensor(take_rows(x, ids))
