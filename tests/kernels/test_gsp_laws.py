"""GSP: laws it must obey, odd values, wrong input."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graph2mlp.errors import BackendError, KernelError
from graph2mlp.kernels.dispatch import use
from graph2mlp.kernels.gsp import chunked as chunked_form
from graph2mlp.kernels.gsp import gsp
from tests.kernels.compare import close, graded
from tests.kernels.gsp_cases import (
    DIVERGENCES,
    Largest,
    each_divergence,
    each_kernel,
    each_path,
    interpreter,
    pair_of,
    poison,
)

# Numpy, beneath the interpreter, says so of pairs that are masked afterwards.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")


@each_path
@each_divergence
@each_kernel
def test_nan_is_never_a_number(kernel: Any, divergence: Any, path: Any) -> None:
    """maximum and clamp drop NaN. As a column it reaches every row; beside anchors only its own."""
    settings: dict[str, Any] = {"kernel": kernel, "divergence": divergence, "reduction": "none"}
    anchors = torch.tensor([0, 1, 2])
    for side in (0, 1):
        sides = pair_of(9, 4, 4)
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
    student, teacher = pair_of(9, 4, 5)
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
    student, teacher = pair_of(12, 4, 4)
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
    student, teacher = pair_of(5, 3, 3, torch.float64)
    subsets = [list(one) for one in itertools.combinations(range(5), 3)]
    mean = sum(float(gsp(student[one], teacher[one], kernel=kernel)) for one in subsets) / len(subsets)
    assert mean / (2 / 3) == pytest.approx(float(gsp(student, teacher, kernel=kernel)) / (4 / 5), rel=1e-10)


def test_sampling_follows_its_generator() -> None:
    """Runs must be repeatable: the same draw from the same seed, another one next, the global state untouched."""
    student, teacher = pair_of(40, 4, 4)
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
    student, teacher = pair_of(50, 4, 6, torch.float64)
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

    student, teacher = pair_of(37, 16, 32)
    anchors = torch.tensor([36, 3, 3, 7, 20]) if anchored else None
    rest = (torch.linspace(0, 1, 37), anchors, kernel, divergence, 0.7, 0.5, -1, divergence == "mse", True, True)
    want = fused(student, teacher, *rest)
    poison(monkeypatch)
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
    student, teacher = pair_of(9, 4, 5)
    plain = partial(gsp, **settings)
    compiled: Callable[..., Tensor] = torch.compile(plain, fullgraph=True, backend="aot_eager")
    close(graded(compiled, student, teacher), graded(plain, student, teacher), 1e-6)


@each_path
def test_a_frozen_teacher_gets_no_gradient(path: Any) -> None:
    """The usual case; a teacher gradient would be half of the work, and without a student gradient nothing breaks."""
    student, teacher = pair_of(20, 4, 5)
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
    student, teacher = pair_of(30, 6, 6)
    loss = partial(gsp, kernel="rbf")
    with use(path):
        # Some processors multiply a transposed matrix in another order of sums.
        want = pytest.approx(float(loss(student, teacher)), rel=1e-6)
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
    for sides in (pair_of(4, 129, 3), pair_of(4, 3, 3, torch.float64)):
        with use("interpret"), pytest.raises(BackendError, match="gsp: the fused kernel cannot take this call"):
            gsp(*sides, kernel="l2")
        assert torch.isfinite(gsp(*sides, kernel="l2"))


@each_divergence
@each_kernel
def test_no_array_of_all_pairs(kernel: Any, divergence: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is linear: no tensor of the chunked form may hold more than one block, whatever N is."""
    monkeypatch.setattr("graph2mlp.kernels.gsp.chunked._BUFFER", 50_000)
    student, teacher = pair_of(2000, 4, 8)
    with torch.no_grad(), Largest() as seen:
        rest = (None, kernel, divergence, 1.0, 0.5, 1, True, True, True)
        chunked_form.chunked(student, teacher, torch.ones(2000), *rest)
    assert 0 < seen.numbers <= 50_000


def test_the_default_is_linear_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosine with mse must take the closed form: 100,000 rows in a moment, where the sweep takes minutes."""
    monkeypatch.setattr("graph2mlp.kernels.gsp.loss.chunked", None)
    student, teacher = (side.requires_grad_() for side in pair_of(100_000, 4, 6))
    gsp(student, teacher).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
