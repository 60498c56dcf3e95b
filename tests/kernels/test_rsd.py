"""The closed form of the similarity loss, on every path, against the published formula in float64."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graph2mlp.kernels.dispatch import Backend, use
from graph2mlp.kernels.rsd import reference, rsd
from graph2mlp.kernels.rsd.chunked import chunked
from tests.graphs import F4
from tests.kernels.compare import Graded, close, graded, pair, relative
from tests.kernels.rsd_cases import PATHS, SETTINGS, WEIGHT, exact, run_of

# The interpreter warns of NaN, which some tests feed it.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


def shipped() -> None:
    """One call for every configuration of the fused kernels, for the compile-only check."""
    from graph2mlp.kernels.rsd.fused import fused

    for width, dtype in [(w, d) for w in (64, 128) for d in (torch.bfloat16, torch.float32)]:
        side, one = torch.zeros(256, width, dtype=dtype), torch.ones(())
        fused(side, side, one, None, None, True, False, True, True)
        fused(side, side, one, torch.ones(256), None, False, False, True, True)


def test_golden_value_of_all_forms(f4: F4) -> None:
    """Integer Gram matrices leave no rounding, so every form must give the spec's number exactly."""
    assert float(rsd(f4.S, f4.T)) == 11.1875
    assert float(reference(f4.S, f4.T)) == 11.1875
    # A zero column changes nothing but forces the form for unequal widths.
    wide = torch.cat([f4.S, torch.zeros(4, 1, dtype=torch.float64)], 1)
    assert float(rsd(wide, f4.T)) == 11.1875
    with use("interpret"):
        assert float(rsd(f4.S.float(), f4.T.float())) == 11.1875


@pytest.mark.parametrize(("path", "widths"), [("chunked", (20, 20)), ("chunked", (7, 12)), ("interpret", (20, 20))])
@pytest.mark.parametrize("name", SETTINGS)
def test_value_and_gradients_match_the_formula(name: str, path: Backend, widths: tuple[int, int]) -> None:
    """Each setting takes its own way through the algebra, and each form has its own gradient."""
    student, teacher = pair(70, *widths)
    close(run_of(path, student, teacher, **SETTINGS[name]), exact(student, teacher, **SETTINGS[name]), 1e-5)


def test_the_dense_backend_is_the_reference() -> None:
    """A setting that gets lost on the way would make every comparison with it wrong."""
    student, teacher = pair(70, 7, 12, torch.float64)
    for asked in SETTINGS.values():
        close(run_of("dense", student, teacher, **asked), exact(student, teacher, **asked), 1e-14)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.sampled_from([1, 2, 31, 32, 33, 67, 129]),
    width=st.sampled_from([1, 3, 16, 17, 64, 100, 128]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
def test_odd_shapes(rows: int, width: int, dtype: torch.dtype) -> None:
    """One less and one more than a block, narrower than a tile; half types only store, so they lose nothing more."""
    student, teacher = pair(rows, width, width, dtype)
    rounding = 1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps  # of the gradient, to its own type
    scale = {"upstream": float(rows)}  # else the small gradients of float16 are lost
    with use("interpret"):
        got = graded(rsd, student, teacher, **scale)
    assert got.loss.dtype == torch.float32
    want = graded(reference, student.double(), teacher.double(), **scale)
    close(got, want, rounding)
    assert relative(got.loss, want.loss) < 1e-5


@pytest.mark.parametrize("name", ["center", "normalize", "all"])
def test_preparing_the_rows_costs_no_digits(name: str) -> None:
    """Centred or scaled rows that are rounded to float32 again differ from the teacher's by rounding, here 0.4 %."""
    student, teacher = pair(70, 32, 32, noise=1e-5)
    close(run_of("chunked", student, teacher, **SETTINGS[name]), exact(student, teacher, **SETTINGS[name]), 1e-6)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("precise", [True, False])
def test_no_cancellation_close_to_the_teacher(precise: bool, path: Backend) -> None:
    """A good student is where the three-term form loses all digits in float32 (560 times off at this distance)."""
    student, teacher = pair(150, 32, 32, noise=1e-5)
    close(run_of(path, student, teacher, precise=precise), exact(student, teacher), 1e-6)


def test_a_rotation_needs_the_precise_form() -> None:
    """S = TQ + little: the loss is small, the difference is not. If float32 did as well, `precise` could go."""
    student, teacher = pair(150, 16, 16, noise=1e-4)
    student = student @ torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)))[0]
    want = exact(student, teacher)
    close(run_of("chunked", student, teacher), want, 1e-6)
    assert relative(run_of("chunked", student, teacher, precise=False).loss, want.loss) > 1e-4


