"""The similarity loss: laws it must obey, odd values, wrong input."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from graph2mlp.errors import BackendError, KernelError
from graph2mlp.kernels.dispatch import Backend, use
from graph2mlp.kernels.rsd import loss as loss_module
from graph2mlp.kernels.rsd import reference, rsd
from tests.kernels.compare import close, graded, in_new_process, pair, relative
from tests.kernels.rsd_cases import FLOAT, PATHS, SETTINGS, exact, run_of

# The interpreter warns of NaN, which some tests feed it.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


@pytest.mark.parametrize("path", PATHS)
def test_zero_rows_have_no_direction(path: Backend) -> None:
    """A row without a word, under `normalize`: no NaN, no gradient of 1e12, and the other rows as in the formula."""
    student, teacher = pair(20, 6, 6)
    student[3] = 0
    teacher[4] = 0
    got, want = run_of(path, student, teacher, normalize=True), exact(student, teacher, normalize=True)
    assert not got.d_student[3].any()
    assert not got.d_teacher[4].any()
    want.d_student[3] = want.d_teacher[4] = 0
    close(got, want, 1e-5)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("length", [1e-7, 1e-15, 1e-25, 1e-38])
def test_rows_of_rounding_have_no_direction(length: float, path: Backend) -> None:
    """What units leave that weight decay has all but silenced: a training ended in NaN by one such row. Where all rows
    are short, none is."""
    student, teacher = pair(20, 6, 6)
    zero = student.clone()
    student[3], zero[3] = length * student[3], 0
    got, want = run_of(path, student, teacher, normalize=True), run_of(path, zero, teacher, normalize=True)
    assert torch.equal(got.loss, want.loss)
    assert torch.equal(got.d_student, want.d_student)
    if length > 1e-12:
        whole, small = (run_of(path, size * zero, teacher, normalize=True) for size in (1, length))
        torch.testing.assert_close(small.loss, whole.loss, rtol=1e-5, atol=0)
        torch.testing.assert_close(small.d_student * length, whole.d_student, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_nan_reaches_the_result(side: int, bad: float, path: Backend) -> None:
    """A clamp at zero would turn NaN into a perfect score. All rows meet all rows, so all gradients are NaN."""
    sides = pair(20, 6, 6)
    sides[side][2, 1] = bad
    for asked in ({}, {"precise": False}, {"diagonal": False}, {"anchors": torch.tensor([0, 2])}):
        got = run_of(path, *sides, **asked)
        assert not torch.isfinite(got.loss)
        assert not torch.isfinite(got.d_student).all(1).any()
        assert not torch.isfinite(got.d_teacher).all(1).any()
    if path == "chunked":
        assert torch.isnan(rsd(sides[side], torch.ones(20, 3)))


@pytest.mark.parametrize("path", PATHS)
def test_masked_rows_may_hold_anything(path: Backend) -> None:
    """0 x NaN is NaN: what is masked must be left out before it is multiplied, averaged or scaled."""
    student, teacher = pair(20, 4, 4)
    weight = torch.ones(20)
    weight[[0, 7]] = 0
    for asked in ({}, {"center": True, "normalize": True, "diagonal": False}, {"anchors": torch.arange(9)}):
        clean = run_of(path, student, teacher, weight=weight, **asked)
        broken = student.clone()
        broken[[0, 7]] = float("nan")
        got = run_of(path, broken, teacher, weight=weight, **asked)
        close(got, clean, 0)
        assert not got.d_student[[0, 7]].any()
    assert torch.isnan(rsd(student, teacher, weight=torch.zeros(20))), "a mean over nothing"


@pytest.mark.parametrize("path", PATHS)
def test_memory_layout_does_not_matter(path: Backend) -> None:
    """Transposed, sliced out of poisoned memory: a kernel sees only pointers."""
    student, teacher = pair(33, 16, 16)
    want = run_of(path, student, teacher)
    guarded = torch.full((37, 20), float("nan"))
    guarded[2:35, 2:18] = student
    for one in (student.T.contiguous().T, guarded[2:35, 2:18]):
        close(run_of(path, one, teacher), want, 1e-6)


def test_every_output_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory from `empty` often holds the right numbers of the last call. Here it holds NaN."""
    true_empty, true_like = torch.empty, torch.empty_like
    monkeypatch.setattr(torch, "empty", lambda *a, **k: true_empty(*a, **k).fill_(float("nan")))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: true_like(*a, **k).fill_(float("nan")))
    student, teacher = pair(70, 20, 20)
    for path in PATHS:
        for name in SETTINGS:
            got = run_of(path, student, teacher, **SETTINGS[name])
            assert torch.isfinite(torch.cat([got.d_student, got.d_teacher])).all(), name


@pytest.mark.parametrize("path", PATHS)
def test_two_runs_agree_bit_by_bit(path: Backend) -> None:
    """Anchors named twice are the place where an atomic addition would come in."""
    student, teacher = pair(64, 8, 8)
    anchors = torch.arange(40) % 5
    close(run_of(path, student, teacher, anchors=anchors), run_of(path, student, teacher, anchors=anchors), 0)


