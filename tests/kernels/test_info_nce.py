"""InfoNCE on every path against the published formula in float64."""

from __future__ import annotations

import functools
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graph2mlp.errors import KernelError
from graph2mlp.kernels.dispatch import Backend, use
from graph2mlp.kernels.info_nce import info_nce, reference
from graph2mlp.kernels.info_nce.chunked import chunked
from tests.graphs import F4
from tests.kernels.compare import Graded, close, graded, in_new_process, pair, relative

# The interpreter computes both sides of `where`, and so a logarithm of 0 that nobody uses.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")

PATHS: list[Backend] = ["chunked", "interpret"]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


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


def _run(path: Backend, student: Tensor, teacher: Tensor, **settings: Any) -> Graded:
    with use(path):
        return graded(functools.partial(info_nce, **settings), student, teacher)


def _exact(student: Tensor, teacher: Tensor, **settings: Any) -> Graded:
    """The formula in float64, on exactly the features the other paths were given."""
    wide = {
        name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in settings.items()
    }
    return graded(functools.partial(reference, **wide), student.double(), teacher.double())


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


def _labels(rows: int) -> Tensor:
    return torch.arange(rows) % 3


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "symmetric": {"symmetric": True},
    "symmetric, none": {"symmetric": True, "reduction": "none"},
    "labels": {"labels": _labels(70)},
    "symmetric, labels": {"symmetric": True, "labels": _labels(70)},
    "weight": {"weight": torch.arange(70) / 70},
    "symmetric, weight": {"symmetric": True, "weight": (torch.arange(70) % 4).float()},
    "none, mask": {"reduction": "none", "weight": torch.arange(70) % 2 == 0},
    "positives": {"positives": torch.arange(70).square() % 40},
    "raw": {"normalize": False, "tau": 2.0},
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", SETTINGS)
def test_value_and_gradients_match_the_formula(name: str, path: Backend) -> None:
    """Each setting takes its own way through the kernels, forward and backward."""
    student, teacher = pair(70, 20, 20)
    close(_run(path, student, teacher, **SETTINGS[name]), _exact(student, teacher, **SETTINGS[name]), 2e-6 * 70**0.5)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("noise", "tau"), [(0.35, 0.075), (0.11, 0.05), (0.08, 0.03)])
def test_no_digits_are_lost_when_the_student_is_good(noise: float, tau: float, symmetric: bool, path: Backend) -> None:
    """Mean losses of about 1e-2, 1e-4 and 1e-8: where `logsumexp - x` has one right digit, or none."""
    student, teacher = pair(100, 48, 48, noise=noise)
    want = _exact(student, teacher, tau=tau, symmetric=symmetric)
    assert float(want.loss) < {0.35: 3e-2, 0.11: 3e-4, 0.08: 3e-7}[noise]
    close(_run(path, student, teacher, tau=tau, symmetric=symmetric), want, 1e-5)


def test_the_textbook_form_does_lose_them() -> None:
    """The reason for the split form: if float32 cross-entropy were as good, `split.py` should go."""
    student, teacher = pair(100, 48, 48, noise=0.08)
    textbook = graded(functools.partial(reference, tau=0.03), student, teacher)
    assert relative(textbook.d_student, _exact(student, teacher, tau=0.03).d_student) > 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_half_types_store_features_and_nothing_else(dtype: torch.dtype, path: Backend, symmetric: bool) -> None:
    """Features are rounded once; sums and losses stay float32, so the error is that of the features."""
    student, teacher = pair(70, 20, 20, dtype, noise=1.0)
    got = _run(path, student, teacher, tau=0.3, symmetric=symmetric)
    assert got.loss.dtype == torch.float32
    close(got, _exact(student, teacher, tau=0.3, symmetric=symmetric), TOLERANCE[dtype])


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
    got = _run(path, student, teacher, tau=0.3, compute_dtype=torch.bfloat16)
    want = _exact(student, teacher, tau=0.3)
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
    close(_run("interpret", student, teacher, **asked), _exact(student, teacher, **asked), 1e-5)


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
        close(_run("chunked", student, teacher, **SETTINGS[name]), _exact(student, teacher, **SETTINGS[name]), 1e-5)


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
    both = _run("chunked", student, teacher)
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
    got, want = _run("chunked", student[order], teacher[order]), _run("chunked", student, teacher)
    close(got, Graded(want.loss, want.d_student[order], want.d_teacher[order]), 1e-13)


