"""The loss without edges against the edge-wise formula in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from graph2mlp.errors import KernelError
from graph2mlp.kernels.neighbour_targets import neighbour_kl, neighbour_targets, reference
from graph2mlp.kernels.neighbours import NeighbourIndex
from tests.graphs import F4
from tests.kernels.compare import pair, relative

EDGES = torch.tensor([[0, 1, 1, 2, 3, 3, 0, 5, 5, 4], [1, 1, 0, 0, 0, 1, 1, 3, 3, 5]])


def _graded(student: Tensor, teacher: Tensor, tau: float, reduction: str) -> tuple[Tensor, Tensor]:
    student = student.detach().requires_grad_()
    targets = neighbour_targets(teacher, NeighbourIndex.from_edge_index(EDGES, len(teacher)), tau)
    loss = neighbour_kl(student, targets, tau=tau, reduction=reduction)
    loss.backward(torch.tensor(-1.7, dtype=loss.dtype))
    assert student.grad is not None
    return loss.detach(), student.grad


def _exact(student: Tensor, teacher: Tensor, tau: float, reduction: str) -> tuple[Tensor, Tensor]:
    student = student.double().requires_grad_()
    loss = reference(student, teacher.double(), EDGES, tau=tau, reduction=reduction)
    loss.backward(torch.tensor(-1.7, dtype=torch.float64))
    assert student.grad is not None
    return loss.detach(), student.grad


def test_value_by_hand(f4: F4) -> None:
    """One edge is one plain KL; it fixes the direction of the KL and of the edge."""
    edges = torch.tensor([[2], [0]])
    p, q = torch.softmax(f4.Zt[2], 0), torch.softmax(f4.Zs[0], 0)
    want = float((p * (p / q).log()).sum())
    targets = neighbour_targets(f4.Zt, edges)
    for reduction in ("edges", "nodes", "sum"):
        assert float(neighbour_kl(f4.Zs, targets, reduction=reduction)) == pytest.approx(want, rel=1e-14)
    assert targets.degree.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("reduction", ["edges", "nodes", "sum"])
@pytest.mark.parametrize("tau", [0.3, 1.0, 4.0])
@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 5e-6), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)]
)
def test_value_and_gradient(dtype: torch.dtype, rtol: float, tau: float, reduction: str) -> None:
    """Repeats, self-loops, a hub and nodes without neighbours; sums in half precision would be off by percents.

    At `tau=4` the loss is a difference of numbers up to fifty times its size: 3e-6 is rounding in float32.
    """
    student, teacher = pair(7, 5, 5, dtype)
    got, want = _graded(student, teacher, tau, reduction), _exact(student, teacher, tau, reduction)
    assert relative(got[0], want[0]) < min(rtol, 5e-6), "loss"
    assert relative(got[1], want[1]) < rtol, "gradient"
    assert got[1].dtype == dtype


def test_gradient_by_formula_and_gradcheck() -> None:
    """`(deg_i q_i - total_i) / (E tau)`, and finite differences, of first and second order."""
    student, teacher = pair(7, 3, 3, torch.float64)
    targets = neighbour_targets(teacher, EDGES, 0.7)
    student.requires_grad_()
    (got,) = torch.autograd.grad(neighbour_kl(student, targets, tau=0.7), student)
    q = torch.softmax(student.detach() / 0.7, -1)
    want = (targets.degree[:, None] * q - targets.total) / (EDGES.size(1) * 0.7)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-15)
    assert torch.autograd.gradcheck(lambda z: neighbour_kl(z, targets, tau=0.7), student)
    assert torch.autograd.gradgradcheck(lambda z: neighbour_kl(z, targets, tau=0.7), student)


def test_good_student_keeps_its_digits() -> None:
    """Constant and cross-entropy are of size 1, the loss 1e-5: their difference must not be rounding."""
    _, teacher = pair(500, 7, 7)
    student = teacher[:1] + 1e-2 * teacher
    same = teacher[:1] + 1e-2 * teacher.flip(0)
    edges = torch.randint(0, 500, (2, 3000), generator=torch.Generator().manual_seed(0))
    want = reference(student.double(), same.double(), edges)
    assert float(want) < 1e-4
    assert relative(neighbour_kl(student, neighbour_targets(same, edges)), want) < 1e-2
    assert relative(neighbour_kl(student.double(), neighbour_targets(same.double(), edges)), want) < 1e-10


def test_no_edges() -> None:
    """0 divided by 0 edges: the loss is 0, with a gradient of 0."""
    student, teacher = pair(4, 3, 3)
    targets = neighbour_targets(teacher, torch.empty(2, 0, dtype=torch.long))
    student.requires_grad_()
    for reduction in ("edges", "nodes", "sum"):
        loss = neighbour_kl(student, targets, reduction=reduction)
        (gradient,) = torch.autograd.grad(loss, student)
        assert not loss.any()
        assert not gradient.any()


def test_nan_is_seen_where_it_is_used() -> None:
    """NaN of a neighbour reaches the loss; NaN of a node that no edge uses does not."""
    student, teacher = pair(7, 3, 3)
    for logits, node, used in ((teacher, 6, False), (teacher, 5, True), (student, 6, False), (student, 3, True)):
        kept = logits[node].clone()
        logits[node] = torch.nan
        value, gradient = _graded(student, teacher, 1.0, "edges")
        assert bool(torch.isnan(value)) == used
        assert used or bool(torch.isfinite(gradient).all())
        logits[node] = kept


def test_impossible_classes_add_nothing() -> None:
    """A logit of minus infinity is a probability of 0, and 0 log 0 is 0."""
    student, teacher = pair(7, 3, 3)
    teacher[:, 0] = -torch.inf
    value = neighbour_kl(student, neighbour_targets(teacher, EDGES))
    p, log_q = torch.softmax(teacher[EDGES[0], 1:], -1), torch.log_softmax(student, -1)[EDGES[1], 1:]
    assert float(value) == pytest.approx(float((p * (p.log() - log_q)).sum() / EDGES.size(1)), rel=1e-5)


def test_targets_are_constants_and_move() -> None:
    """The teacher is frozen; the targets go to the device of the student as a whole."""
    student, teacher = pair(7, 3, 3)
    targets = neighbour_targets(teacher.requires_grad_(), EDGES)
    assert not targets.total.requires_grad
    assert not targets.constant.requires_grad
    moved = targets.to("meta")
    assert {moved.total.device.type, moved.degree.device.type, moved.constant.device.type} == {"meta"}
    with pytest.raises(KernelError, match="meta"):
        neighbour_kl(student, moved)


def test_compiles_without_a_break() -> None:
    """A training step under torch.compile must neither fall back nor change."""
    student, teacher = pair(7, 3, 3)
    targets = neighbour_targets(teacher, EDGES)
    compiled = torch.compile(lambda z: neighbour_kl(z, targets), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(student), neighbour_kl(student, targets))


def test_wrong_input_is_refused() -> None:
    """Targets of another graph or other classes would broadcast into a number."""
    student, teacher = pair(7, 3, 3)
    targets = neighbour_targets(teacher, EDGES)
    graph = NeighbourIndex.from_edge_index(EDGES, 8)
    for message, call in {
        "8 nodes": lambda: neighbour_targets(teacher, graph),
        "teacher_logits": lambda: neighbour_targets(teacher.long(), EDGES),
        "tau": lambda: neighbour_targets(teacher, EDGES, 0.0),
        r"\[6, 3\]": lambda: neighbour_kl(student[:6], targets),
        "student_logits": lambda: neighbour_kl(student[0], targets),
        "tau must": lambda: neighbour_kl(student, targets, tau=-1.0),
        "reduction": lambda: neighbour_kl(student, targets, reduction="mean"),
        r"\[7, 2\]": lambda: neighbour_kl(student, replace(targets, total=targets.total[:, :2])),
    }.items():
        with pytest.raises(KernelError, match=message):
            call()
