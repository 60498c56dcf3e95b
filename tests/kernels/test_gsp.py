"""GSP: chunked and fused form against the published formula in float64, value and both gradients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from graph2mlp.errors import BackendError, KernelError
from graph2mlp.kernels.dispatch import available, use
from graph2mlp.kernels.gsp import chunked as chunked_form
from graph2mlp.kernels.gsp import gsp, reference
from tests.graphs import F4
from tests.kernels.compare import Graded, close, graded, pair, relative

KERNELS = ["cosine", "poly", "l2", "rbf"]
DIVERGENCES = ["mse", "kl"]
GOLDEN = {"cosine": 0.188126, "poly": 0.0699856, "l2": 0.454595, "rbf": 0.00236136}

# Numpy, beneath the interpreter, says so of pairs that are masked afterwards.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
each_kernel = pytest.mark.parametrize("kernel", KERNELS)
each_divergence = pytest.mark.parametrize("divergence", DIVERGENCES)
interpreter = pytest.mark.skipif(not available()["interpret"], reason="no Triton interpreter")
each_path = pytest.mark.parametrize("path", ["chunked", pytest.param("interpret", marks=interpreter)])


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


def _pair(rows: int, a: int, b: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Features short enough that no kernel is flat at them."""
    return [side / math.sqrt(side.size(1)) for side in pair(rows, a, b, dtype)]


def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody wrote holds NaN. (The interpreter works on copies: writes beyond an output are not seen.)"""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocated(*args: Any, **kwargs: Any) -> Tensor:
            out = allocate(*args, **kwargs)
            return out.fill_(torch.nan) if out.is_floating_point() else out

        return allocated

    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(Tensor, "new_empty", poisoned(Tensor.new_empty))


def _both(path: Any, student: Tensor, teacher: Tensor, **settings: Any) -> tuple[Graded, Graded]:
    """The loss on one path, and the published formula in float64."""
    wide = {
        name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in settings.items()
    }
    want = graded(partial(reference, **wide), student.double(), teacher.double())
    with use(path):
        return graded(partial(gsp, **settings), student, teacher), want


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
    got, want = _both("chunked", *_pair(rows, a, b), kernel=kernel, divergence=divergence, tau=0.7)
    close(got, want, 1e-5, atol=5e-6 if rows <= 2 else 0.0)  # a single pair may have a true gradient of 0


@interpreter
@each_divergence
@each_kernel
@pytest.mark.parametrize(("rows", "diagonal"), [(1, None), (37, True), (131, None)])
def test_fused_matches_the_formula(rows: int, diagonal: Any, kernel: Any, divergence: Any) -> None:
    """More rows than one program owns and more columns than one step takes, both with a ragged end."""
    settings = {"kernel": kernel, "divergence": divergence, "diagonal": diagonal, "tau": 0.7, "sign": -1}
    got, want = _both("interpret", *_pair(rows, 20, 40), **settings)
    close(got, want, 1e-5, atol=5e-6 if rows <= 2 else 0.0)


@each_divergence
@each_kernel
@pytest.mark.parametrize("anchors", [None, [3, 5, 39, 3, 20]])
def test_every_setting_matches_the_formula(kernel: Any, divergence: Any, anchors: Any) -> None:
    """Diagonal, anchors (one of them twice), weights (some 0) and reductions meet in all combinations."""
    student, teacher = _pair(40, 6, 9, torch.float64)
    student[3] = 0  # its similarity with itself is not the teacher's, so the diagonal counts
    anchors = None if anchors is None else torch.tensor(anchors)
    weights = [None, torch.arange(40).double() % 4]
    for diagonal, weight, reduction in itertools.product([None, True, False], weights, ["mean", "sum", "none"]):
        settings: dict[str, Any] = {"diagonal": diagonal, "weight": weight, "reduction": reduction, "anchors": anchors}
        settings |= {"kernel": kernel, "divergence": divergence, "tau": 0.3, "gamma": 0.8, "sign": -1}
        got, want = _both("chunked", student, teacher, **settings)
        close(got, want, 1e-10)


@interpreter
@each_divergence
@each_kernel
def test_fused_anchors_and_weights_match_the_formula(kernel: Any, divergence: Any) -> None:
    """Rows and columns are unlike sets here: the second pull-back sends the columns' gradient home to their rows."""
    settings: dict[str, Any] = {"anchors": torch.tensor([3, 5, 39, 3, 20], dtype=torch.int32), "reduction": "none"}
    settings |= {"weight": torch.arange(40) % 4 * 1.0, "diagonal": False}
    student, teacher = _pair(40, 6, 9)
    student[3] = 0  # its similarity with itself is not the teacher's, so the diagonal counts
    got, want = _both("interpret", student, teacher, kernel=kernel, divergence=divergence, sign=-1, **settings)
    close(got, want, 1e-5)


