"""Centred kernel alignment against the published N x N formula in float64."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from graph2mlp.errors import BackendError, KernelError
from graph2mlp.kernels.cka import cka, reference
from graph2mlp.kernels.dispatch import use
from tests.kernels.compare import Graded, close, graded, in_new_process, pair, relative


def _exact(student: Tensor, teacher: Tensor) -> Graded:
    return graded(reference, student.double(), teacher.double())


def test_value_by_hand() -> None:
    """Two features that are +-1: aligned on one of two equal axes, so cka = 16 / (sqrt(32) * 4) = 1 / sqrt(2)."""
    teacher = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    for form in (cka, reference):
        assert float(form(teacher[:, :1] + 5, teacher)) == pytest.approx(0.5**0.5, rel=1e-14)


@pytest.mark.parametrize("precise", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("rows", "a", "b"), [(3, 2, 2), (64, 6, 6), (65, 17, 5), (200, 1, 33)])
def test_value_and_gradients_match_the_formula(rows: int, a: int, b: int, dtype: torch.dtype, precise: bool) -> None:
    """Both sides, either one wider; half types only store, so the loss stays right and gradients round once."""
    student, teacher = pair(rows, a, b, dtype)
    got = graded(functools.partial(cka, precise=precise), student, teacher)
    want = _exact(student, teacher)
    assert got.loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert relative(got.loss, want.loss) < 2e-6
    close(got, want, max(1e-5, 4 * torch.finfo(dtype).eps), atol=1e-6)


def test_gradients_keep_their_digits_near_one() -> None:
    """Two terms cancel when the student is good: float32 has few digits left there, the default has all."""
    student, teacher = pair(100, 8, 8, noise=1e-4)
    want = _exact(student, teacher)
    close(graded(cka, student, teacher), want, 1e-6)
    assert relative(graded(functools.partial(cka, precise=False), student, teacher).d_student, want.d_student) > 1e-4


def test_an_offset_costs_no_digits() -> None:
    """Features far from zero: the mean is subtracted row by row, not as a rank-one term from the Gram matrix."""
    student, teacher = pair(100, 8, 6)
    close(graded(cka, student + 1000, teacher - 1000), _exact(student + 1000, teacher - 1000), 1e-5)


def test_chunks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 8192 rows means, sums and products run over chunks; the last is shorter."""
    monkeypatch.setattr("graph2mlp.kernels.cka.chunked._CHUNK", 32)
    student, teacher = pair(70, 6, 4)
    close(graded(cka, student, teacher), _exact(student, teacher), 1e-6)


@pytest.mark.parametrize(("a", "b"), [(3, 3), (4, 2)])
def test_gradcheck(a: int, b: int) -> None:
    """Finite differences know nothing of our algebra; a second derivative is not written and must say so."""
    sides = tuple(side.requires_grad_() for side in pair(7, a, b, torch.float64))
    assert torch.autograd.gradcheck(cka, sides)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.gradgradcheck(cka, sides)


def test_laws_of_the_similarity() -> None:
    """1 for itself, up to rotation, factor and offset; symmetric; in [0, 1]; no first row."""
    student, teacher = pair(60, 8, 8, torch.float64)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    for same in (teacher, 3 * teacher + 7, -teacher @ turn, teacher[:, torch.randperm(8)]):
        value = float(cka(same, teacher))
        assert 1 - 1e-12 < value <= 1, "1 - cka under a square root must not become NaN"
    want = graded(cka, student, teacher)
    assert 0 < float(want.loss) < 1
    swapped = graded(cka, teacher, student)
    close(Graded(swapped.loss, swapped.d_teacher, swapped.d_student), want, 1e-12)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    close(
        graded(cka, student[order], teacher[order]),
        Graded(want.loss, want.d_student[order], want.d_teacher[order]),
        1e-12,
    )
    # The value does not change along the rows themselves, nor with a common offset.
    assert abs(float((want.d_student * student).sum())) < 1e-12
    assert float(want.d_student.sum(0).abs().max()) < 1e-12


@pytest.mark.parametrize("precise", [True, False])
@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1e4, 1e9])
def test_scale_means_nothing(scale: float, precise: bool) -> None:
    """Squares of squares of 1e-12 are zero in float32, those of 1e9 next to infinite; their ratio is neither."""
    student, teacher = pair(60, 8, 5)
    got = graded(functools.partial(cka, precise=precise), scale * student, teacher)
    want = _exact(student, teacher)
    close(Graded(got.loss, got.d_student * scale, got.d_teacher), want, 1e-5)


