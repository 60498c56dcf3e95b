"""What the tests of LSP share: an awkward graph, and a comparison with the published formula in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graph2mlp.kernels.dispatch import available, use
from graph2mlp.kernels.lsp import lsp, reference
from graph2mlp.kernels.neighbours import NeighbourIndex
from tests.kernels.compare import Graded, close, graded

__all__ = ["FUSED", "KERNELS", "agree", "awkward", "formula", "needs_interpreter", "ours"]

KERNELS = ["cosine", "poly", "dot", "l2", "rbf", "laplace"]
FUSED = KERNELS[:-1]
needs_interpreter = pytest.mark.skipif(not available()["interpret"], reason="triton is not here, or not interpreted")


def awkward(nodes: int = 13, edges: int = 48) -> NeighbourIndex:
    """A hub (node 3), a node that many point away from (5), self-loops, repeats, node 1 with one in-neighbour and an
    isolated last node."""
    generator = torch.Generator().manual_seed(nodes)
    source, target = torch.randint(0, nodes - 1, (2, edges), generator=generator)
    target[: edges // 2] = 3
    source[edges // 3 : 2 * edges // 3] = 5
    keep = target != 1
    extra = torch.tensor([[4, 6, 6, 7, 7, 2], [1, 6, 6, 9, 9, 9]])
    return NeighbourIndex.from_edge_index(torch.cat([torch.stack([source, target])[:, keep], extra], 1), nodes)


def formula(graph: NeighbourIndex, **settings: object) -> Callable[[Tensor, Tensor], Tensor]:
    """The published formula on `graph`."""
    return lambda s, t: reference(s, t, graph, **settings)


def ours(graph: NeighbourIndex, **settings: object) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss on `graph`, by the backend in force."""
    return lambda s, t: lsp(s, t, graph, **settings)


def agree(
    path: str, s: Tensor, t: Tensor, graph: NeighbourIndex, rtol: float, *, atol: float = 0, **settings: object
) -> Graded:
    """One path gives the value and both gradients of the formula."""
    with use(path):
        got = graded(ours(graph, **settings), s, t)
    close(got, graded(formula(graph, **settings), s.double(), t.double()), rtol, atol=atol)
    return got
