"""The closed form of the similarity loss against the published formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graph2mlp.kernels.rsd import reference, rsd
from tests.graphs import F4


def _pair(rows: int, a: int, b: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows + 10 * a + b)
    student = torch.randn(rows, a, generator=generator, dtype=dtype)
    teacher = torch.randn(rows, b, generator=generator, dtype=dtype)
    return student.requires_grad_(), teacher.requires_grad_()


def _close(name: str, got: Tensor, want: Tensor, rtol: float) -> None:
    error = float((got.double() - want.double()).norm() / want.double().norm().clamp(min=1e-300))
    assert error <= rtol, f"{name}: relative error {error:.1e} is above {rtol:.1e}"


def test_golden_value_of_both_forms(f4: F4) -> None:
    """Integer Gram matrices leave no rounding, so closed form and formula must both give the spec's number exactly."""
    assert float(rsd(f4.S, f4.T)) == 11.1875
    assert float(reference(f4.S, f4.T)) == 11.1875
    # A zero column changes nothing but forces the form for unequal widths.
    wide = torch.cat([f4.S, torch.zeros(4, 1, dtype=torch.float64)], 1)
    assert float(rsd(wide, f4.T)) == 11.1875


@pytest.mark.parametrize("precise", [True, False])
@pytest.mark.parametrize(("rows", "a", "b"), [(1, 8, 8), (63, 6, 6), (63, 7, 5), (1000, 16, 16), (1000, 4, 24)])
def test_value_and_gradients_match_the_dense_formula(rows: int, a: int, b: int, precise: bool) -> None:
    """Each form has its own backward; a random upstream gradient catches one that ignores it."""
    student, teacher = _pair(rows, a, b)
    upstream = torch.tensor(-1.7)
    rsd(student, teacher, precise=precise).backward(upstream)
    wide = [side.detach().double().requires_grad_() for side in (student, teacher)]
    want = reference(*wide)
    want.backward(upstream.double())
    tolerance = 2e-6 * rows**0.5
    _close("loss", rsd(student, teacher, precise=precise).detach(), want.detach(), tolerance)
    for name, got, exact in (("d_student", student, wide[0]), ("d_teacher", teacher, wide[1])):
        assert got.grad is not None
        assert exact.grad is not None
        _close(name, got.grad, exact.grad, tolerance)


def test_chunks_add_up() -> None:
    """Above 8192 rows the Gram matrices are sums over chunks; the last, shorter one must not be lost."""
    student, teacher = _pair(9000, 3, 3, torch.float64)
    gram = student.T @ student, teacher.T @ teacher, teacher.T @ student
    want = (gram[0].square().sum() + gram[1].square().sum() - 2 * gram[2].square().sum()) / 9000**2
    _close("loss", rsd(student, teacher).detach(), want.detach(), 1e-9)


@pytest.mark.parametrize(("a", "b"), [(3, 3), (4, 2)])
def test_gradcheck(a: int, b: int) -> None:
    """Finite differences know nothing of our algebra."""
    assert torch.autograd.gradcheck(rsd, _pair(6, a, b, torch.float64))


def test_second_derivative_raises() -> None:
    """No second derivative is written. A gradient penalty must say so instead of training on without its term."""
    student, teacher = _pair(4, 3, 3, torch.float64)
    with pytest.raises(RuntimeError):
        torch.autograd.gradgradcheck(rsd, (student, teacher))

    def with_penalty() -> None:
        loss = rsd(student, teacher)
        (gradient,) = torch.autograd.grad(loss, student, create_graph=True)
        (loss + gradient.square().sum()).backward()

    with pytest.raises(RuntimeError):
        with_penalty()


@pytest.mark.parametrize("precise", [True, False])
def test_no_cancellation_close_to_the_teacher(precise: bool) -> None:
    """A good student is where the three-term form loses all digits in float32 (560 times off at this distance)."""
    student, teacher = _pair(300, 32, 32)
    with torch.no_grad():
        student.copy_(teacher + 1e-5 * student)
    want = reference(student.detach().double(), teacher.detach().double())
    _close("loss", rsd(student, teacher, precise=precise).detach(), want, 1e-6)


def test_rotation_of_the_teacher_costs_nothing() -> None:
    """The loss compares inner products only; rounding must not push it below zero either."""
    _, teacher = _pair(200, 16, 16)
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)))[0]
    teacher = teacher.detach()
    value = float(rsd(teacher @ rotation, teacher))
    assert 0 <= value < 1e-9 * float(rsd(torch.zeros_like(teacher), teacher))


@pytest.mark.parametrize("width", [3, 4])
def test_identical_or_padded_sides_are_never_negative(width: int) -> None:
    """-1e-17 under a square root or a logarithm elsewhere would become NaN."""
    teacher = _pair(50, 3, 3)[1].detach()
    student = torch.nn.functional.pad(teacher, (0, width - 3))
    assert 0 <= float(rsd(student, teacher)) < 1e-9


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("width", [6, 4])
def test_layout_order_and_scale_do_not_matter(width: int, scale: float) -> None:
    """A transposed or sliced input, another order of the rows, features of another size: still the formula."""
    student, teacher = (scale * side.detach() for side in _pair(60, 6, width))
    want = reference(student.double(), teacher.double())
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    for name, (a, b) in {
        "transposed": (student.T.contiguous().T, teacher),
        "sliced": (torch.cat([student, student], 1)[:, :6], teacher.repeat(2, 1)[:60]),
        "permuted": (student[order], teacher[order]),
    }.items():
        _close(name, rsd(a, b), want, 1e-5)
    same = torch.ones(1, 6).expand(60, 6)
    assert float(rsd(same, same)) == 0


@pytest.mark.parametrize("width", [3, 5])
@pytest.mark.parametrize("side", [0, 1])
def test_nan_propagates(side: int, width: int) -> None:
    """A clamp at zero would turn NaN into a perfect score."""
    pair = [tensor.detach().clone() for tensor in _pair(5, 3, width)]
    pair[side][2, 1] = float("nan")
    assert torch.isnan(rsd(*pair))


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (torch.ones(3, 2), torch.ones(4, 2)),
        (torch.ones(3, 2, dtype=torch.long), torch.ones(3, 2)),
        (torch.ones(3, 2), torch.ones(3)),
        (torch.ones(0, 2), torch.ones(0, 2)),
    ],
)
def test_wrong_input_is_refused(student: Tensor, teacher: Tensor) -> None:
    """Broadcasting would otherwise give a number for rows that do not belong together."""
    with pytest.raises(ValueError, match="rsd:"):
        rsd(student, teacher)


def test_memory_is_linear_in_the_rows() -> None:
    """200,000 rows: one N x N matrix would take 160 GB, so a finished call proves that there is none."""
    student, teacher = _pair(200_000, 4, 4)
    loss = rsd(student, teacher)
    loss.backward()
    assert student.grad is not None
    assert torch.isfinite(loss)
