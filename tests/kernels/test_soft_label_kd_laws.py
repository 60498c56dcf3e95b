"""Soft-label distillation: laws it must obey, odd values, wrong input."""

from __future__ import annotations

import functools
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graph2mlp.errors import BackendError, KernelError
from graph2mlp.kernels.dispatch import Backend, use
from graph2mlp.kernels.soft_label_kd import soft_label_kd
from graph2mlp.kernels.soft_label_kd.chunked import chunked
from tests.graphs import F4
from tests.kernels.compare import Graded, close, graded, in_new_process, pair, relative
from tests.kernels.soft_label_kd_cases import FLOAT, INF, LABELS, NAN, PATHS, SETTINGS, exact_of, labels_of, run_of

# The interpreter computes both sides of `where`, and so a logarithm of 0 that nobody uses.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


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
    want = run_of("chunked", student, teacher)
    close(run_of("chunked", student + torch.arange(40)[:, None], teacher - 3), want, 1e-12)
    rows, classes = (torch.randperm(n, generator=torch.Generator().manual_seed(0)) for n in (40, 8))
    got = run_of("chunked", student[rows][:, classes], teacher[rows][:, classes])
    close(got, Graded(want.loss, want.d_student[rows][:, classes], want.d_teacher[rows][:, classes]), 1e-12)


def test_terms_add_up() -> None:
    """The fused cross-entropy is the one that `HardLabels` computes, added to the loss without it."""
    student, teacher = pair(40, 8, 8, torch.float64)
    labels = labels_of(40, 8)

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
    want = run_of(path, student, teacher, **asked)
    guarded = torch.full((37, classes + 4), NAN)
    guarded[2:35, 2:-2] = student
    for one in (student.T.contiguous().T, guarded[2:35, 2:-2]):
        close(run_of(path, one, teacher, **asked), want, 1e-6)
    same = teacher[:1].expand(33, classes)
    close(run_of(path, student, same), exact_of(student, same), 1e-5)


def test_every_output_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory from `new_empty` often holds the right numbers of the last call. Here it holds NaN."""
    true_empty = Tensor.new_empty

    def poisoned(*args: Any, **settings: Any) -> Tensor:
        fresh = true_empty(*args, **settings)
        return fresh.fill_(NAN) if fresh.is_floating_point() else fresh

    monkeypatch.setattr(Tensor, "new_empty", poisoned)
    for classes in (7, 20):
        for path in PATHS:
            got = run_of(path, *pair(33, classes, classes), labels=labels_of(33, classes), ce_weight=1.0)
            assert torch.isfinite(got.loss)
            assert torch.isfinite(torch.cat([got.d_student, got.d_teacher])).all()


@pytest.mark.parametrize("path", PATHS)
def test_two_runs_agree_bit_by_bit(path: Backend) -> None:
    """A row that the index names twice is the place where an atomic addition would come in."""
    asked = {"labels": torch.arange(64) % 8, "ce_weight": 1.0, "index": torch.arange(64) % 5}
    close(run_of(path, *pair(64, 8, 8), **asked), run_of(path, *pair(64, 8, 8), **asked), 0)


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
        got = run_of("chunked", student, teacher)
    close(got, run_of("chunked", student, teacher), 0)


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
    got = run_of("interpret", student, teacher, labels=labels, ce_weight=1.0, reduction="none")
    assert torch.isnan(got.loss).tolist() == [row == 4 for row in range(10)]


def test_what_the_kernel_does_not_take() -> None:
    """float64 and more than 1024 classes go the other way, and say so when the kernel was asked for."""
    for student, teacher in (pair(3, 4, 4, torch.float64), pair(3, 1025, 1025)):
        with use("interpret"), pytest.raises(BackendError, match="not float64, at most 1024"):
            soft_label_kd(student, teacher)
        close(run_of("chunked", student, teacher), exact_of(student, teacher), 1e-5)