@each_path
@each_kernel
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_types(dtype: torch.dtype, rtol: float, kernel: Any, path: Any) -> None:
    """They are only stored in so few bits: sums of them would be off by percents, weights of 1/N^2 would be 0."""
    student, teacher = _pair(70, 10, 17, dtype)
    for divergence in DIVERGENCES:
        got, want = _both(path, student, teacher, kernel=kernel, divergence=divergence, reduction="sum", tau=0.7)
        close(got, want, rtol)


@interpreter
@pytest.mark.parametrize("kernel", ["poly", "l2"])
def test_the_range_of_float16(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: pair weights are rounded to float16, in which a mean's 1/N^2 is 0 and a short distance's 1/r inf."""
    monkeypatch.setattr("graph2mlp.kernels.launch.INTERPRETED", False)
    student, teacher = _pair(40, 8, 8, torch.float16)
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
    sides = [side.requires_grad_() for side in _pair(6, 3, 4, torch.float64)]
    assert torch.autograd.gradcheck(partial(gsp, **settings), sides)


@pytest.mark.parametrize("settings", [{"kernel": "rbf"}, {"kernel": "l2", "reduction": "none"}, {"kernel": "cosine"}])
def test_second_derivative_raises(settings: Any) -> None:
    """None is written. A gradient penalty must say so instead of training on without its term."""
    student, teacher = (side.requires_grad_() for side in _pair(5, 3, 3, torch.float64))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(gsp(student, teacher, **settings).sum(), student, create_graph=True)


def test_the_closed_form_is_the_sweep() -> None:
    """Cosine with mse takes another road; both must lead to one number and one gradient."""
    student, teacher = _pair(50, 7, 5, torch.float64)
    close(graded(gsp, student, teacher), graded(partial(gsp, weight=torch.ones(50)), student, teacher), 1e-10)
    summed = graded(partial(gsp, reduction="sum"), student, teacher)
    close(summed, graded(lambda s, t: gsp(s, t, reduction="none").sum(), student, teacher), 1e-10)


@each_path
@each_divergence
@each_kernel
def test_equal_sides_have_no_loss_and_no_gradient(kernel: Any, divergence: Any, path: Any) -> None:
    """The end of the training: nothing may be left but rounding, and a KL must not be negative here."""
    side = _pair(33, 8, 8)[0]
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
    student, teacher = _pair(40, 8, 6)
    student[1] = student[0]
    student[2:5] = 0
    teacher[3:6] = teacher[0]
    teacher[7] = 0
    got, want = _both(path, student, teacher, kernel=kernel, divergence=divergence)
    close(got, want, 1e-3 if kernel == "l2" else 1e-5, atol=1e-6)
    assert torch.isfinite(got.d_student).all()
    if kernel in ("cosine", "poly"):
        assert float(got.d_student[2:5].abs().max()) == 0


@each_path
@each_divergence
@pytest.mark.parametrize("kernel", ["l2", "rbf"])
def test_nearly_equal_rows(kernel: Any, divergence: Any, path: Any) -> None:
    """Rounding makes half of their squared distances negative; the root of those would be NaN."""
    student, teacher = _pair(40, 8, 6)
    student[:35] = student[0] + 1e-6 * student[:35]
    got, want = _both(path, student, teacher, kernel=kernel, divergence=divergence)
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
    student, teacher = (scale * side for side in _pair(30, 8, 8))
    got, want = _both(path, student, teacher, kernel=kernel, gamma=0.5 / scale**2)
    close(got, want, 1e-5)


@each_path
@pytest.mark.parametrize("kernel", ["cosine", "l2"])
@pytest.mark.parametrize(("tau", "rtol", "atol"), [(1e-3, 2e-3, 2e-2), (0.02, 1e-4, 0.0), (1e4, 1e-5, 2e-7)])
def test_extreme_temperatures(tau: float, rtol: float, atol: float, kernel: Any, path: Any) -> None:
    """Logits of 1e3 overflow without the running maximum; a nearly flat softmax leaves a KL of 1e-9, lost in rounding.

    Small tau multiplies the rounding of a similarity: 1e-7 / tau is all that float32 can keep, and 1e-7 / tau^2 in the
    teacher's gradient, which is all but 0 there.
    """
    student, teacher = _pair(30, 8, 8)
    got, want = _both(path, student, teacher, kernel=kernel, divergence="kl", tau=tau, sign=-1)
    close(got, want, rtol, atol=atol)


@each_path
@pytest.mark.parametrize("kernel", ["l2", "rbf"])
def test_an_offset_of_all_rows_changes_nothing(kernel: Any, path: Any) -> None:
    """Distances know no origin. Without centring, |x|^2 + |y|^2 - 2 x.y far from it has no digits left."""
    student, teacher = (side.round(decimals=3) for side in _pair(30, 8, 6, torch.float64))
    moved = [(student + 64).float(), (teacher - 32).float()]
    got, _ = _both(path, *moved, kernel=kernel)
    want = graded(partial(reference, kernel=kernel), *(side.double() for side in moved))
    close(got, want, 1e-5)
    close(got, graded(partial(reference, kernel=kernel), student, teacher), 1e-3)


@each_divergence
@each_kernel
def test_rotation_order_and_length(kernel: Any, divergence: Any) -> None:
    """Only similarities count: rotated features, another order of the rows, and for cosine other lengths."""
    student, teacher = _pair(40, 6, 9, torch.float64)
    loss = partial(gsp, kernel=kernel, divergence=divergence)
    want = float(loss(student, teacher))
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert float(loss(student @ rotation, teacher)) == pytest.approx(want, rel=1e-10)
    assert float(loss(student[order], teacher[order])) == pytest.approx(want, rel=1e-10)
    if kernel in ("cosine", "poly"):
        lengths = torch.linspace(0.1, 9, 40, dtype=torch.float64)[:, None]
        assert float(loss(student, lengths * teacher)) == pytest.approx(want, rel=1e-10)


@each_path
@each_divergence
@each_kernel
def test_nan_is_never_a_number(kernel: Any, divergence: Any, path: Any) -> None:
    """maximum and clamp drop NaN. As a column it reaches every row; beside anchors only its own."""
    settings: dict[str, Any] = {"kernel": kernel, "divergence": divergence, "reduction": "none"}
    anchors = torch.tensor([0, 1, 2])
    for side in (0, 1):
        sides = _pair(9, 4, 4)
        sides[side][5, 1] = torch.nan
        with use(path):
            everywhere = gsp(*sides, **settings)
            found = graded(partial(gsp, anchors=anchors, **settings), *sides)
        assert everywhere.isnan().all()
        assert found.loss.isnan().tolist() == [row == 5 for row in range(9)]
        gradient = found.d_student if side == 0 else found.d_teacher
        assert gradient[5].isnan().any(), "the gradient of the broken row is broken"
        assert torch.isfinite(gradient[6:]).all(), "rows that never meet the broken one are whole"


@each_path
@each_divergence
@each_kernel
def test_a_row_left_out_may_hold_nan(kernel: Any, divergence: Any, path: Any) -> None:
    """Weight 0 and no anchor: a padding row. 0 x NaN is NaN, so it must go before any product."""
    student, teacher = _pair(9, 4, 5)
    weight = torch.ones(9)
    weight[5] = 0
    settings: dict[str, Any] = {"kernel": kernel, "divergence": divergence, "anchors": torch.tensor([0, 1, 2])}
    with use(path):
        want = graded(partial(gsp, weight=weight, **settings), student, teacher)
        student[5], teacher[5] = torch.nan, torch.inf
        close(graded(partial(gsp, weight=weight, **settings), student, teacher), want, 0.0)
    assert float(want.d_student[5].abs().max()) == 0


@each_path
def test_weights_are_those_of_rows(path: Any) -> None:
    """A row of weight 0 has no loss of its own but remains a column; the mean divides by the weights."""
    student, teacher = _pair(12, 4, 4)
    weight = (torch.arange(12) % 3).float()
    with use(path):
        rows = gsp(student, teacher, kernel="l2", reduction="none")
        got = gsp(student, teacher, kernel="l2", weight=weight)
        masked = gsp(student, teacher, kernel="l2", weight=weight.bool())
    assert float(got) == pytest.approx(float((weight * rows).sum() / weight.sum()), rel=1e-5)
    assert float(masked) == pytest.approx(float(rows[weight > 0].mean()), rel=1e-5)


@each_kernel
def test_sampling_is_unbiased_up_to_the_diagonal(kernel: Any) -> None:
    """The diagonal is 0, so all 3-subsets of 5 rows average to the full loss, times what the diagonal takes up."""
    student, teacher = _pair(5, 3, 3, torch.float64)
    subsets = [list(one) for one in itertools.combinations(range(5), 3)]
    mean = sum(float(gsp(student[one], teacher[one], kernel=kernel)) for one in subsets) / len(subsets)
    assert mean / (2 / 3) == pytest.approx(float(gsp(student, teacher, kernel=kernel)) / (4 / 5), rel=1e-10)


def test_sampling_follows_its_generator() -> None:
    """Runs must be repeatable: the same draw from the same seed, another one next, the global state untouched."""
    student, teacher = _pair(40, 4, 4)
    generator = torch.Generator().manual_seed(3)
    state = torch.get_rng_state()
    first, second = (float(gsp(student, teacher, max_samples=10, generator=generator)) for _ in range(2))
    chosen = torch.randperm(40, generator=torch.Generator().manual_seed(3))[:10]
    assert first == float(gsp(student[chosen], teacher[chosen]))
    assert first != second
    assert torch.equal(state, torch.get_rng_state())
    assert float(gsp(student, teacher, max_samples=40)) == float(gsp(student, teacher))


@each_divergence
@each_kernel
def test_blocks_of_rows_add_up(kernel: Any, divergence: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small inputs fit one block; seven rows at a time must give the same, and twice the same bit for bit."""
    student, teacher = _pair(50, 4, 6, torch.float64)
    anchors = torch.tensor([49, 3, 3, 7, 20])
    for columns in (None, anchors):
        loss = partial(gsp, kernel=kernel, divergence=divergence, reduction="none", anchors=columns)
        whole = graded(loss, student, teacher)
        with monkeypatch.context() as patch:
            patch.setattr("graph2mlp.kernels.gsp.chunked._BUFFER", 7 * (50 if columns is None else 5))
            parts, again = graded(loss, student, teacher), graded(loss, student, teacher)
        close(parts, whole, 1e-12)
        assert all(torch.equal(getattr(parts, name), getattr(again, name)) for name in vars(parts))


@interpreter
@each_divergence
@pytest.mark.parametrize("kernel", ["poly", "l2"])
@pytest.mark.parametrize("anchored", [False, True])
def test_fused_writes_everything_and_reads_nothing_else(
    kernel: Any, divergence: Any, anchored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs start as NaN, inputs lie between NaN rows, tiles are cut in another way: the same numbers, twice."""
    from graph2mlp.kernels.gsp.fused import Steps, fused

    student, teacher = _pair(37, 16, 32)
    anchors = torch.tensor([36, 3, 3, 7, 20]) if anchored else None
    rest = (torch.linspace(0, 1, 37), anchors, kernel, divergence, 0.7, 0.5, -1, divergence == "mse", True, True)
    want = fused(student, teacher, *rest)
    _poison(monkeypatch)
    guarded = [F.pad(side, (0, 0, 3, 3), value=torch.nan)[3:-3] for side in (student, teacher)]
    assert all(torch.equal(a, b) for a, b in zip(fused(*guarded, *rest), want, strict=True))
    for tiles in (Steps(16, 16, 4, 1), Steps(32, 16, 4, 1, 16)):
        other = fused(*guarded, *rest, divergence_tiles=tiles, pull_tiles=tiles)
        for a, b in zip(other, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel": "cosine"},
        {"kernel": "l2", "divergence": "kl", "reduction": "none"},
        {"kernel": "rbf", "anchors": torch.tensor([0, 3, 3]), "weight": torch.arange(9) % 2 * 1.0},
    ],
)
def test_compiles_without_a_break(settings: Any) -> None:
    """torch.compile must pass over the operator, and may not trade its gradient for another."""
    student, teacher = _pair(9, 4, 5)
    plain = partial(gsp, **settings)
    compiled: Callable[..., Tensor] = torch.compile(plain, fullgraph=True, backend="aot_eager")
    close(graded(compiled, student, teacher), graded(plain, student, teacher), 1e-6)


@each_path
def test_a_frozen_teacher_gets_no_gradient(path: Any) -> None:
    """The usual case; a teacher gradient would be half of the work, and without a student gradient nothing breaks."""
    student, teacher = _pair(20, 4, 5)
    for divergence in DIVERGENCES:
        loss = partial(gsp, kernel="l2", divergence=divergence)
        with use(path):
            both = graded(loss, student, teacher)
            own = student.clone().requires_grad_()
            (alone,) = torch.autograd.grad(loss(own, teacher), own)
            other = teacher.clone().requires_grad_()
            (of_teacher,) = torch.autograd.grad(loss(student, other), other)
            assert not loss(student, teacher).requires_grad
        torch.testing.assert_close(-1.7 * alone, both.d_student)
        torch.testing.assert_close(-1.7 * of_teacher, both.d_teacher)


@each_path
def test_layout_does_not_matter(path: Any) -> None:
    """Transposed, sliced and expanded inputs have strides that a kernel must not take for rows."""
    student, teacher = _pair(30, 6, 6)
    loss = partial(gsp, kernel="rbf")
    with use(path):
        want = float(loss(student, teacher))
        assert float(loss(student.T.contiguous().T, teacher)) == want
        assert float(loss(torch.cat([student, student], 1)[:, :6], teacher.repeat(2, 1)[:30])) == want
        assert float(loss(torch.ones(1, 6).expand(30, 6), torch.ones(1, 3).expand(30, 3))) == 0


@pytest.mark.parametrize(
    ("student", "teacher", "settings", "message"),
    [
        (torch.ones(3, 2), torch.ones(4, 2), {}, "must match"),
        (torch.ones(3, 2, dtype=torch.long), torch.ones(3, 2), {}, "floating-point"),
        (torch.ones(3), torch.ones(3, 2), {}, "floating-point"),
        (torch.ones(0, 2), torch.ones(0, 2), {}, "empty"),
        (torch.ones(3, 2), torch.ones(3, 2), {"kernel": "cosin"}, "Did you mean 'cosine'"),
        (torch.ones(3, 2), torch.ones(3, 2), {"divergence": "js"}, "no divergence 'js'"),
        (torch.ones(3, 2), torch.ones(3, 2), {"reduction": "average"}, "no reduction"),
        (torch.ones(3, 2), torch.ones(3, 2), {"tau": 0.0}, "tau must be positive"),
        (torch.ones(3, 2), torch.ones(3, 2), {"gamma": -1.0}, "gamma must be positive"),
        (torch.ones(3, 2), torch.ones(3, 2), {"sign": 0}, "sign must be 1 or -1"),
        (torch.ones(3, 2), torch.ones(3, 2), {"max_samples": 0}, "max_samples must be positive"),
        (torch.ones(3, 2), torch.ones(3, 2), {"max_samples": 2, "anchors": torch.tensor([1])}, "leave one out"),
        (torch.ones(3, 2), torch.ones(3, 2), {"anchors": torch.tensor([3])}, r"must lie in 0\.\.2"),
        (torch.ones(3, 2), torch.ones(3, 2), {"anchors": torch.tensor([-1])}, r"must lie in 0\.\.2"),
        (torch.ones(3, 2), torch.ones(3, 2), {"anchors": torch.ones(2)}, "anchors must be integers"),
        (torch.ones(3, 2), torch.ones(3, 2), {"anchors": torch.tensor(1)}, "anchors must be integers"),
        (torch.ones(3, 2), torch.ones(3, 2), {"anchors": torch.tensor([], dtype=torch.long)}, "anchors is empty"),
        (torch.ones(3, 2), torch.ones(3, 2), {"weight": torch.ones(2)}, "weight must be"),
        (torch.ones(3, 2), torch.ones(3, 2), {"weight": torch.ones(3, requires_grad=True)}, "no gradient"),
    ],
)
def test_wrong_input_is_refused(student: Tensor, teacher: Tensor, settings: Any, message: str) -> None:
    """Broadcasting or a wrapped index would otherwise give a number for rows that do not belong together."""
    with pytest.raises(KernelError, match=f"gsp: .*{message}"):
        gsp(student, teacher, **settings)


@interpreter
def test_what_the_fused_form_cannot_take() -> None:
    """Asked for by name it must refuse: falling back in silence would make a benchmark of the wrong thing."""
    for sides in (_pair(4, 129, 3), _pair(4, 3, 3, torch.float64)):
        with use("interpret"), pytest.raises(BackendError, match="gsp: the fused kernel cannot take this call"):
            gsp(*sides, kernel="l2")
        assert torch.isfinite(gsp(*sides, kernel="l2"))


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation gives back."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, Tensor):
                self.numbers = max(self.numbers, one.numel())
        return out


@each_divergence
@each_kernel
def test_no_array_of_all_pairs(kernel: Any, divergence: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is linear: no tensor of the chunked form may hold more than one block, whatever N is."""
    monkeypatch.setattr("graph2mlp.kernels.gsp.chunked._BUFFER", 50_000)
    student, teacher = _pair(2000, 4, 8)
    with torch.no_grad(), _Largest() as seen:
        rest = (None, kernel, divergence, 1.0, 0.5, 1, True, True, True)
        chunked_form.chunked(student, teacher, torch.ones(2000), *rest)
    assert 0 < seen.numbers <= 50_000


def test_the_default_is_linear_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosine with mse must take the closed form: 100,000 rows in a moment, where the sweep takes minutes."""
    monkeypatch.setattr("graph2mlp.kernels.gsp.loss.chunked", None)
    student, teacher = (side.requires_grad_() for side in _pair(100_000, 4, 6))
    gsp(student, teacher).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
