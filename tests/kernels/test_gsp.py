"""GSP: chunked and fused form against the published formula in float64, value and both gradients."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from graph2mlp.kernels.dispatch import available, use
from graph2mlp.kernels.gsp import gsp, reference
from tests.graphs import F4
from tests.kernels.compare import close, graded, relative
from tests.kernels.gsp_cases import (
    DIVERGENCES,
    GOLDEN,
    both_of,
    each_divergence,
    each_kernel,
    each_path,
    interpreter,
    pair_of,
)

# Numpy, beneath the interpreter, says so of pairs that are masked afterwards.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")


def shipped() -> None:
    """Each kernel once for each width and type that has tiles of its own."""
    from graph2mlp.kernels.gsp.fused import fused

    for width, dtype in [(64, torch.bfloat16), (128, torch.bfloat16), (256, torch.bfloat16), (64, None), (128, None)]:
        side, weight = torch.zeros(256, width, dtype=dtype), torch.ones(256)
        for kernel in ("cosine", "l2", "rbf"):  # poly is cosine with one more product per element
            fused(side, side, weight, None, kernel, "mse", 1.0, 0.5, 1, True, True, False)
            fused(side, side, weight, None, kernel, "kl", 1.0, 0.5, 1, False, True, True)
    # Unlike widths, and a loss without gradients.
    for a, b, dtype in [(16, 256, torch.bfloat16), (256, 16, torch.bfloat16), (16, 128, None), (128, 64, None)]:
        sides, weight = [torch.zeros(256, width, dtype=dtype) for width in (a, b)], torch.ones(256)
        fused(*sides, weight, None, "l2", "mse", 1.0, 0.5, 1, False, False, False)
        fused(*sides, weight, None, "l2", "kl", 1.0, 0.5, 1, True, True, False)


@each_kernel
def test_golden_values_of_the_method_specification(kernel: Any, f4: F4) -> None:
    """The numbers were computed apart from this package: they tell if formula, mean or diagonal changes."""
    rtol = 5e-6  # the digits given
    assert float(gsp(f4.S, f4.T, kernel=kernel)) == pytest.approx(GOLDEN[kernel], rel=rtol)
    assert float(gsp(f4.S, f4.T, kernel=kernel, reduction="none").mean()) == pytest.approx(GOLDEN[kernel], rel=rtol)
    with use("dense"):
        assert float(gsp(f4.S, f4.T, kernel=kernel)) == pytest.approx(GOLDEN[kernel], rel=rtol)
    if available()["interpret"]:
        with use("interpret"):
            assert float(gsp(f4.S.float(), f4.T.float(), kernel=kernel)) == pytest.approx(GOLDEN[kernel], rel=rtol)


@each_path
def test_kl_by_hand(path: Any) -> None:
    """Three points on a line, one teacher point moved: direction of the KL, tau, sign and the missing diagonal."""
    student, teacher = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [2.0], [3.0]])

    def bernoulli(first: float, second: float) -> tuple[float, float]:
        odds = math.exp(-first / 0.5), math.exp(-second / 0.5)
        return odds[0] / sum(odds), odds[1] / sum(odds)

    rows = [((2, 3), (1, 3)), ((2, 1), (1, 2)), ((3, 1), (3, 2))]  # distances of the teacher, of the student
    want = []
    for of_teacher, of_student in rows:
        p, q = bernoulli(*of_teacher), bernoulli(*of_student)
        want.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    with use(path):
        got = gsp(student, teacher, kernel="l2", divergence="kl", tau=0.5, sign=-1, reduction="none")
    assert got.tolist() == pytest.approx(want, rel=1e-5)


@each_divergence
@each_kernel
@pytest.mark.parametrize(("rows", "a", "b"), [(1, 3, 3), (2, 1, 4), (63, 16, 17), (130, 100, 5)])
def test_chunked_matches_the_formula(rows: int, a: int, b: int, kernel: Any, divergence: Any) -> None:
    """Odd sizes, unlike widths, a single row: float32 keeps its digits and every gradient is there."""
    got, want = both_of("chunked", *pair_of(rows, a, b), kernel=kernel, divergence=divergence, tau=0.7)
    close(got, want, 1e-5, atol=5e-6 if rows <= 2 else 0.0)  # a single pair may have a true gradient of 0


@interpreter
@each_divergence
@each_kernel
@pytest.mark.parametrize(("rows", "diagonal"), [(1, None), (37, True), (131, None)])
def test_fused_matches_the_formula(rows: int, diagonal: Any, kernel: Any, divergence: Any) -> None:
    """More rows than one program owns and more columns than one step takes, both with a ragged end."""
    settings = {"kernel": kernel, "divergence": divergence, "diagonal": diagonal, "tau": 0.7, "sign": -1}
    got, want = both_of("interpret", *pair_of(rows, 20, 40), **settings)
    close(got, want, 1e-5, atol=5e-6 if rows <= 2 else 0.0)


@each_divergence
@each_kernel
@pytest.mark.parametrize("anchors", [None, [3, 5, 39, 3, 20]])
def test_every_setting_matches_the_formula(kernel: Any, divergence: Any, anchors: Any) -> None:
    """Diagonal, anchors (one of them twice), weights (some 0) and reductions meet in all combinations."""
    student, teacher = pair_of(40, 6, 9, torch.float64)
    student[3] = 0  # its similarity with itself is not the teacher's, so the diagonal counts
    anchors = None if anchors is None else torch.tensor(anchors)
    weights = [None, torch.arange(40).double() % 4]
    for diagonal, weight, reduction in itertools.product([None, True, False], weights, ["mean", "sum", "none"]):
        settings: dict[str, Any] = {"diagonal": diagonal, "weight": weight, "reduction": reduction, "anchors": anchors}
        settings |= {"kernel": kernel, "divergence": divergence, "tau": 0.3, "gamma": 0.8, "sign": -1}
        got, want = both_of("chunked", student, teacher, **settings)
        close(got, want, 1e-10)


@interpreter
@each_divergence
@each_kernel
def test_fused_anchors_and_weights_match_the_formula(kernel: Any, divergence: Any) -> None:
    """Rows and columns are unlike sets here: the second pull-back sends the columns' gradient home to their rows."""
    settings: dict[str, Any] = {"anchors": torch.tensor([3, 5, 39, 3, 20], dtype=torch.int32), "reduction": "none"}
    settings |= {"weight": torch.arange(40) % 4 * 1.0, "diagonal": False}
    student, teacher = pair_of(40, 6, 9)
    student[3] = 0  # its similarity with itself is not the teacher's, so the diagonal counts
    got, want = both_of("interpret", student, teacher, kernel=kernel, divergence=divergence, sign=-1, **settings)
    close(got, want, 1e-5)