def test_a_sample_is_drawn_with_the_generator() -> None:
    """Two runs with one seed agree; what is not drawn has no gradient; labels and weights follow their rows."""
    student, teacher = pair(40, 8, 8)

    def run(seed: int) -> Graded:
        generator = torch.Generator().manual_seed(seed)
        keep = {"labels": _labels(40), "weight": torch.ones(40)}
        return graded(functools.partial(info_nce, max_samples=10, generator=generator, **keep), student, teacher)

    first = run(0)
    assert torch.equal(first.d_student, run(0).d_student)
    drawn = first.d_student.abs().sum(1) > 0
    assert int(drawn.sum()) == 10
    close(
        Graded(first.loss, first.d_student[drawn], first.d_teacher[drawn]),
        _exact(student[drawn], teacher[drawn], labels=_labels(40)[drawn]),
        1e-5,
    )
    assert not torch.equal(drawn, run(1).d_student.abs().sum(1) > 0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("tau", [1e-4, 0.01, 1.0, 1e4])
def test_extreme_temperatures(tau: float, path: Backend) -> None:
    """Logits of 1e4 overflow an exponential that is not shifted; at 1e4 all rows look alike."""
    student, teacher = pair(33, 8, 8)
    # A logit of 1 / tau has 1e-7 / tau of rounding, whatever is done with it afterwards.
    close(_run(path, student, teacher, tau=tau), _exact(student, teacher, tau=tau), 1e-5 + 1e-6 / tau, atol=1e-7)


@pytest.mark.parametrize("path", PATHS)
def test_ties_zero_rows_and_a_perfect_student(path: Backend) -> None:
    """Equal rows are each other's strongest negatives; a zero row has length 0 to be scaled by."""
    _, teacher = pair(30, 8, 8)
    teacher[3:6] = teacher[2]
    teacher[7] = 0
    for student in (teacher.clone(), torch.ones_like(teacher), torch.zeros_like(teacher)):
        got = _run(path, student, teacher, tau=0.1)
        # Length 0 has no slope: ours is 0, that of `F.normalize` 1e12.
        want = _exact(student, teacher, tau=0.1)
        want.d_student[student.abs().sum(1) == 0] = 0
        want.d_teacher[teacher.abs().sum(1) == 0] = 0
        close(got, want, 1e-5, atol=1e-5)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_one_row_has_no_negatives(path: Backend, symmetric: bool) -> None:
    """The loss is 0 by definition, and not log(0)."""
    got = _run(path, *pair(1, 4, 4), symmetric=symmetric)
    assert [float(one.abs().sum()) for one in (got.loss, got.d_student, got.d_teacher)] == [0, 0, 0]


@pytest.mark.parametrize("path", PATHS)
def test_all_of_one_label_leaves_no_negatives(path: Backend) -> None:
    """Every pair but the positive is masked: loss 0, not NaN from a softmax over nothing."""
    got = _run(path, *pair(20, 4, 4), labels=torch.zeros(20, dtype=torch.long), symmetric=True)
    assert [float(one.abs().sum()) for one in (got.loss, got.d_student, got.d_teacher)] == [0, 0, 0]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_stays_in_its_row_or_reaches_all(path: Backend, bad: float) -> None:
    """A maximum drops NaN on a GPU; a loss that looks fine would hide a broken network."""
    student, teacher = pair(20, 4, 4)
    broken = student.clone()
    broken[3, 1] = bad
    got = _run(path, broken, teacher, reduction="none")
    assert torch.isnan(got.loss).tolist() == [row == 3 for row in range(20)]
    assert torch.isnan(got.d_student).any(1).tolist() == [row == 3 for row in range(20)]
    broken = teacher.clone()
    broken[3, 1] = bad
    assert torch.isnan(_run(path, student, broken, reduction="none").loss).all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_masked_rows_may_hold_anything(path: Backend, reduction: str) -> None:
    """0 x NaN is NaN: what is masked must be left out before it is multiplied."""
    student, teacher = pair(20, 4, 4)
    weight = torch.ones(20)
    weight[[0, 7]] = 0
    clean = _run(path, student, teacher, weight=weight, reduction=reduction)
    student[[0, 7]] = float("nan")
    got = _run(path, student, teacher, weight=weight, reduction=reduction)
    close(got, clean, 0)
    assert float(got.d_student[[0, 7]].abs().sum()) == 0
    # The denominator counts the rows that are left.
    keep = weight.bool()
    if reduction == "mean":
        few = info_nce(student[keep], teacher, positives=torch.arange(20)[keep])
        assert float(few) == pytest.approx(float(got.loss), rel=1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_memory_layout_does_not_matter(path: Backend) -> None:
    """Transposed, sliced out of poisoned memory, expanded: a kernel sees only pointers."""
    student, teacher = pair(33, 8, 8)
    want = _run(path, student, teacher)
    guarded = torch.full((37, 12), float("nan"))
    guarded[2:35, 2:10] = student
    for one in (student.T.contiguous().T, guarded[2:35, 2:10]):
        close(_run(path, one, teacher), want, 1e-6)
    same = teacher[:1].expand(33, 8)
    close(_run(path, student, same), _exact(student, same), 1e-5, atol=1e-5)


def test_every_output_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory from `empty` often holds the right numbers of the last call. Here it holds NaN."""
    true_empty, true_like = torch.empty, torch.empty_like
    monkeypatch.setattr(torch, "empty", lambda *a, **k: true_empty(*a, **k).fill_(float("nan")))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: true_like(*a, **k).fill_(float("nan")))
    student, teacher = pair(33, 8, 8)
    for path in PATHS:
        got = _run(path, student, teacher, symmetric=True)
        assert torch.isfinite(torch.cat([got.d_student, got.d_teacher])).all()


@pytest.mark.parametrize("path", PATHS)
def test_two_runs_agree_bit_by_bit(path: Backend) -> None:
    """Positives that several rows share are the place where an atomic addition would come in."""
    student, teacher = pair(64, 8, 8)
    positives = torch.arange(64) % 5
    close(_run(path, student, teacher, positives=positives), _run(path, student, teacher, positives=positives), 0)


def test_torch_compile_passes_over_it() -> None:
    """One opaque node in the graph: no graph break, same value, same gradients."""
    student, teacher = pair(33, 8, 8)
    compiled = torch.compile(info_nce, backend="aot_eager", fullgraph=True)
    close(graded(compiled, student, teacher), _run("chunked", student, teacher), 1e-6)


def test_autocast_does_not_reach_the_sums() -> None:
    """Inside autocast every product would become bfloat16, also those that must not."""
    student, teacher = pair(33, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = _run("chunked", student, teacher)
    close(got, _run("chunked", student, teacher), 0)


def test_memory_is_linear() -> None:
    """The peak of value and both gradients at N = 8192 stays below a quarter of one N x N matrix."""
    code = (
        "import torch; from graph2mlp.kernels.info_nce import info_nce; from graph2mlp.measure import peak_rss_mb\n"
        "def run(rows):\n"
        "    s, t = (torch.randn(rows, 8).requires_grad_() for _ in range(2))\n"
        "    info_nce(s, t).backward()\n"
        "run(64); before = peak_rss_mb(); run(8192); print(peak_rss_mb() - before)"
    )
    assert float(in_new_process(code)) < 0.25 * 8192**2 * 4 / 2**20


FLOAT = torch.ones(3, 2)


@pytest.mark.parametrize(
    ("student", "teacher", "settings", "message"),
    [
        (FLOAT, torch.ones(4, 2), {}, "must match"),
        (FLOAT, torch.ones(3, 3), {}, "project one side first"),
        (FLOAT, torch.ones(3, 2, dtype=torch.long), {}, "teacher must be a floating-point matrix"),
        (torch.ones(3), FLOAT, {}, "student must be a floating-point matrix"),
        (torch.ones(0, 2), torch.ones(0, 2), {}, "student is empty"),
        (FLOAT, FLOAT, {"tau": 0.0}, "tau must be positive and finite, got 0.0"),
        (FLOAT, FLOAT, {"tau": float("nan")}, "tau must be positive and finite, got nan"),
        (FLOAT, FLOAT, {"tau": float("inf")}, "tau must be positive and finite, got inf"),
        (FLOAT, FLOAT, {"tau": torch.ones(2)}, "tau must be a number or a scalar tensor"),
        (FLOAT, FLOAT, {"reduction": "average"}, "reduction must be mean, sum or none, got 'average'"),
        (FLOAT, FLOAT, {"weight": torch.ones(4)}, "weight must be"),
        (FLOAT, FLOAT, {"weight": torch.ones(3, requires_grad=True)}, "weights get no gradient"),
        (FLOAT, FLOAT, {"labels": torch.ones(3)}, "labels must be integers"),
        (FLOAT, FLOAT, {"positives": torch.tensor([0, 1, 3])}, "positives must lie in 0..2, got 0..3"),
        (FLOAT, FLOAT, {"positives": torch.arange(3), "symmetric": True}, "leave positives out"),
        (FLOAT, FLOAT, {"max_samples": 0}, "max_samples must be positive"),
    ],
)
def test_wrong_input_is_refused(student: Tensor, teacher: Tensor, settings: dict[str, Any], message: str) -> None:
    """Broadcasting and silent casts would give a number for something nobody asked for."""
    with pytest.raises(KernelError, match=message):
        info_nce(student, teacher, **settings)
