"""LSP where formulas break: nothing to compare, NaN, zeros, huge numbers; and what must not change the result."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from graph2mlp.errors import BackendError, KernelError
from graph2mlp.kernels.dispatch import available, use
from graph2mlp.kernels.lsp import lsp
from graph2mlp.kernels.lsp.similarity import Similarity
from graph2mlp.kernels.neighbours import NeighbourIndex
from tests.kernels.compare import close, graded, pair, relative
from tests.kernels.lsp_cases import FUSED, KERNELS, agree, awkward, formula, needs_interpreter, ours
from tests.test_public import ROOT


@pytest.mark.parametrize("path", ["chunked", "dense", "interpret"])
@pytest.mark.parametrize("kernel", ["cosine", "dot", "l2"])
def test_nothing_to_compare_is_exactly_nothing(path: str, kernel: str) -> None:
    """No edges, or one in-neighbour each: the loss is 0 and so is every gradient; 0/0 and log 0 lurk here."""
    if not available()[path]:
        pytest.skip("no interpreter")
    ring = torch.stack([torch.arange(6), torch.arange(6).roll(1)])
    s, t = pair(6, 4, 3)
    for graph in (torch.empty(2, 0, dtype=torch.long), ring):
        for reduction in ("nodes", "edges", "sum", "none") if path != "interpret" else ("nodes",):
            with use(path):
                got = graded(lambda a, b, g=graph, r=reduction: lsp(a, b, g, kernel=kernel, reduction=r), s, t)
            assert not got.loss.any()
            assert not got.d_student.any()
            assert not got.d_teacher.any()


@pytest.mark.parametrize("path", ["chunked", "interpret"])
@pytest.mark.parametrize("kernel", ["cosine", "l2"])
@pytest.mark.parametrize("side", [0, 1])
def test_nan_stays_with_its_neighbours(side: int, kernel: str, path: str) -> None:
    """NaN must reach the rows that use it, never pass for a number, and leave all others alone."""
    if not available()[path]:
        pytest.skip("no interpreter")
    graph = NeighbourIndex.from_edge_index(torch.tensor([[0, 1, 2, 3, 0, 4, 5], [1, 0, 0, 2, 2, 5, 4]]), 8)
    sides = pair(8, 4, 4)
    with use(path):
        clean = lsp(*sides, graph, kernel=kernel, reduction="none")
        sides[side][3, 1] = float("nan")
        sides[side][7] = float("nan")  # isolated: nobody uses it
        got = graded(ours(graph, kernel=kernel, reduction="none"), *sides)
    assert torch.isnan(got.loss).nonzero().flatten().tolist() == [2]
    rest = [0, 1, 3, 4, 5, 6, 7]
    assert torch.equal(got.loss[rest], clean[rest])
    gradient = got.d_teacher if side else got.d_student
    assert torch.isnan(gradient[3]).any()
    assert torch.isfinite(gradient[[1, 4, 5, 6, 7]]).all()


@pytest.mark.parametrize("path", ["chunked", "interpret"])
def test_a_row_left_out_leaves_its_neighbours_alone(path: str) -> None:
    """Whoever drops the rows with NaN from the sum must get the gradients of the others."""
    if not available()[path]:
        pytest.skip("no interpreter")
    graph = NeighbourIndex.from_edge_index(torch.tensor([[0, 1, 2, 3, 0, 4, 1, 2], [1, 0, 0, 2, 2, 1, 4, 4]]), 5)
    kept = [0, 1, 4]
    s, t = pair(5, 4, 4)
    with use(path):
        clean = graded(lambda a, b: lsp(a, b, graph, reduction="none")[kept], s, t)
        s[3] = torch.nan
        got = graded(lambda a, b: lsp(a, b, graph, reduction="none")[kept], s, t)
    for name in ("loss", "d_student", "d_teacher"):
        rows = [0, 1, 2] if name == "loss" else kept
        assert torch.equal(getattr(got, name)[rows], getattr(clean, name)[rows]), name


@pytest.mark.parametrize(
    ("path", "kernel"),
    [
        *((path, kernel) for path in ("chunked", "dense") for kernel in FUSED),
        ("interpret", "cosine"),
        ("interpret", "l2"),
    ],
)
def test_zero_and_equal_rows(path: str, kernel: str) -> None:
    """No length, no distance: a quotient by 0 in every normalised form. The gradient there is defined as 0."""
    if not available()[path]:
        pytest.skip("no interpreter")
    s, t = pair(13, 5, 5)
    for x in (s, t):
        x[5] = 0
        x[8:12] = x[3]
    agree(path, s, t, awkward(), 1e-5, kernel=kernel)
    same = torch.zeros(13, 5)
    with use(path):
        got = graded(ours(awkward(), kernel=kernel), same, t)
    assert torch.isfinite(got.d_student).all()
    if kernel in ("cosine", "poly"):
        assert not got.d_student.any()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("scale", "tau"), [(1e-4, 1.0), (1e4, 1.0), (1.0, 1e-4), (1.0, 1e4), (1e-4, 1e-2)])
def test_extreme_scales(kernel: str, scale: float, tau: float) -> None:
    """Softmax of huge numbers must not overflow, nor 0 log 0 be NaN."""
    s, t = (scale * side for side in pair(13, 6, 4))
    got = graded(ours(awkward(), kernel=kernel, tau=tau), s, t)
    want = graded(formula(awkward(), kernel=kernel, tau=tau), s.double(), t.double())
    for one in (got.loss, got.d_student, got.d_teacher):
        assert torch.isfinite(one).all()
    # Similarities of size x / tau carry float32's error times that size into the exponent.
    size = {"dot": scale**2, "l2": scale}.get(kernel, 1.0) / tau
    assert abs(float(got.loss - want.loss)) <= 1e-5 * float(want.loss) + 1e-6 * min(size, 1.0)


@pytest.mark.parametrize("path", ["chunked", "interpret"])
@pytest.mark.parametrize("kernel", ["cosine", "l2"])
def test_good_student_keeps_its_digits(path: str, kernel: str) -> None:
    """At a loss of 1e-7 the textbook `W - A + B` has no digit left in float32."""
    if not available()[path]:
        pytest.skip("no interpreter")
    s, t = pair(13, 32, 32, noise=1e-3)
    agree(path, s, t, awkward(), 1e-3, kernel=kernel)
    with use(path):
        same = graded(ours(awkward(), kernel=kernel), t, t)
    assert float(same.loss) == 0
    assert not same.d_student.any()


def test_what_the_loss_does_not_see() -> None:
    """Rotation and scale for the cosine, translation for distances: the definition, not the implementation."""
    graph = awkward()
    _, t = pair(13, 6, 6, torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    for kernel in ("cosine", "poly"):
        assert float(lsp(3 * t @ rotation, t, graph, kernel=kernel)) < 1e-15
    for kernel in ("l2", "rbf"):
        assert float(lsp((t + 5) @ rotation, t, graph, kernel=kernel)) < 1e-14
    assert float(lsp(t + 5, t, graph, kernel="cosine")) > 1e-3


def test_order_of_edges_and_nodes_and_isolated_nodes() -> None:
    """Edges in another order give the same bits; other node ids and one node more the same loss."""
    graph = awkward()
    edges = torch.stack([graph.source, graph.target])
    order = torch.randperm(graph.num_edges, generator=torch.Generator().manual_seed(0))
    s, t = pair(13, 5, 7)
    want = graded(ours(graph), s, t)
    got = graded(ours(NeighbourIndex.from_edge_index(edges[:, order].long(), 13)), s, t)
    assert torch.equal(want.loss, got.loss)
    assert torch.equal(want.d_student, got.d_student)
    names = torch.randperm(13, generator=torch.Generator().manual_seed(1))
    place = torch.argsort(names)
    renamed = lsp(s[place], t[place], names[edges.long()])
    assert relative(renamed, want.loss) < 1e-6
    more = lsp(torch.cat([s, s[:1]]), torch.cat([t, t[:1]]), edges)
    assert relative(more, want.loss) < 1e-7


def test_complete_graph_is_the_row_softmax_without_diagonal() -> None:
    """Where every node neighbours every other, the loss is the one over all pairs."""
    s, t = pair(12, 5, 5, torch.float64)
    edges = (1 - torch.eye(12)).nonzero().T
    log_q, log_p = (
        torch.log_softmax((x @ x.T).masked_fill(torch.eye(12, dtype=torch.bool), -torch.inf), 1) for x in (s, t)
    )
    terms = (log_p.exp() * (log_p - log_q)).masked_fill(torch.eye(12, dtype=torch.bool), 0)
    assert float(lsp(s, t, edges, kernel="dot")) == pytest.approx(float(terms.sum() / 12), rel=1e-12)


def test_bits_do_not_depend_on_run_or_threads() -> None:
    """No atomics anywhere: one writer and one order for every sum."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(0, 2000, (2, 30_000), generator=generator)
    edges[1, :5000] = 7
    graph = NeighbourIndex.from_edge_index(edges, 2000)
    s, t = pair(2000, 32, 16)
    for kernel in ("cosine", "l2"):
        first = graded(ours(graph, kernel=kernel), s, t)
        torch.set_num_threads(2)
        try:
            second = graded(ours(graph, kernel=kernel), s, t)
        finally:
            torch.set_num_threads(1)
        assert torch.equal(first.loss, second.loss)
        assert torch.equal(first.d_student, second.d_student)
        assert torch.equal(first.d_teacher, second.d_teacher)


