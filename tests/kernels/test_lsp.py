"""LSP against the published formula in float64: every path, every similarity, every gradient."""

from __future__ import annotations

import pytest
import torch

from graph2mlp.kernels import neighbours
from graph2mlp.kernels.dispatch import use
from graph2mlp.kernels.lsp import lsp
from graph2mlp.kernels.lsp.chunked import chunked
from graph2mlp.kernels.lsp.similarity import Similarity
from graph2mlp.kernels.neighbours import NeighbourIndex
from tests.graphs import F4
from tests.kernels.compare import pair, relative
from tests.kernels.lsp_cases import FUSED, KERNELS, agree, awkward, needs_interpreter, ours


def shipped() -> None:
    """Start the fused form once per shipped configuration; the compile-only check records what it starts."""
    from graph2mlp.kernels.lsp.fused import fused

    graph = NeighbourIndex.from_edge_index(torch.zeros(2, 3000, dtype=torch.long), 40)
    widths = [("cosine", width, dtype) for width in (16, 32, 64, 128, 256) for dtype in (torch.float32, torch.bfloat16)]
    others = [(kernel, 128, torch.float32) for kernel in ("poly", "dot", "l2", "rbf")]
    for kernel, width, dtype in [*widths, *others]:
        side = torch.zeros(40, width, dtype=dtype)
        fused(side, side, torch.ones(40), graph, Similarity(kernel, -1.0, 1.0, 0.5), True, True)


@pytest.mark.parametrize("path", ["dense", "chunked"])
@pytest.mark.parametrize(
    ("kernel", "sign", "want"),
    [
        ("cosine", None, 0.0734939),
        ("poly", None, 0.0294957),
        ("rbf", None, 0.000938061),
        ("l2", None, 0.155570),
        ("l2", 1, 0.142799),
        ("laplace", None, 4.53978e-05),
    ],
)
def test_golden_values(f4: F4, kernel: str, sign: int | None, want: float, path: str) -> None:
    """The numbers of the spec; they fix direction, sign of l2, the constant 100 and who is whose neighbour."""
    edges = torch.tensor([[1, 0, 2, 3, 1, 3, 1, 2], [0, 1, 1, 1, 2, 2, 3, 3]])
    with use(path):
        for reduction, factor in (("nodes", 1), ("edges", 0.5), ("sum", 4)):
            got = float(lsp(f4.S, f4.T, edges, kernel=kernel, sign=sign, reduction=reduction))
            assert got == pytest.approx(factor * want, rel=5e-6)


@pytest.mark.parametrize("reduction", ["nodes", "edges", "none"])
@pytest.mark.parametrize(("a", "b"), [(1, 1), (16, 5), (3, 17)])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("path", "dtype", "rtol"), [("chunked", torch.float32, 1e-5), ("dense", torch.float64, 1e-12)])
def test_value_and_gradients(
    path: str, dtype: torch.dtype, rtol: float, kernel: str, a: int, b: int, reduction: str
) -> None:
    """Each similarity has its own backward, each reduction its own weights; the widths may differ."""
    s, t = pair(13, a, b, dtype)
    # Cosines of numbers are 1 or -1, so the exact gradient is 0.
    atol = 1e-5 if a == 1 and kernel in ("cosine", "poly") else 0
    agree(path, s, t, awkward(), rtol, atol=atol, kernel=kernel, tau=0.7, gamma=0.3, reduction=reduction)


@needs_interpreter
@pytest.mark.parametrize(("kernel", "a", "b"), list(zip(FUSED, [3, 16, 100, 17, 1], [17, 5, 64, 3, 16], strict=True)))
def test_fused_value_and_gradients(kernel: str, a: int, b: int) -> None:
    """The kernels, masks at every edge of a tile included: widths that fill none, more than one block of edges."""
    s, t = pair(13, a, b)
    agree("interpret", s / a**0.5, t / b**0.5, awkward(), 1e-5, kernel=kernel, tau=0.7, gamma=0.3)


