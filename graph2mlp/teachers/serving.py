"""What the teacher costs where the student would stand: requests for node ids, the neighbour fetch included."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graph2mlp.data.features import Features
from graph2mlp.data.graph import GraphData

__all__ = ["ServedTeacher", "TeacherServer", "as_stored", "stored_edges"]

Ints = NDArray[np.int64]


class ServedTeacher(Protocol):
    """The part of a teacher that serving uses."""

    @property
    def hops(self) -> int: ...
    def adjacency(self, graph: GraphData) -> Tensor: ...
    def logits(self, x: Features, adjacency: Tensor, ids: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False, kw_only=True)
class _Part:
    """The nodes within `hops` of a request, nearest first, and the in-edges of all but the farthest.

    The farthest nodes need no edges: what the network computes for them from the second layer on reaches no answer.
    Shapes: `nodes [n]`, `edges [e]` (positions among the full graph's), `columns [e]` (where each edge's source stands
    among `nodes`), `counts [n]` (in-edges per node), `wanted [B]` (where each requested node stands), `scale [e]` (what
    an edge's weight is multiplied with because others were left out; None when all were fetched).
    """

    nodes: Ints
    edges: Ints
    columns: Ints
    counts: Ints
    wanted: Ints
    scale: NDArray[np.float32] | None = None


class TeacherServer:
    """Answers for nodes of the graph with the exact full-neighbour network, at the cost an honest server would have.

    The graph is in memory and indexed; a request expands `teacher.hops` hops of in-neighbours, gathers their feature
    rows and the matching part of the adjacency, and runs the network on that part. The part is cut from the full,
    already normalised adjacency, so the answer is the full graph's. Not for two threads at once.
    """

    def __init__(self, graph: GraphData, teacher: ServedTeacher) -> None:
        self._graph, self._teacher = graph, teacher
        self.adjacency = teacher.adjacency(graph)
        # A teacher of the user's own reads edges as they are stored and gets them back so; ours read a CSR matrix.
        self._is_csr = self.adjacency.layout == torch.sparse_csr
        self._weights: NDArray[np.float32] | None = None
        if self._is_csr:
            self._pointer = self.adjacency.crow_indices().numpy()
            self._source = self.adjacency.col_indices().numpy()
            self._weights = self.adjacency.values().numpy()
        else:
            edges, weights = stored_edges(self.adjacency)
            source, target = edges.numpy()
            order = np.argsort(target, kind="stable")
            self._source = source[order]
            self._pointer = np.concatenate([[0], np.bincount(target, minlength=graph.num_nodes).cumsum()])
            self._weights = None if weights is None else weights.numpy()[order]
        self._position = np.full(graph.num_nodes, -1, dtype=np.int64)
        """Where each node stands in the part being built, -1 outside: saves every request a search or a sort."""
        self._random = np.random.default_rng(0)

    def logits(self, ids: Ints) -> Tensor:
        """Logits of nodes `ids [B]`, `[B, C]`."""
        return self._answer(self._expand(ids))

    def sampled_logits(self, ids: Ints, fanout: int = 10) -> Tensor:
        """The same from at most `fanout` in-neighbours of each node, drawn anew for every request: not exact.

        Sampling as in GraphSAGE (Hamilton et al., NeurIPS 2017), without replacement, at every hop. The weights of a
        normalised adjacency are scaled up by what was left out, so that each sum keeps its expected value; a mean stays
        a mean, over the sample.
        """
        return self._answer(self._expand(ids, fanout))

    def whole_graph_logits(self, ids: Ints) -> Tensor:
        """The same from one forward pass over all nodes: what serving without a neighbour fetch would cost."""
        with torch.inference_mode():
            every = self._graph.node_ids
            return self._teacher.logits(self._graph.features(), self.adjacency, every)[torch.from_numpy(ids)]

    def pyg_logits(self, ids: Ints) -> Tensor:
        """The same in the way PyG's documentation shows: `k_hop_subgraph`, feature rows, forward."""
        from torch_geometric.utils import k_hop_subgraph

        edge_index, weights = self._edges
        with torch.inference_mode():
            nodes, edges, wanted, used = k_hop_subgraph(
                torch.from_numpy(ids),
                self._teacher.hops,
                edge_index,
                relabel_nodes=True,
                num_nodes=self._graph.num_nodes,
            )
            counts = torch.bincount(edges[1], minlength=len(nodes))  # the edges are sorted by target
            adjacency = self._form(counts, edges[0], None if weights is None else weights[used])
            return self._ask(nodes, adjacency)[wanted]

    def _ask(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Logits of `nodes [n]`, positions in the graph, over the part of it that `adjacency` holds."""
        return self._teacher.logits(self._graph.features(nodes), adjacency, self._graph.node_ids[nodes])

    @cached_property
    def _edges(self) -> tuple[Tensor, Tensor | None]:
        """Edges `[2, E]` sorted by target, and their weights if the teacher has any."""
        target = np.arange(self._graph.num_nodes).repeat(np.diff(self._pointer))
        weights = None if self._weights is None else torch.from_numpy(self._weights)
        return torch.from_numpy(np.stack([self._source, target])), weights

    def _answer(self, part: _Part) -> Tensor:
        with torch.inference_mode():
            return self._ask(torch.from_numpy(part.nodes), self._cut(part))[torch.from_numpy(part.wanted)]

    def _expand(self, ids: Ints, fanout: int | None = None) -> _Part:
        position = self._position
        layers = [self._new(ids, 0)]
        total = len(layers[0])
        edges, counts, sources, scales = [], [], [], []
        for _ in range(self._teacher.hops):
            frontier = layers[-1]
            start = self._pointer[frontier]
            count = self._pointer[frontier + 1] - start
            # The edges of the frontier, one node after the other: a running number, shifted to each node's start.
            end = count.cumsum()
            index = np.arange(end[-1] if len(end) else 0) + (start - end + count).repeat(count)
            if fanout is not None:
                kept = np.minimum(count, fanout)
                if len(count) and count.max() > fanout:
                    index = index[self._draw(count, fanout)]
                scales.append((count / np.maximum(kept, 1)).repeat(kept))
                count = kept
            edges.append(index)
            counts.append(count)
            sources.append(self._source[index])
            layers.append(self._new(sources[-1], total))
            total += len(layers[-1])
        counts.append(np.zeros(len(layers[-1]), dtype=np.int64))
        part = _Part(
            nodes=np.concatenate(layers),
            edges=np.concatenate(edges),
            columns=position[np.concatenate(sources)],
            counts=np.concatenate(counts),
            wanted=position[ids],
            scale=np.concatenate(scales).astype(np.float32) if scales else None,
        )
        position[part.nodes] = -1
        return part

    def _draw(self, count: Ints, fanout: int) -> Ints:
        """Which edges to keep, of `count [n]` each: all, or `fanout` of them, every choice equally likely."""
        node = np.arange(len(count)).repeat(count)
        # A random order within each node: sorted by node first, since the fraction is below 1.
        order = np.argsort(node + self._random.random(len(node)))
        place = np.arange(len(node)) - (count.cumsum() - count).repeat(count)
        return order[place < fanout]

    def _new(self, candidates: Ints, offset: int) -> Ints:
        """The candidates not yet placed, each once, now placed from `offset` on."""
        position = self._position
        fresh: Ints = candidates[position[candidates] < 0]
        order = np.arange(len(fresh))
        position[fresh] = order  # of equal nodes one write wins, and only that one reads its own number back
        fresh = fresh[position[fresh] == order]
        position[fresh] = np.arange(offset, offset + len(fresh))
        return fresh

    def _cut(self, part: _Part) -> Tensor:
        """The part's adjacency, in the form the teacher takes."""
        weights = None if self._weights is None else self._weights[part.edges]
        if self._is_csr and weights is not None and part.scale is not None:
            weights = weights * part.scale.reshape(-1, *[1] * (weights.ndim - 1))
        given = None if weights is None else torch.from_numpy(weights)
        return self._form(torch.from_numpy(part.counts), torch.from_numpy(part.columns), given)

    def _form(self, counts: Tensor, columns: Tensor, weights: Tensor | None) -> Tensor:
        """In-edges, `counts [n]` of each node, from `columns [e]`, in the form the teacher's own `adjacency` has."""
        if self._is_csr and weights is not None:  # a CSR matrix always has values
            return _csr(counts, columns, weights)
        edges = torch.stack([columns, torch.repeat_interleave(torch.arange(len(counts)), counts)])
        return as_stored(edges, len(counts), weights)


def as_stored(edge_index: Tensor, num_nodes: int, weight: Tensor | None) -> Tensor:
    """Edges `[2, E]` in the order they are stored; with weights `[E]` as a COO matrix, which keeps both."""
    if weight is None:
        return edge_index
    return torch.sparse_coo_tensor(edge_index, weight, (num_nodes, num_nodes), check_invariants=False)


def stored_edges(adjacency: Tensor) -> tuple[Tensor, Tensor | None]:
    """What `as_stored` was given: `edge_index [2, E]`, and the weights `[E]` if there were any."""
    if adjacency.layout != torch.sparse_coo:
        return adjacency, None
    return adjacency._indices(), adjacency._values()  # the public ones refuse repeated edges


def _csr(counts: Tensor, columns: Tensor, weights: Tensor) -> Tensor:
    pointer = counts.new_zeros(len(counts) + 1)
    torch.cumsum(counts, 0, out=pointer[1:])
    size = (len(counts), len(counts), *weights.shape[1:])  # an ensemble has a row of weights for each edge
    return torch.sparse_csr_tensor(pointer, columns, weights, size, check_invariants=False)
