"""Soft-label distillation on every path against the published formula in float64."""

from __future__ import annotations

import functools
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graph2mlp.errors import BackendError, KernelError
from graph2mlp.kernels.dispatch import Backend, use
from graph2mlp.kernels.soft_label_kd import reference, soft_label_kd
from graph2mlp.kernels.soft_label_kd.chunked import chunked
from tests.graphs import F4
from tests.kernels.compare import Graded, close, graded, in_new_process, pair, relative

# The interpreter computes both sides of `where`, and so a logarithm of 0 that nobody uses.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")

PATHS: list[Backend] = ["chunked", "interpret"]
INF, NAN = float("inf"), float("nan")


def shipped() -> None:
    """One call for every configuration of the fused kernel, for the compile-only check."""
    from graph2mlp.kernels.soft_label_kd.fused import fused

    for classes in (2, 3, 7, 10, 40, 47, 100, 200, 350, 1000):
        for dtype in (torch.bfloat16, torch.float32):
            side, weight = torch.zeros(64, classes, dtype=dtype), torch.ones(64)
            fused(side, side, weight, None, None, 1.0, True, False)
            fused(side, side, weight, torch.zeros(64, dtype=torch.long), weight, 1.0, True, True)


def _run(path: Backend, student: Tensor, teacher: Tensor, **settings: Any) -> Graded:
    with use(path):
        return graded(functools.partial(soft_label_kd, **settings), student, teacher)


def _exact(student: Tensor, teacher: Tensor, **settings: Any) -> Graded:
    """The formula in float64, on exactly the logits the other paths were given."""
    return graded(functools.partial(reference, **settings), student.double(), teacher.double())


def _labels(rows: int, classes: int) -> Tensor:
    """Every third row has a label."""
    ids = torch.arange(rows)
    return torch.where(ids % 3 == 1, ids % classes, -1)


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


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tempered": {"tau": 2.5},
    "cold": {"tau": 0.3, "reduction": "sum"},
    "mean": {"reduction": "mean"},
    "none": {"reduction": "none"},
    "labels": {"labels": _labels(53, 9), "ce_weight": 0.7},
    "labels, tempered, mean": {"labels": _labels(53, 9), "ce_weight": 0.7, "tau": 4.0, "reduction": "mean"},
    "labels, none": {"labels": _labels(53, 9), "ce_weight": 0.7, "tau": 4.0, "reduction": "none"},
    "labels, sum": {"labels": _labels(53, 9), "ce_weight": 0.7, "reduction": "sum"},
    "other hidden label": {"labels": torch.arange(53) % 9, "ce_weight": 0.7, "ignore_index": 4},
    "index": {"labels": torch.arange(53) % 9, "ce_weight": 1.5, "index": torch.tensor([3, 50, 4])},
    "index twice": {"labels": torch.arange(53) % 9, "ce_weight": 1.5, "index": torch.tensor([3, 50, 3])},
    "weight": {"weight": torch.arange(53) / 7},
    "weight, labels": {"weight": (torch.arange(53) % 4).float(), "labels": _labels(53, 9), "ce_weight": 0.7},
    "mask, none": {
        "weight": torch.arange(53) % 2 == 0,
        "labels": _labels(53, 9),
        "ce_weight": 2.0,
        "reduction": "none",
    },
}


@pytest.mark.parametrize("path", [*PATHS, "dense"])
@pytest.mark.parametrize("classes", [9, 21])
@pytest.mark.parametrize("name", SETTINGS)
def test_value_and_gradients_match_the_formula(name: str, classes: int, path: Backend) -> None:
    """Each setting takes its own way; fewer classes than a vector holds lie the other way round in memory."""
    student, teacher = pair(53, classes, classes)
    want = _exact(student, teacher, **SETTINGS[name])
    close(_run(path, student, teacher, **SETTINGS[name]), want, 2e-6 * 53**0.5)
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
    close(_run(path, student, teacher, **asked), _exact(student, teacher, **asked), 1e-5)


@pytest.mark.parametrize("path", PATHS)
def test_one_class_leaves_nothing_to_learn(path: Backend) -> None:
    """A softmax over one class is 1, whatever the logits; rounding must not become a loss."""
    got = _run(path, *pair(33, 1, 1))
    assert [float(one.abs().sum()) for one in (got.loss, got.d_student, got.d_teacher)] == [0, 0, 0]


