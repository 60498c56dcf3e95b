"""Sums over neighbours whose gradient uses a transpose that is made once."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import APPNP

from graph2mlp.teachers import propagate
from graph2mlp.teachers.propagate import spread_from, sum_neighbours


def _adjacency(nodes: int = 23, edges: int = 90) -> Tensor:
    """Directed and weighted: a transpose that was taken for the matrix itself would show."""
    draw = torch.Generator().manual_seed(0)
    dense = torch.zeros(nodes, nodes)
    dense[torch.randint(nodes, (edges,), generator=draw), torch.randint(nodes, (edges,), generator=draw)] = 1.0
    dense[5] = 0  # a node without neighbours, and one that is nobody's
    dense[:, 7] = 0
    return (dense * torch.rand(nodes, nodes, generator=draw)).to_sparse_csr()


@pytest.mark.parametrize("width", [1, 6])
def test_value_and_gradient(width: int) -> None:
    """Those of torch's own product, to the last bit, at the first step and when the transpose is there already."""
    adjacency = _adjacency()
    weight = torch.randn(23, width, generator=torch.Generator().manual_seed(1))
    for step in range(3):
        found = (torch.arange(23.0 * width).reshape(23, width) + step).requires_grad_()
        wanted = found.detach().clone().requires_grad_()
        (sum_neighbours(adjacency, found.sin()) * weight).sum().backward()
        (torch.sparse.mm(adjacency, wanted.sin()) * weight).sum().backward()
        assert found.grad is not None
        assert wanted.grad is not None
        assert torch.equal(found.grad, wanted.grad)


def test_spread_is_that_of_the_paper() -> None:
    """PyG's APPNP, on a matrix that is not symmetric."""
    adjacency = _adjacency()
    start = torch.randn(23, 4, generator=torch.Generator().manual_seed(2))
    theirs = APPNP(5, 0.15, normalize=False)(start, adjacency)
    assert torch.equal(spread_from(start, adjacency, steps=5, teleport=0.15), theirs)


def test_transposes_are_made_for_training_only_and_go_with_the_adjacency() -> None:
    """A server cuts thousands of small matrices out of one; a graph that is gone must not stay in memory."""
    gc.collect()
    before = len(propagate._transposes)
    adjacency, rows = _adjacency(), torch.ones(23, 2, requires_grad=True)
    with torch.no_grad():
        sum_neighbours(adjacency, rows)
    sum_neighbours(adjacency, rows.detach())
    assert len(propagate._transposes) == before
    for _ in range(3):
        sum_neighbours(adjacency, rows).sum().backward()
    assert len(propagate._transposes) == before + 1
    del adjacency
    gc.collect()
    assert len(propagate._transposes) == before
