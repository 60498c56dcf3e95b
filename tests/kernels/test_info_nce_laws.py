"""InfoNCE: laws it must obey, odd values, wrong input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from graph2mlp.errors import KernelError
from graph2mlp.kernels.dispatch import Backend
from graph2mlp.kernels.info_nce import info_nce
from tests.kernels.compare import close, graded, in_new_process, pair
from tests.kernels.info_nce_cases import FLOAT, PATHS, exact, run_of

# The interpreter computes both sides of `where`, and so a logarithm of 0 that nobody uses.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("tau", [1e-4, 0.01, 1.0, 1e4])
def test_extreme_temperatures(tau: float, path: Backend) -> None:
    """Logits of 1e4 overflow an exponential that is not shifted; at 1e4 all rows look alike."""
    student, teacher = pair(33, 8, 8)
    # A logit of 1 / tau has 1e-7 / tau of rounding, whatever is done with it afterwards.
    close(run_of(path, student, teacher, tau=tau), exact(student, teacher, tau=tau), 1e-5 + 1e-6 / tau, atol=1e-7)


@pytest.mark.parametrize("path", PATHS)
def test_ties_zero_rows_and_a_perfect_student(path: Backend) -> None:
    """Equal rows are each other's strongest negatives; a zero row has length 0 to be scaled by."""
    _, teacher = pair(30, 8, 8)
    teacher[3:6] = teacher[2]
    teacher[7] = 0
    for student in (teacher.clone(), torch.ones_like(teacher), torch.zeros_like(teacher)):
        got = run_of(path, student, teacher, tau=0.1)
        # Length 0 has no slope: ours is 0, that of `F.normalize` 1e12.
        want = exact(student, teacher, tau=0.1)
        want.d_student[student.abs().sum(1) == 0] = 0
        want.d_teacher[teacher.abs().sum(1) == 0] = 0
        close(got, want, 1e-5, atol=1e-5)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_one_row_has_no_negatives(path: Backend, symmetric: bool) -> None:
    """The loss is 0 by definition, and not log(0)."""
    got = run_of(path, *pair(1, 4, 4), symmetric=symmetric)
    assert [float(one.abs().sum()) for one in (got.loss, got.d_student, got.d_teacher)] == [0, 0, 0]


@pytest.mark.parametrize("path", PATHS)
def test_all_of_one_label_leaves_no_negatives(path: Backend) -> None:
    """Every pair but the positive is masked: loss 0, not NaN from a softmax over nothing."""
    got = run_of(path, *pair(20, 4, 4), labels=torch.zeros(20, dtype=torch.long), symmetric=True)
    assert [float(one.abs().sum()) for one in (got.loss, got.d_student, got.d_teacher)] == [0, 0, 0]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_stays_in_its_row_or_reaches_all(path: Backend, bad: float) -> None:
    """A maximum drops NaN on a GPU; a loss that looks fine would hide a broken network."""
    student, teacher = pair(20, 4, 4)
    broken = student.clone()
    broken[3, 1] = bad
    got = run_of(path, broken, teacher, reduction="none")
    assert torch.isnan(got.loss).tolist() == [row == 3 for row in range(20)]
    assert torch.isnan(got.d_student).any(1).tolist() == [row == 3 for row in range(20)]
    broken = teacher.clone()
    broken[3, 1] = bad
    assert torch.isnan(run_of(path, student, broken, reduction="none").loss).all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_masked_rows_may_hold_anything(path: Backend, reduction: str) -> None:
    """0 x NaN is NaN: what is masked must be left out before it is multiplied."""
    student, teacher = pair(20, 4, 4)
    weight = torch.ones(20)
    weight[[0, 7]] = 0
    clean = run_of(path, student, teacher, weight=weight, reduction=reduction)
    student[[0, 7]] = float("nan")
    got = run_of(path, student, teacher, weight=weight, reduction=reduction)
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
    want = run_of(path, student, teacher)
    guarded = torch.full((37, 12), float("nan"))
    guarded[2:35, 2:10] = student
    for one in (student.T.contiguous().T, guarded[2:35, 2:10]):
        close(run_of(path, one, teacher), want, 1e-6)
    same = teacher[:1].expand(33, 8)
    close(run_of(path, student, same), exact(student, same), 1e-5, atol=1e-5)


def test_every_output_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory from `empty` often holds the right numbers of the last call. Here it holds NaN."""
    true_empty, true_like = torch.empty, torch.empty_like
    monkeypatch.setattr(torch, "empty", lambda *a, **k: true_empty(*a, **k).fill_(float("nan")))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: true_like(*a, **k).fill_(float("nan")))
    student, teacher = pair(33, 8, 8)
    for path in PATHS:
        got = run_of(path, student, teacher, symmetric=True)
        assert torch.isfinite(torch.cat([got.d_student, got.d_teacher])).all()


@pytest.mark.parametrize("path", PATHS)
def test_two_runs_agree_bit_by_bit(path: Backend) -> None:
    """Positives that several rows share are the place where an atomic addition would come in."""
    student, teacher = pair(64, 8, 8)
    positives = torch.arange(64) % 5
    close(run_of(path, student, teacher, positives=positives), run_of(path, student, teacher, positives=positives), 0)


def test_torch_compile_passes_over_it() -> None:
    """One opaque node in the graph: no graph break, same value, same gradients."""
    student, teacher = pair(33, 8, 8)
    compiled = torch.compile(info_nce, backend="aot_eager", fullgraph=True)
    close(graded(compiled, student, teacher), run_of("chunked", student, teacher), 1e-6)


def test_autocast_does_not_reach_the_sums() -> None:
    """Inside autocast every product would become bfloat16, also those that must not."""
    student, teacher = pair(33, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = run_of("chunked", student, teacher)
    close(got, run_of("chunked", student, teacher), 0)


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
