"""Soft-label distillation on every path against the published formula in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graph2mlp.kernels.dispatch import Backend, use
from graph2mlp.kernels.soft_label_kd import soft_label_kd
from tests.graphs import F4
from tests.kernels.compare import Graded, close, graded, pair, relative
from tests.kernels.soft_label_kd_cases import INF, NAN, PATHS, SETTINGS, exact_of, labels_of, run_of

# The interpreter computes both sides of `where`, and so a logarithm of 0 that nobody uses.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


def shipped() -> None:
    """One call for every configuration of the fused kernel, for the compile-only check."""
    from graph2mlp.kernels.soft_label_kd.fused import fused

    for classes in (2, 3, 7, 10, 40, 47, 100, 200, 350, 1000):
        for dtype in (torch.bfloat16, torch.float32):
            side, weight = torch.zeros(64, classes, dtype=dtype), torch.ones(64)
            fused(side, side, weight, None, None, 1.0, True, False)
            fused(side, side, weight, torch.zeros(64, dtype=torch.long), weight, 1.0, True, True)


@pytest.mark.parametrize("path", ["chunked", "interpret", "dense"])
def test_golden_values(f4: F4, path: Backend) -> None:
    """The numbers of the method's spec, among them what the wrong mean over all elements would give."""
    student, teacher = (f4.Zs.float(), f4.Zt.float()) if path == "interpret" else (f4.Zs, f4.Zt)
    with use(path):
        plain = float(soft_label_kd(student, teacher))
        assert plain == pytest.approx(0.291081, abs=1e-6)
        assert float(soft_label_kd(student, teacher, tau=4.0)) == pytest.approx(0.587579, abs=1e-6)
        assert float(soft_label_kd(student, teacher, reduction="mean")) == pytest.approx(0.097027, abs=1e-6)
        both = float(soft_label_kd(student, teacher, labels=f4.y, ce_weight=2.0))
        assert both - plain == pytest.approx(2 * 0.729914, abs=2e-6)


@pytest.mark.parametrize("path", [*PATHS, "dense"])
@pytest.mark.parametrize("classes", [9, 21])
@pytest.mark.parametrize("name", SETTINGS)
def test_value_and_gradients_match_the_formula(name: str, classes: int, path: Backend) -> None:
    """Each setting takes its own way; fewer classes than a vector holds lie the other way round in memory."""
    student, teacher = pair(53, classes, classes)
    want = exact_of(student, teacher, **SETTINGS[name])
    close(run_of(path, student, teacher, **SETTINGS[name]), want, 2e-6 * 53**0.5)
    assert float(want.d_student.abs().max()) > 1e-4


@settings(max_examples=25, deadline=None)
@given(
    rows=st.sampled_from([1, 2, 31, 32, 33, 67]),
    classes=st.sampled_from([2, 3, 15, 16, 17, 31, 64, 100]),
    path=st.sampled_from(PATHS),
)
def test_odd_shapes(rows: int, classes: int, path: Backend) -> None:
    """One less and one more than a block or a vector; every path must write every element."""
    student, teacher = pair(rows, classes, classes)
    asked = {"tau": 1.5, "labels": torch.arange(rows) % classes, "ce_weight": 0.5, "index": torch.arange(0, rows, 2)}
    close(run_of(path, student, teacher, **asked), exact_of(student, teacher, **asked), 1e-5)


@pytest.mark.parametrize("path", PATHS)
def test_one_class_leaves_nothing_to_learn(path: Backend) -> None:
    """A softmax over one class is 1, whatever the logits; rounding must not become a loss."""
    got = run_of(path, *pair(33, 1, 1))
    assert [float(one.abs().sum()) for one in (got.loss, got.d_student, got.d_teacher)] == [0, 0, 0]


# The fused form stays at rounding; plain torch takes a logarithm per side, which has an error of 1e-7 of its own.
@pytest.mark.parametrize(("path", "near"), [("chunked", 1e-7), ("interpret", 1e-12)])
@pytest.mark.parametrize("noise", [1e-1, 1e-2, 1e-3, 1e-4])
def test_no_digits_are_lost_when_the_student_is_good(noise: float, path: Backend, near: float) -> None:
    """Losses of 4e-3 to 4e-9, gradients of the size of the noise: a difference of two sums of 1e-7 error has none."""
    student, teacher = pair(60, 20, 20, noise=noise)
    got, want = run_of(path, student, teacher), exact_of(student, teacher)
    close(got, want, 1e-5 + 3 * near / noise)
    assert float(want.loss) < noise**2


