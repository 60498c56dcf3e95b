"""InfoNCE on every path against the published formula in float64."""

from __future__ import annotations

import functools
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graph2mlp.kernels.dispatch import Backend, use
from graph2mlp.kernels.info_nce import info_nce, reference
from graph2mlp.kernels.info_nce.chunked import chunked
from tests.graphs import F4
from tests.kernels.compare import Graded, close, graded, pair, relative
from tests.kernels.info_nce_cases import PATHS, SETTINGS, TOLERANCE, exact, labels_of, run_of

# The interpreter computes both sides of `where`, and so a logarithm of 0 that nobody uses.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


def shipped() -> None:
    """One call for every configuration of the fused kernels, for the compile-only check."""
    from graph2mlp.kernels.info_nce.fused import fused

    for width, dtype in [(w, d) for w in (64, 128, 256) for d in (torch.bfloat16, torch.float32)]:
        if (width, dtype) == (256, torch.float32):
            continue
        side, weight = torch.zeros(256, width, dtype=dtype), torch.ones(256)
        index = torch.zeros(256, dtype=torch.long)
        fused(side, side, weight, None, None, False, True, True)
        fused(side, side, weight, None, None, True, True, True)
        fused(side, side, weight, index, index, False, True, True)


def test_value_by_hand() -> None:
    """Orthogonal unit rows: the positive has logit 1 / tau, each of the two others 0."""
    rows = torch.eye(3, dtype=torch.float64)
    want = torch.log1p(2 * torch.exp(torch.tensor(-2.0, dtype=torch.float64)))
    for value in (info_nce(rows, 5 * rows, tau=0.5), reference(rows, 5 * rows, tau=0.5)):
        assert float(value) == pytest.approx(float(want), rel=1e-14)


@pytest.mark.parametrize("path", ["chunked", "dense"])
def test_golden_values(path: Backend, f4: F4) -> None:
    """Of the method's specification: per row, mean, both directions, and at the temperature that is used."""
    with use(path):
        rows = info_nce(f4.S, f4.T, tau=1.0, reduction="none")
        values = [info_nce(f4.S, f4.T, tau=tau, symmetric=both) for tau in (1.0, 0.075) for both in (False, True)]
    assert rows.tolist() == pytest.approx([1.756842, 1.147602, 1.108634, 1.842642], abs=1e-6)
    assert [float(one) for one in values] == pytest.approx([1.463930, 1.469851, 5.534029, 5.666737], abs=1e-6)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", SETTINGS)
def test_value_and_gradients_match_the_formula(name: str, path: Backend) -> None:
    """Each setting takes its own way through the kernels, forward and backward."""
    student, teacher = pair(70, 20, 20)
    close(run_of(path, student, teacher, **SETTINGS[name]), exact(student, teacher, **SETTINGS[name]), 2e-6 * 70**0.5)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("noise", "tau"), [(0.35, 0.075), (0.11, 0.05), (0.08, 0.03)])
def test_no_digits_are_lost_when_the_student_is_good(noise: float, tau: float, symmetric: bool, path: Backend) -> None:
    """Mean losses of about 1e-2, 1e-4 and 1e-8: where `logsumexp - x` has one right digit, or none."""
    student, teacher = pair(100, 48, 48, noise=noise)
    want = exact(student, teacher, tau=tau, symmetric=symmetric)
    assert float(want.loss) < {0.35: 3e-2, 0.11: 3e-4, 0.08: 3e-7}[noise]
    close(run_of(path, student, teacher, tau=tau, symmetric=symmetric), want, 1e-5)


def test_the_textbook_form_does_lose_them() -> None:
    """The reason for the split form: if float32 cross-entropy were as good, `split.py` should go."""
    student, teacher = pair(100, 48, 48, noise=0.08)
    textbook = graded(functools.partial(reference, tau=0.03), student, teacher)
    assert relative(textbook.d_student, exact(student, teacher, tau=0.03).d_student) > 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_half_types_store_features_and_nothing_else(dtype: torch.dtype, path: Backend, symmetric: bool) -> None:
    """Features are rounded once; sums and losses stay float32, so the error is that of the features."""
    student, teacher = pair(70, 20, 20, dtype, noise=1.0)
    got = run_of(path, student, teacher, tau=0.3, symmetric=symmetric)
    assert got.loss.dtype == torch.float32
    close(got, exact(student, teacher, tau=0.3, symmetric=symmetric), TOLERANCE[dtype])


@pytest.mark.parametrize("path", PATHS)
def test_a_loss_scale_saves_small_float16_gradients(path: Backend) -> None:
    """Gradients of 1e-9 are zero in float16, and coefficients are 1/N times smaller still."""
    student, teacher = pair(90, 16, 16, torch.float16, noise=0.3)
    with use(path):
        got = graded(functools.partial(info_nce, tau=0.1, normalize=False), student / 4, teacher / 4, upstream=2.0**14)
    wide = functools.partial(reference, tau=0.1, normalize=False)
    close(got, graded(wide, (student / 4).double(), (teacher / 4).double(), upstream=2.0**14), 1e-2)


@pytest.mark.parametrize("path", PATHS)
def test_compute_dtype_rounds_the_features(path: Backend) -> None:
    """float32 features multiplied as bfloat16: gradients stay float32, values differ by that rounding only."""
    student, teacher = pair(70, 20, 20, noise=1.0)
    got = run_of(path, student, teacher, tau=0.3, compute_dtype=torch.bfloat16)
    want = exact(student, teacher, tau=0.3)
    close(got, want, 3e-2)
    assert relative(got.d_student, want.d_student) > 1e-5, "compute_dtype changed nothing"