@needs_interpreter
def test_fused_writes_everything_and_reads_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers start as NaN, and NaN rows surround the inputs: a forgotten store or a wrong mask shows at once."""
    from graph2mlp.kernels.lsp.fused import Tables, fused

    def poisoned(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*arguments: Any, **named: Any) -> Tensor:
            fresh = make(*arguments, **named)
            return fresh.fill_(torch.nan) if fresh.is_floating_point() else fresh

        return made

    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(Tensor, "new_empty", poisoned(Tensor.new_empty))
    guarded = [torch.nn.functional.pad(x, (0, 0, 3, 3), value=torch.nan) for x in pair(13, 5, 9)]
    s, t = (x[3:-3] for x in guarded)
    graph, similarity = awkward(), Similarity("cosine", -1.0, 1.0, 0.5)
    runs = [fused(s, t, torch.ones(13), graph, similarity, True, True, Tables(chunk=9)) for _ in range(2)]
    for one, two in zip(*runs, strict=True):
        assert torch.isfinite(one).all()
        assert torch.equal(one, two)


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_layout_and_index_type(index: torch.dtype) -> None:
    """Sliced, transposed and expanded features, int32 and int64 edges: the same numbers."""
    graph = awkward()
    edges = torch.stack([graph.source, graph.target]).to(index)
    s, t = pair(13, 5, 4)
    want = lsp(s, t, graph)
    assert torch.equal(lsp(s.T.contiguous().T, torch.cat([t, t], 1)[:, :4], edges), want)
    wide = torch.ones(1, 5).expand(13, 5)
    assert float(lsp(wide, wide, edges)) == 0
    if available()["interpret"]:
        with use("interpret"):
            assert relative(lsp(s.T.contiguous().T, torch.cat([t, t], 1)[:, :4], edges), want) < 1e-6


def test_compiles_without_a_break() -> None:
    """A training step under torch.compile must neither fall back nor change."""
    graph = awkward()
    s, t = pair(13, 5, 4)
    want = graded(ours(graph), s, t)
    compiled = torch.compile(lambda a, b: lsp(2 * a, b, graph), fullgraph=True, backend="aot_eager")
    close(graded(compiled, s / 2, t), graded(lambda a, b: lsp(2 * a, b, graph), s / 2, t), 1e-7)
    assert relative(compiled(s / 2, t), want.loss) < 1e-6


def test_memory_is_a_few_numbers_per_edge() -> None:
    """600,000 edges of 256 features: the gathered ends alone would be 600 MiB each."""
    code = """