# The fused form stays at rounding; plain torch takes a logarithm per side, which has an error of 1e-7 of its own.
@pytest.mark.parametrize(("path", "near"), [("chunked", 1e-7), ("interpret", 1e-12)])
@pytest.mark.parametrize("noise", [1e-1, 1e-2, 1e-3, 1e-4])
def test_no_digits_are_lost_when_the_student_is_good(noise: float, path: Backend, near: float) -> None:
    """Losses of 4e-3 to 4e-9, gradients of the size of the noise: a difference of two sums of 1e-7 error has none."""
    student, teacher = pair(60, 20, 20, noise=noise)
    got, want = _run(path, student, teacher), _exact(student, teacher)
    close(got, want, 1e-5 + 3 * near / noise)
    assert float(want.loss) < noise**2


def test_the_textbook_form_does_lose_them() -> None:
    """The reason for `gap`: if `kl_div` of float32 logarithms were as good, it should go."""
    student, teacher = pair(60, 20, 20, noise=1e-4)

    def textbook(s: Tensor, t: Tensor) -> Tensor:
        return F.kl_div(F.log_softmax(s, 1), F.log_softmax(t, 1), reduction="batchmean", log_target=True)

    assert relative(graded(textbook, student, teacher).loss, _exact(student, teacher).loss) > 0.3
    assert relative(_run("chunked", student, teacher).loss, _exact(student, teacher).loss) < 3e-3


@pytest.mark.parametrize("path", PATHS)
def test_equal_sides_have_neither_loss_nor_gradient(path: Backend) -> None:
    """The minimum is exactly there, for any constant added to a row of either side."""
    _, teacher = pair(30, 7, 7)
    got = _run(path, teacher, teacher)
    assert [float(one.abs().sum()) for one in (got.loss, got.d_student, got.d_teacher)] == [0, 0, 0]
    moved = _run(path, teacher + 16 * torch.arange(30)[:, None], teacher)
    assert float(moved.loss.abs()) < 1e-9
    assert float(moved.d_student.abs().max()) < 1e-5


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scale", [1e-4, 1e2, 1e4])
@pytest.mark.parametrize("tau", [0.01, 1.0, 1e4])
def test_extreme_logits_and_temperatures(scale: float, tau: float, path: Backend) -> None:
    """Overflow in exp of a log-ratio, underflow of a teacher's probability: where p_T is 0, p_S still is a gradient."""
    student, teacher = (scale * side for side in pair(40, 9, 9))
    got, want = _run(path, student, teacher, tau=tau), _exact(student, teacher, tau=tau)
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
    got = _run(path, student, 1e4 * F.one_hot(labels, 7).float())
    want = graded(lambda s, t: F.cross_entropy(s, labels) + 0 * t.sum(), student, student)
    close(got, want, 1e-5, atol=1e-7)


@pytest.mark.parametrize("path", [*PATHS, "dense"])
@pytest.mark.parametrize("classes", [6, 20])
def test_a_class_ruled_out_on_both_sides_does_not_count(classes: int, path: Backend) -> None:
    """-inf minus -inf is NaN. The result must be that of logits without the class."""
    student, teacher = pair(30, classes, classes)
    few = _run(path, student[:, 1:].contiguous(), teacher[:, 1:].contiguous())
    student[:, 0], teacher[:, 0] = -INF, -INF
    got = _run(path, student, teacher)
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
    close(_run(path, student, sure), _exact(student, sure), 1e-5)
    student[4, 2] = -INF
    rows = _run(path, student, teacher, reduction="none")
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
    got = _run(path, *logits, reduction="none")
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
    got = _run(path, student, teacher, weight=keep, **asked)
    assert float(got.d_student[~keep].abs().sum() + got.d_teacher[~keep].abs().sum()) == 0
    asked["labels"] = asked["labels"][keep]
    few = soft_label_kd(student[keep], teacher[keep], **asked)
    torch.testing.assert_close(got.loss[keep] if reduction == "none" else got.loss, few)


@pytest.mark.parametrize("path", PATHS)
def test_no_labelled_row_leaves_the_soft_labels(path: Backend) -> None:
    """A batch without training nodes is common; the mean of no rows is NaN."""
    student, teacher = pair(20, 5, 5)
    hidden = torch.full((20,), -1)
    want = _run(path, student, teacher)
    close(_run(path, student, teacher, labels=hidden, ce_weight=1.0), want, 0)
    close(_run(path, student, teacher, labels=hidden + 2, ce_weight=1.0, index=torch.arange(0)), want, 0)