def test_the_textbook_form_does_lose_them() -> None:
    """The reason for `gap`: if `kl_div` of float32 logarithms were as good, it should go."""
    student, teacher = pair(60, 20, 20, noise=1e-4)

    def textbook(s: Tensor, t: Tensor) -> Tensor:
        return F.kl_div(F.log_softmax(s, 1), F.log_softmax(t, 1), reduction="batchmean", log_target=True)

    assert relative(graded(textbook, student, teacher).loss, exact_of(student, teacher).loss) > 0.3
    assert relative(run_of("chunked", student, teacher).loss, exact_of(student, teacher).loss) < 3e-3


@pytest.mark.parametrize("path", PATHS)
def test_equal_sides_have_neither_loss_nor_gradient(path: Backend) -> None:
    """The minimum is exactly there, for any constant added to a row of either side."""
    _, teacher = pair(30, 7, 7)
    got = run_of(path, teacher, teacher)
    assert [float(one.abs().sum()) for one in (got.loss, got.d_student, got.d_teacher)] == [0, 0, 0]
    moved = run_of(path, teacher + 16 * torch.arange(30)[:, None], teacher)
    assert float(moved.loss.abs()) < 1e-9
    assert float(moved.d_student.abs().max()) < 1e-5


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scale", [1e-4, 1e2, 1e4])
@pytest.mark.parametrize("tau", [0.01, 1.0, 1e4])
def test_extreme_logits_and_temperatures(scale: float, tau: float, path: Backend) -> None:
    """Overflow in exp of a log-ratio, underflow of a teacher's probability: where p_T is 0, p_S still is a gradient."""
    student, teacher = (scale * side for side in pair(40, 9, 9))
    got, want = run_of(path, student, teacher, tau=tau), exact_of(student, teacher, tau=tau)
    for name in ("loss", "d_student", "d_teacher"):
        # A logit of size x has 1e-7 x of rounding; the gradients have at most size tau, times that for the teacher's.
        bound = {"loss": 1.0, "d_student": tau / 40, "d_teacher": tau / 40 * max(1.0, scale / tau)}[name]
        gap = float((getattr(got, name).double() - getattr(want, name)).abs().max())
        assert gap <= 2e-4 * float(getattr(want, name).abs().max()) + 1e-6 * bound, name


@pytest.mark.parametrize("path", PATHS)
def test_a_teacher_without_doubt_is_a_label(path: Backend) -> None:
    """One-hot soft labels make the divergence a cross-entropy; 0 log 0 must not become NaN."""
    student, _ = pair(30, 7, 7)
    labels = torch.arange(30) % 7
    got = run_of(path, student, 1e4 * F.one_hot(labels, 7).float())
    want = graded(lambda s, t: F.cross_entropy(s, labels) + 0 * t.sum(), student, student)
    close(got, want, 1e-5, atol=1e-7)


@pytest.mark.parametrize("path", [*PATHS, "dense"])
@pytest.mark.parametrize("classes", [6, 20])
def test_a_class_ruled_out_on_both_sides_does_not_count(classes: int, path: Backend) -> None:
    """-inf minus -inf is NaN. The result must be that of logits without the class."""
    student, teacher = pair(30, classes, classes)
    few = run_of(path, student[:, 1:].contiguous(), teacher[:, 1:].contiguous())
    student[:, 0], teacher[:, 0] = -INF, -INF
    got = run_of(path, student, teacher)
    zeros = torch.zeros(30, 1)
    close(
        got,
        Graded(few.loss, torch.cat([zeros, few.d_student], 1), torch.cat([zeros, few.d_teacher], 1)),
        1e-6,
    )