@pytest.mark.parametrize("precise", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6 / 3])
def test_a_constant_side_is_like_nothing(constant: float, dtype: torch.dtype, precise: bool) -> None:
    """0 / 0 of rounding errors could be any number; NaN would spread to every weight."""
    _, teacher = pair(70, 4, 4, dtype)
    collapsed = constant * torch.tensor([1.0, -0.7, 0.3], dtype=dtype).expand(70, 3)
    for sides in ((collapsed, teacher), (teacher, collapsed), (collapsed, collapsed)):
        got = graded(functools.partial(cka, precise=precise), *sides)
        assert [float(one.abs().max()) for one in (got.loss, got.d_student, got.d_teacher)] == [0, 0, 0]


def test_nearly_constant_is_not_constant() -> None:
    """One row that differs in its last digit is data; the limit must lie below what float32 can hold."""
    side = torch.ones(300, 2)
    side[3, 0] += 2**-23
    teacher = pair(300, 3, 3)[1]
    close(graded(cka, side, teacher), _exact(side - 1, teacher), 1e-5)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_reaches_the_result(side: int, bad: float) -> None:
    """A cut at 1, or the rule for constant sides, would turn NaN into a number."""
    sides = pair(20, 6, 4)
    sides[side][2, 1] = bad
    got = graded(cka, *sides)
    assert torch.isnan(got.loss)
    assert torch.isnan(got.d_student).any(1).all()
    assert torch.isnan(got.d_teacher).any(1).all()


def test_memory_layout_does_not_matter() -> None:
    """Transposed, sliced out of poisoned memory, duplicate rows."""
    student, teacher = pair(33, 8, 8)
    student[5:9] = student[4]
    want = graded(cka, student, teacher)
    guarded = torch.full((37, 12), float("nan"))
    guarded[2:35, 2:10] = student
    for one in (student.T.contiguous().T, guarded[2:35, 2:10]):
        close(graded(cka, one, teacher), want, 1e-6)
    close(graded(cka, student, teacher), want, 0)


def test_every_output_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory from `empty` often holds the right numbers of the last call. Here it holds NaN."""
    true_empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: true_empty(*a, **k).fill_(float("nan")))
    got = graded(cka, *pair(70, 6, 5))
    assert torch.isfinite(torch.cat([got.d_student, got.d_teacher], 1)).all()


def test_torch_compile_and_autocast_pass_over_it() -> None:
    """One opaque node in the graph; and no bfloat16 products inside autocast."""
    student, teacher = pair(33, 8, 5)
    want = graded(cka, student, teacher)
    close(graded(torch.compile(cka, backend="aot_eager", fullgraph=True), student, teacher), want, 1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close(graded(cka, student, teacher), want, 0)


def test_a_frozen_teacher_gets_no_gradient() -> None:
    """Half of the second pass is saved; the student's gradient stays."""
    student, teacher = pair(30, 8, 5)
    both = graded(cka, student, teacher)
    cka(student.requires_grad_(), teacher).backward(torch.tensor(-1.7))
    assert student.grad is not None
    assert torch.equal(student.grad, both.d_student)
    assert teacher.grad is None


def test_memory_is_linear_in_the_rows() -> None:
    """The peak of value and both gradients at N = 8192 stays below a quarter of one N x N matrix."""
    code = (
        "from graph2mlp.kernels.cka import cka; from graph2mlp.measure import peak_rss_mb\n"
        "def run(rows):\n"
        "    s, t = (torch.randn(rows, 64).requires_grad_() for _ in range(2))\n"
        "    cka(s, t).backward()\n"
        "run(64); before = peak_rss_mb(); run(8192); print(peak_rss_mb() - before)"
    )
    assert float(in_new_process(code)) < 0.25 * 8192**2 * 4 / 2**20


def test_backends() -> None:
    """`dense` is the formula; kernels asked for by name do not exist, and saying so beats falling back in silence."""
    student, teacher = pair(20, 4, 3, torch.float64)
    with use("dense"):
        close(graded(cka, student, teacher), _exact(student, teacher), 0)
    with use("interpret"), pytest.raises(BackendError, match="it has none"):
        cka(student, teacher)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (torch.ones(3, 2), torch.ones(4, 2), "must match"),
        (torch.ones(3, 2, dtype=torch.long), torch.ones(3, 2), "student must be a floating-point matrix"),
        (torch.ones(3, 2), torch.ones(3), "teacher must be a floating-point matrix"),
        (torch.ones(0, 2), torch.ones(0, 2), "student is empty"),
        (torch.ones(1, 2), torch.ones(1, 2), "pass at least two rows"),
    ],
)
def test_wrong_input_is_refused(student: Tensor, teacher: Tensor, message: str) -> None:
    """Broadcasting would otherwise give a number for rows that do not belong together."""
    with pytest.raises(KernelError, match=message):
        cka(student, teacher)