def test_unlabelled_rows_may_exclude_a_class() -> None:
    """The cross-entropy of a placeholder label would be infinite, and 0 x inf is NaN."""
    student, teacher = pair(20, 5, 5)
    student[:, 0], teacher[:, 0] = -INF, -INF
    even = torch.arange(20) % 2 == 0
    hidden, unused = torch.where(even, 3, -1), torch.where(even, 3, 0)
    for path in PATHS:
        want = _run(path, student, teacher, labels=hidden, ce_weight=1.0)
        assert torch.isfinite(want.loss)
        close(_run(path, student, teacher, labels=unused, ce_weight=1.0, index=even.nonzero()[:, 0]), want, 0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("path", PATHS)
def test_half_types_store_logits_and_nothing_else(dtype: torch.dtype, tolerance: float, path: Backend) -> None:
    """Sums and losses stay float32: the value is exact, the gradients are rounded once, at the end."""
    student, teacher = pair(40, 9, 9, dtype)
    asked = {"labels": _labels(40, 9), "ce_weight": 0.5, "tau": 2.0}
    got, want = _run(path, student, teacher, **asked), _exact(student, teacher, **asked)
    assert got.loss.dtype == torch.float32
    assert relative(got.loss, want.loss) < 1e-6
    close(got, want, tolerance)


def test_sides_of_two_types() -> None:
    """A float32 student of a float16 teacher: knowledge on disk is often halved."""
    student, teacher = pair(40, 9, 9)
    for path in PATHS:
        close(_run(path, student, teacher.half()), _exact(student, teacher.half()), 1e-3)


@pytest.mark.parametrize("classes", [3, 17])
def test_gradcheck(classes: int) -> None:
    """Finite differences know nothing of our algebra. There is no second derivative, and that is said."""
    sides = tuple(side.requires_grad_() for side in pair(5, classes, classes, torch.float64))
    for reduction in ("batchmean", "none"):
        asked = {"tau": 1.7, "labels": torch.tensor([0, -1, 2, -1, 1]), "ce_weight": 0.6, "reduction": reduction}
        loss = functools.partial(soft_label_kd, **asked)
        assert torch.autograd.gradcheck(loss, sides)
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.gradgradcheck(loss, sides)


def test_a_frozen_teacher_gets_no_gradient() -> None:
    """Its gradient is a third of the memory traffic and must not be computed for nothing."""
    from graph2mlp.kernels.soft_label_kd.fused import fused

    student, teacher = pair(30, 8, 8)
    for core in (chunked, fused):
        _, d_student, d_teacher = core(student, teacher, torch.ones(30), None, None, 1.0, True, False)
        assert (d_student.shape, d_teacher.shape) == ((30, 8), (0,))
    student.requires_grad_()
    soft_label_kd(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_gradient_is_the_difference_of_probabilities(f4: F4) -> None:
    """dL/dz_S = (p_S - p_T) / N at temperature 1; tau / N times it for tempered logits, because of tau^2."""
    for tau in (1.0, 4.0):
        got = graded(functools.partial(soft_label_kd, tau=tau), f4.Zs, f4.Zt, upstream=1.0)
        want = tau * ((f4.Zs / tau).softmax(1) - (f4.Zt / tau).softmax(1)) / 4
        torch.testing.assert_close(got.d_student, want)


def test_shifts_and_orders_do_not_matter() -> None:
    """Softmax knows no constant per row, no class is special, and no row comes first."""
    student, teacher = pair(40, 8, 8, torch.float64)
    want = _run("chunked", student, teacher)
    close(_run("chunked", student + torch.arange(40)[:, None], teacher - 3), want, 1e-12)
    rows, classes = (torch.randperm(n, generator=torch.Generator().manual_seed(0)) for n in (40, 8))
    got = _run("chunked", student[rows][:, classes], teacher[rows][:, classes])
    close(got, Graded(want.loss, want.d_student[rows][:, classes], want.d_teacher[rows][:, classes]), 1e-12)


def test_terms_add_up() -> None:
    """The fused cross-entropy is the one that `HardLabels` computes, added to the loss without it."""
    student, teacher = pair(40, 8, 8, torch.float64)
    labels = _labels(40, 8)

    def apart(s: Tensor, t: Tensor) -> Tensor:
        return soft_label_kd(s, t, tau=3.0) + 0.4 * F.cross_entropy(s, labels, ignore_index=-1)

    together = functools.partial(soft_label_kd, tau=3.0, labels=labels, ce_weight=0.4)
    close(graded(together, student, teacher), graded(apart, student, teacher), 1e-12)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 3 rows and of all, tiles of 2 and of 64 rows: a last, shorter block is neither lost nor overrun."""
    from graph2mlp.kernels.launch import Tiles
    from graph2mlp.kernels.soft_label_kd.fused import fused

    student, teacher = pair(70, 20, 20)
    hard = (torch.arange(70) % 3 == 0).float()
    rest = (torch.rand(70, generator=torch.Generator().manual_seed(0)), torch.arange(70) % 20, hard, 2.0, True, True)
    whole = chunked(student, teacher, *rest)
    monkeypatch.setattr(sys.modules[chunked.__module__], "_BUFFER", 60)
    others = [chunked(student, teacher, *rest)]
    others += [fused(student, teacher, *rest, tiles=Tiles(rows, 32, 4, 1)) for rows in (2, 64)]
    for other in others:
        for a, b in zip(whole, other, strict=True):
            assert relative(b, a) < 1e-6
    for a, b in zip(others[1], others[2], strict=True):
        assert torch.equal(a, b), "a row's sum does not depend on its neighbours"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("classes", [7, 20])
def test_memory_layout_does_not_matter(classes: int, path: Backend) -> None:
    """Transposed, sliced out of poisoned memory, expanded: a kernel sees only pointers."""
    student, teacher = pair(33, classes, classes)
    labels = torch.arange(33) % classes
    asked = {"labels": torch.stack([labels, -labels], 1)[:, 0], "ce_weight": 1.0}
    want = _run(path, student, teacher, **asked)
    guarded = torch.full((37, classes + 4), NAN)
    guarded[2:35, 2:-2] = student
    for one in (student.T.contiguous().T, guarded[2:35, 2:-2]):
        close(_run(path, one, teacher, **asked), want, 1e-6)
    same = teacher[:1].expand(33, classes)
    close(_run(path, student, same), _exact(student, same), 1e-5)


def test_every_output_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory from `new_empty` often holds the right numbers of the last call. Here it holds NaN."""
    true_empty = Tensor.new_empty

    def poisoned(*args: Any, **settings: Any) -> Tensor:
        fresh = true_empty(*args, **settings)
        return fresh.fill_(NAN) if fresh.is_floating_point() else fresh

    monkeypatch.setattr(Tensor, "new_empty", poisoned)
    for classes in (7, 20):
        for path in PATHS:
            got = _run(path, *pair(33, classes, classes), labels=_labels(33, classes), ce_weight=1.0)
            assert torch.isfinite(got.loss)
            assert torch.isfinite(torch.cat([got.d_student, got.d_teacher])).all()


@pytest.mark.parametrize("path", PATHS)
def test_two_runs_agree_bit_by_bit(path: Backend) -> None:
    """A row that the index names twice is the place where an atomic addition would come in."""
    asked = {"labels": torch.arange(64) % 8, "ce_weight": 1.0, "index": torch.arange(64) % 5}
    close(_run(path, *pair(64, 8, 8), **asked), _run(path, *pair(64, 8, 8), **asked), 0)


@pytest.mark.parametrize("name", ["plain", "labels", "index", "mask, none"])
def test_torch_compile_passes_over_it(name: str) -> None:
    """One opaque node in the graph: no graph break, same value, same gradients."""
    student, teacher = pair(53, 9, 9)
    loss = functools.partial(soft_label_kd, **SETTINGS[name])
    torch.compiler.reset()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    close(graded(compiled, student, teacher), graded(loss, student, teacher), 1e-6)


def test_autocast_does_not_reach_the_sums() -> None:
    """Inside autocast a softmax may be rounded to half precision."""
    student, teacher = pair(33, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = _run("chunked", student, teacher)
    close(got, _run("chunked", student, teacher), 0)


def test_memory_is_a_few_times_the_gradient() -> None:
    """At 150 000 x 40 one matrix takes 23 MiB: value and gradient use three, `kl_div` by autograd five."""
    code = (
        "import torch; from graph2mlp.kernels.soft_label_kd import soft_label_kd\n"
        "from graph2mlp.measure import peak_rss_mb\n"
        "def run(s, t):\n"
        "    soft_label_kd(s, t).backward()\n"
        "run(*(torch.randn(64, 40).requires_grad_(i == 0) for i in range(2)))\n"
        "s, t = (torch.randn(150_000, 40).requires_grad_(i == 0) for i in range(2))\n"
        "before = peak_rss_mb(); run(s, t); print(peak_rss_mb() - before)"
    )
    assert float(in_new_process(code)) < 4 * 150_000 * 40 * 4 / 2**20


FLOAT, LABELS = torch.ones(3, 2), torch.tensor([0, 1, -1])


@pytest.mark.parametrize(
    ("student", "teacher", "settings", "message"),
    [
        (FLOAT, torch.ones(4, 2), {}, "must match"),
        (FLOAT, torch.ones(3, 3), {}, "student has 2 classes and teacher 3"),
        (FLOAT, torch.ones(3, 2, dtype=torch.long), {}, "teacher must be a floating-point matrix"),
        (torch.ones(3), FLOAT, {}, "student must be a floating-point matrix"),
        (torch.ones(0, 2), torch.ones(0, 2), {}, "student is empty"),
        (FLOAT, FLOAT, {"tau": 0.0}, "tau must be positive and finite, got 0.0"),
        (FLOAT, FLOAT, {"tau": NAN}, "tau must be positive and finite, got nan"),
        (FLOAT, FLOAT, {"reduction": "average"}, "reduction must be batchmean, mean, sum or none, got 'average'"),
        (FLOAT, FLOAT, {"weight": torch.ones(4)}, "weight must be"),
        (FLOAT, FLOAT, {"weight": torch.ones(3, requires_grad=True)}, "weights get no gradient"),
        (FLOAT, FLOAT, {"ce_weight": 1.0}, "need labels"),
        (FLOAT, FLOAT, {"index": torch.arange(2)}, "need labels"),
        (FLOAT, FLOAT, {"ce_weight": -1.0, "labels": LABELS}, "ce_weight must be 0 or more and finite, got -1.0"),
        (FLOAT, FLOAT, {"ce_weight": INF, "labels": LABELS}, "ce_weight must be 0 or more and finite, got inf"),
        (FLOAT, FLOAT, {"ce_weight": 1.0, "labels": LABELS.float()}, "labels must be integers"),
        (FLOAT, FLOAT, {"ce_weight": 1.0, "labels": LABELS, "index": torch.tensor([0, 3])}, "index must lie in 0..2"),
        (FLOAT, FLOAT, {"ce_weight": 1.0, "labels": LABELS, "index": torch.tensor([[0]])}, "index must be integers"),
        (FLOAT, FLOAT, {"ce_weight": 1.0, "labels": LABELS + 1}, "labels must lie in 0..1, got 0..2"),
        (FLOAT, FLOAT, {"ce_weight": 1.0, "labels": LABELS - 99}, "labels must lie in 0..1, got -100..-98"),
    ],
)
def test_wrong_input_is_refused(student: Tensor, teacher: Tensor, settings: dict[str, Any], message: str) -> None:
    """Broadcasting and silent casts would give a number for something nobody asked for."""
    with pytest.raises(KernelError, match=message):
        soft_label_kd(student, teacher, **settings)


def test_a_label_that_is_no_class_is_nan_in_the_kernel() -> None:
    """A kernel cannot raise without waiting for the device; it must not make a number of it either."""
    student, teacher = pair(10, 5, 5)
    labels = torch.where(torch.arange(10) == 4, 7, 1)
    got = _run("interpret", student, teacher, labels=labels, ce_weight=1.0, reduction="none")
    assert torch.isnan(got.loss).tolist() == [row == 4 for row in range(10)]


def test_what_the_kernel_does_not_take() -> None:
    """float64 and more than 1024 classes go the other way, and say so when the kernel was asked for."""
    for student, teacher in (pair(3, 4, 4, torch.float64), pair(3, 1025, 1025)):
        with use("interpret"), pytest.raises(BackendError, match="not float64, at most 1024"):
            soft_label_kd(student, teacher)
        close(_run("chunked", student, teacher), _exact(student, teacher), 1e-5)
