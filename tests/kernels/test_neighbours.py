"""The sorted edges of a graph against plain loops over them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graph2mlp.errors import KernelError
from graph2mlp.kernels import neighbours
from graph2mlp.kernels.neighbours import NeighbourIndex, Segments

PARTS = ("pointer", "source", "target", "out_pointer", "out_edge")


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Tensor, int]:
    """An edge list, repeats and self-loops included, often with nodes that have no edge."""
    nodes = draw(st.integers(1, 9))
    node = st.integers(0, nodes - 1)
    edges = draw(st.lists(st.tuples(node, node), max_size=25))
    return torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T, nodes


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_every_edge_is_found_both_ways(given_graph: tuple[Tensor, int]) -> None:
    """Each edge must appear once in its target's row and once in its source's, repeats as often as they occur."""
    edges, nodes = given_graph
    graph = NeighbourIndex.from_edge_index(edges, nodes)
    pairs = sorted(edges.T.tolist())
    assert (graph.num_nodes, graph.num_edges) == (nodes, len(pairs))
    assert graph.degree.tolist() == [sum(target == i for _, target in pairs) for i in range(nodes)]
    for i in range(nodes):
        row = graph.source[graph.pointer[i] : graph.pointer[i + 1]].tolist()
        assert row == sorted(source for source, target in pairs if target == i)
        back = graph.out_edge[graph.out_pointer[i] : graph.out_pointer[i + 1]].long()
        assert graph.source[back].tolist() == [i] * len(back)
        assert graph.target[back].tolist() == sorted(target for source, target in pairs if source == i)
    out = graph.outgoing
    assert sorted(zip(out.own.tolist(), out.other.tolist(), strict=True)) == [tuple(pair) for pair in pairs]


@settings(max_examples=30, deadline=None)
@given(graphs(), st.randoms(use_true_random=False))
def test_order_and_type_of_the_input_do_not_matter(given_graph: tuple[Tensor, int], random: object) -> None:
    """Sums run in index order; if that followed the edge list, shuffling a file would change the last bits."""
    edges, nodes = given_graph
    order = list(range(edges.size(1)))
    random.shuffle(order)  # type: ignore[attr-defined]
    one = NeighbourIndex.from_edge_index(edges, nodes)
    two = NeighbourIndex.from_edge_index(edges[:, order].int(), nodes)
    for name in PARTS:
        assert torch.equal(getattr(one, name), getattr(two, name))
        assert getattr(one, name).dtype == torch.int32


@settings(max_examples=40, deadline=None)
@given(graphs(), st.sampled_from([None, 2, 9, 1000]), st.booleans())
def test_sums_products_and_softmax(given_graph: tuple[Tensor, int], block: int | None, outgoing: bool) -> None:
    """The sparse form of the CPU and the gathered one, whose blocks may end inside a row, against a loop over edges."""
    edges, nodes = given_graph
    graph = NeighbourIndex.from_edge_index(edges, nodes)
    rows = graph.outgoing if outgoing else graph.incoming
    generator = torch.Generator().manual_seed(nodes)
    x = torch.randn(nodes, 2, generator=generator, dtype=torch.float64)
    weight = torch.randn(graph.num_edges, generator=generator, dtype=torch.float64)
    want = torch.zeros_like(x)
    for e, (i, j) in enumerate(zip(rows.own.tolist(), rows.other.tolist(), strict=True)):
        want[i] += weight[e] * x[j]
    with pytest.MonkeyPatch.context() as patch:
        if block is not None:
            patch.setattr(neighbours, "_BLOCK", block)
            patch.setattr(neighbours, "_has_sparse", lambda rows: False)
        total, products = rows.sum(x, weight), rows.products(x)
    torch.testing.assert_close(total, want)
    torch.testing.assert_close(products, (x[rows.own.long()] * x[rows.other.long()]).sum(1))
    _check_softmax(rows, 40 * weight)


def _check_softmax(rows: Segments, values: Tensor) -> None:
    got = rows.log_softmax(values)
    for i in range(len(rows.pointer) - 1):
        where = slice(int(rows.pointer[i]), int(rows.pointer[i + 1]))
        torch.testing.assert_close(got[where], torch.log_softmax(values[where], 0))
        assert float(rows.total(values)[i]) == pytest.approx(float(values[where].sum()), abs=1e-12)


def test_moves_to_another_device() -> None:
    """All five arrays must go, or the first kernel reads a pointer of the wrong memory."""
    moved = NeighbourIndex.from_edge_index(torch.tensor([[0, 1], [1, 0]]), 3).to("meta")
    assert all(getattr(moved, name).device.type == "meta" for name in PARTS)


@pytest.mark.parametrize(
    ("edges", "nodes", "message"),
    [
        (torch.zeros(3, 4, dtype=torch.long), 5, "int32 or int64"),
        (torch.zeros(4, dtype=torch.long), 5, "int32 or int64"),
        (torch.zeros(2, 4), 5, "float32"),
        (torch.zeros(2, 4, dtype=torch.bool), 5, "bool"),
        (torch.tensor([[0], [5]]), 5, "node 5"),
        (torch.tensor([[-1], [0]]), 5, "node -1"),
        (torch.zeros(2, 0, dtype=torch.long), 0, "num_nodes"),
    ],
)
def test_wrong_input_is_refused(edges: Tensor, nodes: int, message: str) -> None:
    """An index out of range would read foreign memory in a kernel, without any error."""
    with pytest.raises(KernelError, match=message):
        NeighbourIndex.from_edge_index(edges, nodes)