@pytest.mark.parametrize("path", PATHS)
def test_a_class_ruled_out_on_one_side(path: Backend) -> None:
    """By the teacher: an ordinary target of 0. By the student alone: infinitely wrong, and said so."""
    student, teacher = pair(30, 6, 6)
    sure = teacher.clone()
    sure[4, 2] = -INF
    close(run_of(path, student, sure), exact_of(student, sure), 1e-5)
    student[4, 2] = -INF
    rows = run_of(path, student, teacher, reduction="none")
    assert torch.isinf(rows.loss).tolist() == [row == 4 for row in range(30)]
    # The student's gradient is still the difference of the probabilities.
    want = (student[4].softmax(0) - teacher[4].softmax(0)) * -1.7 * 5 / 30
    torch.testing.assert_close(rows.d_student[4], want)


@pytest.mark.parametrize("path", [*PATHS, "dense"])
@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("side", [0, 1])
def test_nan_stays_in_its_row(side: int, bad: float, path: Backend) -> None:
    """A maximum drops NaN on a GPU, and a mask for 0 log 0 may swallow it; neither may give a number."""
    logits = pair(20, 5, 5)
    logits[side][3, 1] = bad
    got = run_of(path, *logits, reduction="none")
    for one in (got.loss[:, None], got.d_student, got.d_teacher):
        assert torch.isnan(one).any(1).tolist() == [row == 3 for row in range(20)]


@pytest.mark.parametrize("path", [*PATHS, "dense"])
@pytest.mark.parametrize("reduction", ["batchmean", "none"])
def test_masked_rows_may_hold_anything(path: Backend, reduction: str) -> None:
    """0 x NaN is NaN: what is masked must be left out before it is multiplied, and the means count the rest."""
    student, teacher = pair(20, 5, 5)
    keep = torch.arange(20) % 7 != 3
    student[~keep], teacher[~keep] = NAN, NAN
    asked = {"labels": torch.arange(20) % 5, "ce_weight": 0.5, "reduction": reduction}
    got = run_of(path, student, teacher, weight=keep, **asked)
    assert float(got.d_student[~keep].abs().sum() + got.d_teacher[~keep].abs().sum()) == 0
    asked["labels"] = asked["labels"][keep]
    few = soft_label_kd(student[keep], teacher[keep], **asked)
    torch.testing.assert_close(got.loss[keep] if reduction == "none" else got.loss, few)


@pytest.mark.parametrize("path", PATHS)
def test_no_labelled_row_leaves_the_soft_labels(path: Backend) -> None:
    """A batch without training nodes is common; the mean of no rows is NaN."""
    student, teacher = pair(20, 5, 5)
    hidden = torch.full((20,), -1)
    want = run_of(path, student, teacher)
    close(run_of(path, student, teacher, labels=hidden, ce_weight=1.0), want, 0)
    close(run_of(path, student, teacher, labels=hidden + 2, ce_weight=1.0, index=torch.arange(0)), want, 0)


def test_unlabelled_rows_may_exclude_a_class() -> None:
    """The cross-entropy of a placeholder label would be infinite, and 0 x inf is NaN."""
    student, teacher = pair(20, 5, 5)
    student[:, 0], teacher[:, 0] = -INF, -INF
    even = torch.arange(20) % 2 == 0
    hidden, unused = torch.where(even, 3, -1), torch.where(even, 3, 0)
    for path in PATHS:
        want = run_of(path, student, teacher, labels=hidden, ce_weight=1.0)
        assert torch.isfinite(want.loss)
        close(run_of(path, student, teacher, labels=unused, ce_weight=1.0, index=even.nonzero()[:, 0]), want, 0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("path", PATHS)
def test_half_types_store_logits_and_nothing_else(dtype: torch.dtype, tolerance: float, path: Backend) -> None:
    """Sums and losses stay float32: the value is exact, the gradients are rounded once, at the end."""
    student, teacher = pair(40, 9, 9, dtype)
    asked = {"labels": labels_of(40, 9), "ce_weight": 0.5, "tau": 2.0}
    got, want = run_of(path, student, teacher, **asked), exact_of(student, teacher, **asked)
    assert got.loss.dtype == torch.float32
    assert relative(got.loss, want.loss) < 1e-6
    close(got, want, tolerance)


def test_sides_of_two_types() -> None:
    """A float32 student of a float16 teacher: knowledge on disk is often halved."""
    student, teacher = pair(40, 9, 9)
    for path in PATHS:
        close(run_of(path, student, teacher.half()), exact_of(student, teacher.half()), 1e-3)
