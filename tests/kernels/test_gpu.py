"""The fused kernels on a GPU, all losses from one table: `pytest tests/kernels/test_gpu.py`, under five minutes.

Without a GPU the table runs in the interpreter at small sizes, so that it cannot rot; what only a GPU can tell
(rounding of tensor cores, large sizes, launch limits) is skipped with a reason.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from graph2mlp.kernels import NeighbourIndex, use
from graph2mlp.kernels import functional as ours
from graph2mlp.kernels.dispatch import Backend
from graph2mlp.kernels.gsp import reference as gsp_reference
from graph2mlp.kernels.info_nce import reference as info_nce_reference
from graph2mlp.kernels.lsp import reference as lsp_reference
from graph2mlp.kernels.rsd import reference as rsd_reference
from graph2mlp.kernels.soft_label_kd import reference as kd_reference
from tests.kernels.compare import Graded, close, graded, pair

# The interpreter says when a maximum sees nothing but NaN, which is what one test is about.
pytestmark = pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")

GPU = torch.cuda.is_available()
DEVICE, PATH, ROWS = ("cuda", "triton", 1000) if GPU else ("cpu", "interpret", 70)
only_gpu = pytest.mark.skipif(not GPU, reason="torch sees no CUDA device")
# Rounding of the features, and of coefficients to the features' type: nothing else is half precision.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}

Step = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Entry:
    """One loss and its formula, with settings that keep values in the range of half types."""

    loss: Step
    formula: Step
    width: int = 48
    spread: float = 0.3
    """Length of the features, so that exponentials stay far from 0 and 1."""


def _entry(loss: Callable[..., Tensor], formula: Callable[..., Tensor], **settings: object) -> Entry:
    return Entry(functools.partial(loss, **settings), functools.partial(formula, **settings))


def _edges(rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(rows, (2, 8 * rows), generator=generator)
    edges[1, :rows] = 3  # a hub
    return edges[:, edges[1] != 5].to(DEVICE)  # and a node without neighbours


def _lsp(loss: Callable[..., Tensor]) -> Step:
    def step(student: Tensor, teacher: Tensor) -> Tensor:
        graph = NeighbourIndex.from_edge_index(_edges(len(student)), len(student))
        return loss(student, teacher, graph, kernel="cosine", tau=0.5)

    return step


TABLE: dict[str, Entry] = {
    "rsd": _entry(ours.rsd, rsd_reference),
    "info_nce": _entry(ours.info_nce, info_nce_reference, tau=0.3),
    "info_nce, symmetric": _entry(ours.info_nce, info_nce_reference, tau=0.3, symmetric=True),
    **{
        f"gsp, {kernel} {divergence}": _entry(ours.gsp, gsp_reference, kernel=kernel, divergence=divergence)
        for kernel in ("cosine", "poly", "l2", "rbf")
        for divergence in ("mse", "kl")
    },
    "lsp": Entry(_lsp(ours.lsp), _lsp(lsp_reference)),
    "soft_label_kd": _entry(ours.soft_label_kd, kd_reference, tau=2.0),
}


def _sides(entry: Entry, rows: int, dtype: torch.dtype) -> list[Tensor]:
    return [(entry.spread * side).to(DEVICE, dtype) for side in pair(rows, entry.width, entry.width, noise=1.0)]


def _run(name: str, student: Tensor, teacher: Tensor, path: Backend = PATH) -> Graded:
    with use(path):
        return graded(TABLE[name].loss, student, teacher)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("name", TABLE)
def test_value_and_gradients_match_the_formula(name: str, dtype: torch.dtype) -> None:
    """In float64, on the features as they were rounded."""
    student, teacher = _sides(TABLE[name], ROWS, dtype)
    want = graded(TABLE[name].formula, student.double(), teacher.double())
    close(_run(name, student, teacher), want, TOLERANCE[dtype], atol=1e-7)


@pytest.mark.parametrize("name", TABLE)
def test_two_runs_agree_bit_by_bit(name: str) -> None:
    """No atomic additions anywhere: this must hold on a GPU, with thousands of programs in any order."""
    student, teacher = _sides(TABLE[name], ROWS, torch.float32)
    close(_run(name, student, teacher), _run(name, student, teacher), 0)


@pytest.mark.parametrize("name", TABLE)
def test_nan_is_never_swallowed(name: str) -> None:
    """A maximum drops NaN on a GPU, not in the interpreter of every version."""
    student, teacher = _sides(TABLE[name], ROWS, torch.float32)
    student[3, 1] = float("nan")
    assert torch.isnan(_run(name, student, teacher).loss)


@only_gpu
@pytest.mark.parametrize("name", TABLE)
def test_fused_and_chunked_agree_at_size(name: str) -> None:
    """Thousands of tiles and more than 2^31 pairs: where 32-bit offsets would wrap around."""
    student, teacher = _sides(TABLE[name], 65_536, torch.float32)
    close(_run(name, student, teacher), _run(name, student, teacher, "chunked"), 2e-5, atol=1e-7)


@only_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_info_nce_at_size_on_sampled_rows(dtype: torch.dtype) -> None:
    """512 of 65,536 rows against float64, with a good student: mean loss below 1e-2."""
    student, teacher = (side.to(DEVICE, dtype) for side in pair(65_536, 128, 128, noise=0.3))
    rows = torch.randperm(65_536, generator=torch.Generator().manual_seed(0))[:512].to(DEVICE)
    with use("triton"):
        got = graded(functools.partial(ours.info_nce, reduction="none"), student, teacher)
    formula = functools.partial(info_nce_reference, positives=rows, reduction="none")
    want = graded(formula, student[rows].double(), teacher.double())
    error = (got.loss[rows].double() - want.loss).norm() / want.loss.norm()
    assert float(error) < TOLERANCE[dtype]