def test_float32_keeps_what_the_diagonal_leaves() -> None:
    """Nearly orthogonal rows: the diagonal is all but 1e-8 of the sum, so subtracting it in float32 leaves noise."""
    student = torch.eye(20) + 1e-4 * pair(20, 20, 20)[0]
    want = exact(student, 2 * torch.eye(20), diagonal=False)
    close(run_of("chunked", student, 2 * torch.eye(20), diagonal=False, precise=False), want, 1e-5)


def test_unequal_widths_are_never_summed_in_float32() -> None:
    """Their three terms cancel: in float32 the loss of this good student would be off by more than itself."""
    student, teacher = pair(150, 32, 32, noise=1e-4)
    student = torch.nn.functional.pad(student, (0, 1))
    close(run_of("chunked", student, teacher, precise=False), exact(student, teacher), 1e-6)


def test_chunks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 8192 rows the sums run over chunks; the last, shorter one must not be lost, nor shifted in a weight."""
    monkeypatch.setattr("graph2mlp.kernels.rsd.chunked.CHUNK", 32)
    monkeypatch.setattr("graph2mlp.kernels.rsd.gram.CHUNK", 32)
    for widths in ((6, 6), (3, 5)):
        student, teacher = pair(70, *widths)
        for name in ("plain", "no diagonal, weight", "anchors, weight"):
            close(
                run_of("chunked", student, teacher, **SETTINGS[name]), exact(student, teacher, **SETTINGS[name]), 1e-5
            )


def test_blocks_do_not_show() -> None:
    """Partial sums over 32 and over 64 rows, steps of 16 and of 32 features: the same sums, in another order."""
    from graph2mlp.kernels.launch import Tiles
    from graph2mlp.kernels.rsd.fused import fused

    student, teacher = pair(150, 40, 40)
    weight = torch.rand(150, generator=torch.Generator().manual_seed(0))
    rest = (torch.ones(()), weight, None, False, True, True, True)
    whole = chunked(student, teacher, *rest)
    for rows, columns in ((32, 16), (64, 32)):
        tiles = Tiles(rows, columns, 4, 2)
        for a, b in zip(whole, fused(student, teacher, *rest, gram_tiles=tiles, pull_back_tiles=tiles), strict=True):
            assert relative(b, a) < 1e-6


@pytest.mark.parametrize(("a", "b"), [(3, 3), (4, 2)])
@pytest.mark.parametrize("name", ["plain", "weight", "no diagonal", "anchors, weight", "all"])
def test_gradcheck(name: str, a: int, b: int) -> None:
    """Finite differences know nothing of our algebra."""
    student, teacher = (side.requires_grad_() for side in pair(6, a, b, torch.float64))
    few = {"weight": WEIGHT[:6].double(), "anchors": torch.tensor([0, 5, 5])}
    loss = functools.partial(rsd, **{key: few.get(key, value) for key, value in SETTINGS[name].items()})
    assert torch.autograd.gradcheck(loss, (student, teacher))


def test_second_derivative_raises() -> None:
    """No second derivative is written. A gradient penalty must say so instead of training on without its term."""
    student, teacher = (side.requires_grad_() for side in pair(4, 3, 3, torch.float64))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.gradgradcheck(rsd, (student, teacher))
    loss = rsd(student, teacher)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, student, create_graph=True)


def test_a_frozen_teacher_gets_no_gradient() -> None:
    """The usual case in training: half of the second pass is saved, value and gradient stay."""
    student, teacher = pair(30, 8, 8)
    both = run_of("chunked", student, teacher)
    student.requires_grad_()
    loss = rsd(student, teacher)
    loss.backward(torch.tensor(-1.7))
    assert torch.equal(loss.detach(), both.loss)
    assert student.grad is not None
    assert torch.equal(student.grad, both.d_student)
    assert teacher.grad is None


@pytest.mark.parametrize("path", PATHS)
def test_laws_of_the_loss(path: Backend) -> None:
    """Order and rotation of the features mean nothing; L(cS, cT) = c^4 L; all rows as anchors are no anchors."""
    student, teacher = pair(60, 8, 8)
    want = run_of(path, student, teacher)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    moved = Graded(want.loss, want.d_student[order], want.d_teacher[order])
    close(run_of(path, student[order], teacher[order]), moved, 1e-6)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
    turned = Graded(want.loss, want.d_student @ turn, want.d_teacher)
    close(run_of(path, student @ turn, teacher), turned, 1e-5)
    close(run_of(path, student, teacher, anchors=torch.arange(60)), want, 1e-6)
    for scale in (1e-4, 1e4):
        scaled = Graded(want.loss * scale**4, want.d_student * scale**3, want.d_teacher * scale**3)
        close(run_of(path, scale * student, scale * teacher), scaled, 1e-5)


@pytest.mark.parametrize("path", PATHS)
def test_settings_are_what_they_say(path: Backend) -> None:
    """Centred: an offset means nothing. Normalised: lengths mean nothing. A mask is a selection of rows."""
    student, teacher = pair(60, 8, 8)
    lengths = torch.rand(60, 1, generator=torch.Generator().manual_seed(0)) + 0.1
    with use(path):
        assert relative(rsd(student + 3, teacher, center=True), rsd(student, teacher, center=True)) < 1e-5
        assert relative(rsd(student * lengths, teacher, normalize=True), rsd(student, teacher, normalize=True)) < 1e-5
    keep = WEIGHT[:60] > 0
    for asked in ({}, {"center": True, "normalize": True}, {"diagonal": False}):
        few = run_of(path, student[keep], teacher[keep], **asked)
        masked = run_of(path, student, teacher, weight=keep, **asked)
        close(Graded(masked.loss, masked.d_student[keep], masked.d_teacher[keep]), few, 1e-5)


@pytest.mark.parametrize("path", PATHS)
def test_identical_rotated_or_constant_sides_are_never_negative(path: Backend) -> None:
    """-1e-17 under a square root or a logarithm elsewhere would become NaN."""
    teacher = pair(50, 3, 3)[1]
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    for student in (teacher, teacher @ turn, teacher[:, [2, 0, 1]], -teacher):
        # Partial sums of the kernels are float32.
        assert 0 <= float(run_of(path, student, teacher).loss) < (1e-9 if path == "chunked" else 1e-5)
    assert 0 <= float(rsd(torch.nn.functional.pad(teacher, (0, 1)), teacher)) < 1e-9
    same = torch.ones(1, 6).expand(60, 6)
    assert float(run_of(path, same, same).loss) == 0
    close(run_of(path, same, pair(60, 6, 6)[1]), exact(same, pair(60, 6, 6)[1]), 1e-5)


def test_a_sum_over_weights_of_both_signs_may_be_negative() -> None:
    """Only the pairs (0, 1) and (1, 0) are off, and they weigh -0.4 each: no rounding error, so no clamp."""
    student, teacher = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    value = rsd(student, teacher, weight=torch.tensor([1.0, -0.4]))
    assert float(value) == pytest.approx(-0.8 / 0.6**2, rel=1e-6)