import resource, torch
from graph2mlp.kernels.lsp import lsp
from graph2mlp.kernels.neighbours import NeighbourIndex
torch.set_num_threads(1)
graph = NeighbourIndex.from_edge_index(torch.randint(0, 3000, (2, 600_000)), 3000)
s, t = torch.randn(3000, 256, requires_grad=True), torch.randn(3000, 256)
lsp(s[:9].detach(), t[:9], torch.tensor([[0, 1], [1, 0]]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
lsp(s, t, graph).backward()
lsp(s, t, graph, kernel="l2").backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    assert float(done.stdout) < 150, "MiB above what was there before"


def test_what_needs_no_gradient_gets_none() -> None:
    """A frozen teacher is the usual case: nothing may be computed for it, nor stored in it."""
    s, t = pair(13, 5, 4)
    s.requires_grad_()
    lsp(s, t, awkward()).backward()
    assert s.grad is not None
    assert t.grad is None
    with torch.no_grad():
        assert not lsp(s, t, awkward()).requires_grad


@needs_interpreter
def test_what_the_kernels_do_not_cover_says_so() -> None:
    """Asked for explicitly, a missing kernel is an error; the slow form must not run in silence."""
    s, t = pair(13, 5, 4)
    with use("interpret"):
        with pytest.raises(BackendError, match="laplace"):
            lsp(s, t, awkward(), kernel="laplace")
        with pytest.raises(BackendError, match="float64"):
            lsp(s.double(), t, awkward())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"student": torch.ones(12, 3)}, "12 rows"),
        ({"student": torch.ones(13, 3, dtype=torch.long)}, "floating-point"),
        ({"student": torch.ones(12, 3), "teacher": torch.ones(12, 3)}, "graph has 13 nodes"),
        ({"graph": torch.tensor([[0], [13]])}, "node 13"),
        ({"kernel": "gauss"}, "kernel must be one of"),
        ({"kernel": "l2", "sign": 2}, "sign"),
        ({"kernel": "rbf", "sign": -1}, "sign"),
        ({"tau": 0.0}, "tau"),
        ({"kernel": "rbf", "gamma": -1.0}, "gamma"),
        ({"reduction": "mean"}, "reduction"),
    ],
)
def test_wrong_input_is_refused(changed: dict[str, object], message: str) -> None:
    """Rows that do not belong together, or a setting without effect, would otherwise give a number."""
    arguments = {"student": torch.ones(13, 3), "teacher": torch.ones(13, 3), "graph": awkward(), **changed}
    with pytest.raises(KernelError, match=message):
        lsp(**arguments)