@each_path
@each_kernel
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_types(dtype: torch.dtype, rtol: float, kernel: Any, path: Any) -> None:
    """They are only stored in so few bits: sums of them would be off by percents, weights of 1/N^2 would be 0."""
    student, teacher = pair_of(70, 10, 17, dtype)
    for divergence in DIVERGENCES:
        got, want = both_of(path, student, teacher, kernel=kernel, divergence=divergence, reduction="sum", tau=0.7)
        close(got, want, rtol)


@interpreter
@pytest.mark.parametrize("kernel", ["poly", "l2"])
def test_the_range_of_float16(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: pair weights are rounded to float16, in which a mean's 1/N^2 is 0 and a short distance's 1/r inf."""
    monkeypatch.setattr("graph2mlp.kernels.launch.INTERPRETED", False)
    student, teacher = pair_of(40, 8, 8, torch.float16)
    student = student * 1e-3
    weight = torch.full((40,), 1e-9)
    settings: dict[str, Any] = {"kernel": kernel, "weight": weight, "reduction": "sum"}
    want = graded(partial(reference, **settings), student.double(), 1e3 * teacher.double())
    with use("interpret"):
        half = graded(partial(gsp, **settings), student, 1e3 * teacher, upstream=-1.7e5)
    assert relative(half.d_student.double(), 1e5 * want.d_student) < 5e-3


@each_divergence
@each_kernel
@pytest.mark.parametrize("anchors", [None, torch.tensor([0, 4, 0])])
def test_gradcheck(kernel: Any, divergence: Any, anchors: Tensor | None) -> None:
    """Finite differences know nothing of our algebra. The weights keep cosine off the closed form."""
    weight = torch.tensor([0.5, 1.0, 2.0, 0.0, 1.0, 1.5], dtype=torch.float64)
    settings: dict[str, Any] = {"kernel": kernel, "divergence": divergence, "anchors": anchors, "weight": weight}
    sides = [side.requires_grad_() for side in pair_of(6, 3, 4, torch.float64)]
    assert torch.autograd.gradcheck(partial(gsp, **settings), sides)


@pytest.mark.parametrize("settings", [{"kernel": "rbf"}, {"kernel": "l2", "reduction": "none"}, {"kernel": "cosine"}])
def test_second_derivative_raises(settings: Any) -> None:
    """None is written. A gradient penalty must say so instead of training on without its term."""
    student, teacher = (side.requires_grad_() for side in pair_of(5, 3, 3, torch.float64))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(gsp(student, teacher, **settings).sum(), student, create_graph=True)


def test_the_closed_form_is_the_sweep() -> None:
    """Cosine with mse takes another road; both must lead to one number and one gradient."""
    student, teacher = pair_of(50, 7, 5, torch.float64)
    close(graded(gsp, student, teacher), graded(partial(gsp, weight=torch.ones(50)), student, teacher), 1e-10)
    summed = graded(partial(gsp, reduction="sum"), student, teacher)
    close(summed, graded(lambda s, t: gsp(s, t, reduction="none").sum(), student, teacher), 1e-10)


@each_path
@each_divergence
@each_kernel
def test_equal_sides_have_no_loss_and_no_gradient(kernel: Any, divergence: Any, path: Any) -> None:
    """The end of the training: nothing may be left but rounding, and a KL must not be negative here."""
    side = pair_of(33, 8, 8)[0]
    settings = {"kernel": kernel, "divergence": divergence, "reduction": "none"}
    with use(path):
        found = graded(partial(gsp, **settings), side, side.clone())
    assert float(found.loss.abs().max()) == 0
    assert float(torch.cat([found.d_student, found.d_teacher]).abs().max()) < 1e-7


@each_path
@each_divergence
@each_kernel
def test_duplicates_and_empty_rows(kernel: Any, divergence: Any, path: Any) -> None:
    """Distance 0 and length 0 have no slope: the gradient is 0 there, not 1e12 and not NaN.

    The distance of duplicates comes out as up to 1e-3 of their length instead of 0, hence the wide tolerance for l2.
    """
    student, teacher = pair_of(40, 8, 6)
    student[1] = student[0]
    student[2:5] = 0
    teacher[3:6] = teacher[0]
    teacher[7] = 0
    got, want = both_of(path, student, teacher, kernel=kernel, divergence=divergence)
    close(got, want, 1e-3 if kernel == "l2" else 1e-5, atol=1e-6)
    assert torch.isfinite(got.d_student).all()
    if kernel in ("cosine", "poly"):
        assert float(got.d_student[2:5].abs().max()) == 0


@each_path
@each_divergence
@pytest.mark.parametrize("kernel", ["l2", "rbf"])
def test_nearly_equal_rows(kernel: Any, divergence: Any, path: Any) -> None:
    """Rounding makes half of their squared distances negative; the root of those would be NaN."""
    student, teacher = pair_of(40, 8, 6)
    student[:35] = student[0] + 1e-6 * student[:35]
    got, want = both_of(path, student, teacher, kernel=kernel, divergence=divergence)
    assert torch.isfinite(got.d_student).all()
    assert relative(got.loss, want.loss) < 1e-3
    if kernel == "rbf":
        close(got, want, 1e-5)
    else:
        assert relative(got.d_teacher, want.d_teacher) < 2e-3  # distances of 1e-6 come out as up to 1e-3


@each_path
@pytest.mark.parametrize("scale", [1e-4, 1e4])
@each_kernel
def test_scale_of_the_features(kernel: Any, scale: float, path: Any) -> None:
    """Squared lengths of 1e8 and 1e-8: no overflow, no rounding to 0. The width of rbf follows the features."""
    student, teacher = (scale * side for side in pair_of(30, 8, 8))
    got, want = both_of(path, student, teacher, kernel=kernel, gamma=0.5 / scale**2)
    close(got, want, 1e-5)


@each_path
@pytest.mark.parametrize("kernel", ["cosine", "l2"])
@pytest.mark.parametrize(("tau", "rtol", "atol"), [(1e-3, 2e-3, 2e-2), (0.02, 1e-4, 0.0), (1e4, 1e-5, 2e-7)])
def test_extreme_temperatures(tau: float, rtol: float, atol: float, kernel: Any, path: Any) -> None:
    """Logits of 1e3 overflow without the running maximum; a nearly flat softmax leaves a KL of 1e-9, lost in rounding.

    Small tau multiplies the rounding of a similarity: 1e-7 / tau is all that float32 can keep, and 1e-7 / tau^2 in the
    teacher's gradient, which is all but 0 there.
    """
    student, teacher = pair_of(30, 8, 8)
    got, want = both_of(path, student, teacher, kernel=kernel, divergence="kl", tau=tau, sign=-1)
    close(got, want, rtol, atol=atol)


@each_path
@pytest.mark.parametrize("kernel", ["l2", "rbf"])
def test_an_offset_of_all_rows_changes_nothing(kernel: Any, path: Any) -> None:
    """Distances know no origin. Without centring, |x|^2 + |y|^2 - 2 x.y far from it has no digits left."""
    student, teacher = (side.round(decimals=3) for side in pair_of(30, 8, 6, torch.float64))
    moved = [(student + 64).float(), (teacher - 32).float()]
    got, _ = both_of(path, *moved, kernel=kernel)
    want = graded(partial(reference, kernel=kernel), *(side.double() for side in moved))
    close(got, want, 1e-5)
    close(got, graded(partial(reference, kernel=kernel), student, teacher), 1e-3)


@each_divergence
@each_kernel
def test_rotation_order_and_length(kernel: Any, divergence: Any) -> None:
    """Only similarities count: rotated features, another order of the rows, and for cosine other lengths."""
    student, teacher = pair_of(40, 6, 9, torch.float64)
    loss = partial(gsp, kernel=kernel, divergence=divergence)
    want = float(loss(student, teacher))
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert float(loss(student @ rotation, teacher)) == pytest.approx(want, rel=1e-10)
    assert float(loss(student[order], teacher[order])) == pytest.approx(want, rel=1e-10)
    if kernel in ("cosine", "poly"):
        lengths = torch.linspace(0.1, 9, 40, dtype=torch.float64)[:, None]
        assert float(loss(student, lengths * teacher)) == pytest.approx(want, rel=1e-10)