@settings(max_examples=30, deadline=None)
@given(
    rows=st.sampled_from([1, 2, 15, 16, 17, 35]),
    keys=st.sampled_from([1, 2, 15, 16, 17, 35]),
    width=st.sampled_from([1, 3, 16, 17, 64]),
)
def test_odd_shapes(rows: int, keys: int, width: int) -> None:
    """One less and one more than a block, rectangular, narrower than a tile."""
    student, teacher = pair(rows, width, 1)[0], pair(keys, width, 2)[0]
    # Not normalised: one number scaled to length 1 has no gradient, only rounding.
    asked = {"positives": torch.arange(rows) * 7 % keys, "normalize": False, "tau": width**0.5}
    close(run_of("interpret", student, teacher, **asked), exact(student, teacher, **asked), 1e-5)


def test_blocks_do_not_show() -> None:
    """Chunks of 3 rows and of all rows, tiles of 16 and of 64: the same sums, in another order."""
    from graph2mlp.kernels.info_nce.fused import fused
    from graph2mlp.kernels.launch import Tiles

    student, teacher = pair(70, 20, 20)
    rest = (torch.rand(70, generator=torch.Generator().manual_seed(0)), None, None, True, True, True)
    whole = chunked(student, teacher, *rest)
    for rows, columns in ((16, 32), (64, 16)):
        tiles = Tiles(rows, columns, 4, 2)
        tiled = fused(student, teacher, *rest, mean_tiles=tiles, sum_tiles=tiles)
        for a, b in zip(whole, tiled, strict=True):
            assert relative(b, a) < 1e-5


@pytest.mark.parametrize("bound", [20.0, -1.0])
def test_chunks_of_few_rows(bound: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 8 million pairs there are several chunks; the last is shorter. With a shared exponential and without."""
    monkeypatch.setattr(sys.modules[chunked.__module__], "_BUFFER", 200)
    monkeypatch.setattr(sys.modules[chunked.__module__], "_BOUND", bound)
    student, teacher = pair(70, 20, 20)
    for name in ("plain", "symmetric", "labels", "symmetric, labels", "symmetric, weight", "positives"):
        close(run_of("chunked", student, teacher, **SETTINGS[name]), exact(student, teacher, **SETTINGS[name]), 1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
def test_gradcheck(symmetric: bool) -> None:
    """Finite differences know nothing of our algebra; the temperature's gradient goes through the operator too."""
    student, teacher = (side.requires_grad_() for side in pair(6, 3, 3, torch.float64))
    tau = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

    def loss(s: Tensor, t: Tensor, temperature: Tensor) -> Tensor:
        return info_nce(s, t, tau=temperature, symmetric=symmetric)

    assert torch.autograd.gradcheck(loss, (student, teacher, tau))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.gradgradcheck(loss, (student, teacher, tau))


def test_a_frozen_teacher_gets_no_gradient() -> None:
    """Its sweep costs as much as the student's, and must not run for nothing; the loss may not change."""
    student, teacher = pair(30, 8, 8)
    student.requires_grad_()
    loss = info_nce(student, teacher)
    loss.backward()
    assert student.grad is not None
    assert teacher.grad is None
    both = run_of("chunked", student, teacher)
    assert torch.equal(loss.detach(), both.loss)
    assert torch.equal(-1.7 * student.grad, both.d_student) or relative(-1.7 * student.grad, both.d_student) < 1e-6


def test_two_directions_are_the_symmetric_form() -> None:
    """It is their mean by definition; with weights, too."""
    student, teacher = pair(40, 8, 8, torch.float64)
    weight = torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def both(s: Tensor, t: Tensor) -> Tensor:
        return (info_nce(s, t, weight=weight) + info_nce(t, s, weight=weight)) / 2

    close(
        graded(functools.partial(info_nce, symmetric=True, weight=weight), student, teacher),
        graded(both, student, teacher),
        1e-13,
    )


def test_order_of_the_nodes_does_not_matter() -> None:
    """A loss over all pairs has no first row."""
    student, teacher = pair(40, 8, 8, torch.float64)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    got, want = run_of("chunked", student[order], teacher[order]), run_of("chunked", student, teacher)
    close(got, Graded(want.loss, want.d_student[order], want.d_teacher[order]), 1e-13)


def test_a_sample_is_drawn_with_the_generator() -> None:
    """Two runs with one seed agree; what is not drawn has no gradient; labels and weights follow their rows."""
    student, teacher = pair(40, 8, 8)

    def run(seed: int) -> Graded:
        generator = torch.Generator().manual_seed(seed)
        keep = {"labels": labels_of(40), "weight": torch.ones(40)}
        return graded(functools.partial(info_nce, max_samples=10, generator=generator, **keep), student, teacher)

    first = run(0)
    assert torch.equal(first.d_student, run(0).d_student)
    drawn = first.d_student.abs().sum(1) > 0
    assert int(drawn.sum()) == 10
    close(
        Graded(first.loss, first.d_student[drawn], first.d_teacher[drawn]),
        exact(student[drawn], teacher[drawn], labels=labels_of(40)[drawn]),
        1e-5,
    )
    assert not torch.equal(drawn, run(1).d_student.abs().sum(1) > 0)