@pytest.mark.parametrize("name", ["plain", "all", "anchors, weight"])
def test_torch_compile_passes_over_it(name: str) -> None:
    """One opaque node in the graph: no graph break, same value, same gradients."""
    student, teacher = pair(70, 8, 8)
    compiled = torch.compile(functools.partial(rsd, **SETTINGS[name]), backend="aot_eager", fullgraph=True)
    close(graded(compiled, student, teacher), run_of("chunked", student, teacher, **SETTINGS[name]), 1e-6)


def test_autocast_does_not_reach_the_sums() -> None:
    """Inside autocast every product would become bfloat16, also the weighted mean row."""
    student, teacher = pair(70, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = run_of("chunked", student, teacher, **SETTINGS["all"])
    close(got, run_of("chunked", student, teacher, **SETTINGS["all"]), 0)


def test_mixed_types_meet_in_the_wider_one() -> None:
    """A float64 teacher from disk beside a float32 student must not lose its digits."""
    student, teacher = pair(40, 6, 6, torch.float64)
    got = graded(rsd, student.float(), teacher)
    assert got.loss.dtype == torch.float64
    assert relative(got.loss, reference(student.float().double(), teacher)) < 1e-12


def test_memory_is_linear_in_the_rows() -> None:
    """The peak of value and both gradients at N = 8192 stays below a quarter of one N x N matrix."""
    code = (
        "from graph2mlp.kernels.rsd import rsd; from graph2mlp.measure import peak_rss_mb\n"
        "def run(rows):\n"
        "    s, t = (torch.randn(rows, 64).requires_grad_() for _ in range(2))\n"
        "    rsd(s, t).backward()\n"
        "run(64); before = peak_rss_mb(); run(8192); print(peak_rss_mb() - before)"
    )
    assert float(in_new_process(code)) < 0.25 * 8192**2 * 4 / 2**20
    # 200,000 rows: one N x N matrix would take 160 GB, so a finished call proves that there is none.
    student, teacher = pair(200_000, 4, 4)
    loss = rsd(student.requires_grad_(), teacher)
    loss.backward()
    assert torch.isfinite(loss)


def test_auto_runs_the_kernels_only_for_many_rows_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """float64 sums are what `precise` promises, on a GPU too; and few rows gain nothing from a kernel."""
    asked: list[int] = []

    def select(loss: str, student: Tensor, *rest: Tensor, unsupported: str | None, shared_kib: int) -> str:
        asked.append(len(student))
        return "chunked"

    monkeypatch.setattr(loss_module, "select", select)
    for rows in (10, 100_000):
        for precise in (True, False):
            rsd(torch.ones(rows, 1), torch.ones(rows, 1), precise=precise)
    assert asked == [100_000]


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (torch.ones(3, 2), torch.ones(3, 4), "widths 2 and 4"),
        (torch.ones(3, 2, dtype=torch.float64), torch.ones(3, 2), "float64 features 2 wide"),
        (torch.ones(3, 129), torch.ones(3, 129), "at most 128"),
    ],
)
def test_kernels_asked_for_by_name_say_what_they_cannot_take(student: Tensor, teacher: Tensor, message: str) -> None:
    """Falling back in silence would make a benchmark measure the wrong thing."""
    with use("interpret"), pytest.raises(BackendError, match=message):
        rsd(student, teacher)


@pytest.mark.parametrize(
    ("student", "teacher", "settings", "message"),
    [
        (FLOAT, torch.ones(4, 2), {}, "must match"),
        (torch.ones(3, 2, dtype=torch.long), FLOAT, {}, "student must be a floating-point matrix"),
        (FLOAT, torch.ones(3), {}, "teacher must be a floating-point matrix"),
        (torch.ones(0, 2), torch.ones(0, 2), {}, "student is empty"),
        (FLOAT, FLOAT, {"weight": torch.ones(4)}, "weight must be"),
        (FLOAT, FLOAT, {"weight": torch.ones(3, requires_grad=True)}, "weights get no gradient"),
        (FLOAT, FLOAT, {"anchors": torch.ones(2)}, "anchors must be a vector of row indices"),
        (FLOAT, FLOAT, {"anchors": torch.ones(3, dtype=torch.bool)}, "anchors must be a vector of row indices"),
        (FLOAT, FLOAT, {"anchors": torch.ones(0, dtype=torch.long)}, "at least one"),
        (FLOAT, FLOAT, {"anchors": torch.tensor([0, 3])}, r"anchors must lie in 0\.\.2, got 0\.\.3"),
        (FLOAT, FLOAT, {"anchors": torch.tensor([-1])}, r"anchors must lie in 0\.\.2"),
        (FLOAT, FLOAT, {"anchors": torch.tensor([0]), "diagonal": False}, "leave one of them out"),
        (FLOAT[:1], FLOAT[:1], {"diagonal": False}, "at least two rows"),
    ],
)
@pytest.mark.parametrize("path", ["chunked", "dense"])
def test_wrong_input_is_refused(
    student: Tensor, teacher: Tensor, settings: dict[str, Any], message: str, path: Backend
) -> None:
    """Broadcasting and wrapped indices would give a number for rows that do not belong together."""
    with use(path), pytest.raises(KernelError, match=message):
        rsd(student, teacher, **settings)