@needs_interpreter
@pytest.mark.parametrize("kernel", ["cosine", "l2"])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_half_precision_is_only_for_storage(kernel: str, dtype: torch.dtype, rtol: float) -> None:
    """Sums in half precision would be off by percents; only the final gradient is rounded."""
    s, t = pair(13, 20, 8, dtype)
    for path in ("interpret", "chunked"):
        got = agree(path, s, t, awkward(), rtol, kernel=kernel, reduction="none")
        assert got.loss.dtype == torch.float32


@needs_interpreter
@pytest.mark.parametrize(("kernel", "chunk"), [("cosine", 5), ("rbf", 9), ("cosine", 20)])
@pytest.mark.parametrize("hub", [3, 0])
def test_cut_rows_and_other_tiles_change_nothing(kernel: str, chunk: int, hub: int) -> None:
    """A hub may begin, end or lie within a chunk of edges, two may share one; each part must be counted once."""
    from graph2mlp.kernels.launch import Tiles
    from graph2mlp.kernels.lsp.fused import Tables, fused

    s, t = pair(13, 7, 3)
    weight = torch.linspace(2, 0, 13)
    similarity = Similarity(kernel, -1.0, 1.0, 0.5)
    graph = awkward()
    if hub == 0:  # a row that begins where a chunk does, in both directions
        star = torch.stack([torch.zeros(21, dtype=torch.long), torch.arange(21) % 13])
        ring = torch.stack([torch.arange(13), torch.arange(13).roll(1)])
        graph = NeighbourIndex.from_edge_index(torch.cat([star, star.flip(0), ring], 1), 13)
    assert int(graph.degree.max()) > chunk
    tables = Tables(chunk, Tiles(4, 8, 1, 1), Tiles(2, 16, 1, 1), Tiles(16, 4, 1, 1), Tiles(4, 4, 1, 1))
    got = fused(s, t, weight, graph, similarity, True, True, tables)
    want = chunked(s.double(), t.double(), weight.double(), graph, similarity, True, True)
    for name, one, other in zip(("losses", "d_student", "d_teacher"), got, want, strict=True):
        assert relative(one, other) < 1e-5, name


@needs_interpreter
def test_hub_longer_than_the_shipped_chunk() -> None:
    """1,100 edges into one node of nine: the shipped sizes must cut it, in both directions."""
    generator = torch.Generator().manual_seed(0)
    into = torch.stack([torch.randint(0, 9, (1100,), generator=generator), torch.full((1100,), 4)])
    graph = NeighbourIndex.from_edge_index(torch.cat([into, into[:, :40].flip(0)], 1), 9)
    s, t = pair(9, 6, 4)
    agree("interpret", s, t, graph, 1e-5, kernel="poly")


@pytest.mark.parametrize("reduction", ["nodes", "none"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_gradcheck(kernel: str, reduction: str) -> None:
    """Finite differences know nothing of our algebra; self-loops and repeats included."""
    edges = torch.tensor([[0, 1, 1, 2, 3, 3, 0], [1, 1, 0, 0, 0, 1, 1]])
    s, t = (side.requires_grad_() for side in pair(5, 3, 2, torch.float64))
    assert torch.autograd.gradcheck(ours(NeighbourIndex.from_edge_index(edges, 5), kernel=kernel, tau=0.5), (s, t))
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.gradgradcheck(ours(NeighbourIndex.from_edge_index(edges, 5), kernel=kernel), (s, t))


@pytest.mark.parametrize("kernel", KERNELS)
def test_gathered_form_of_other_devices(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the CPU has torch's ordered sparse products; the form without them must agree, across block borders too."""
    monkeypatch.setattr(neighbours, "_has_sparse", lambda rows: False)
    monkeypatch.setattr(neighbours, "_BLOCK", 7 * 6)
    s, t = pair(13, 6, 6)
    agree("chunked", s, t, awkward(), 1e-5, kernel=kernel)
