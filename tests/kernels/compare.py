"""What the tests of every loss share: value and both gradients beside the float64 reference, named in the message."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.test_public import ROOT

__all__ = ["Graded", "close", "graded", "in_new_process", "pair", "relative"]

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Graded:
    """A loss and its gradients for one upstream gradient."""

    loss: Tensor
    d_student: Tensor
    d_teacher: Tensor


def pair(rows: int, a: int, b: int, dtype: torch.dtype = torch.float32, *, noise: float | None = None) -> list[Tensor]:
    """Student `[rows, a]` and teacher `[rows, b]`; with `noise`, the student is the teacher with so much noise."""
    generator = torch.Generator().manual_seed(rows + 10 * a + b)
    teacher = torch.randn(rows, b, generator=generator, dtype=torch.float64)
    student = torch.randn(rows, a, generator=generator, dtype=torch.float64)
    return [(student if noise is None else teacher + noise * student).to(dtype), teacher.to(dtype)]


def graded(loss: Loss, student: Tensor, teacher: Tensor, *, upstream: float = -1.7) -> Graded:
    """Value and gradients; the upstream gradient is not 1, so a backward pass that ignores it is caught.

    For a loss `[N]` the upstream gradient is `upstream * (1, 2, ..., N) / N`.
    """
    student, teacher = (side.detach().clone().requires_grad_() for side in (student, teacher))
    value = loss(student, teacher)
    up = torch.full_like(value, upstream)
    if value.dim():
        up = up * torch.arange(1, len(value) + 1, device=value.device) / len(value)
    value.backward(up)
    assert student.grad is not None
    assert teacher.grad is not None
    assert student.grad.dtype == student.dtype, "a gradient has the type of its side"
    assert teacher.grad.dtype == teacher.dtype, "a gradient has the type of its side"
    return Graded(value.detach(), student.grad, teacher.grad)


def relative(got: Tensor, want: Tensor) -> float:
    """`|got - want| / |want|` in float64; NaN if either side holds one."""
    got, want = got.double().cpu(), want.double().cpu()
    return float((got - want).norm() / want.norm().clamp(min=1e-300))


def close(got: Graded, want: Graded, rtol: float, *, atol: float = 0.0) -> None:
    """All three agree to `rtol` in norm, or differ by less than `atol` everywhere."""
    for name in ("loss", "d_student", "d_teacher"):
        a, b = getattr(got, name), getattr(want, name)
        assert a.shape == b.shape, f"{name}: shape {list(a.shape)} instead of {list(b.shape)}"
        error = relative(a, b)
        if not error <= rtol:
            gap = float((a.double().cpu() - b.double().cpu()).abs().max())
            assert gap < atol, f"{name}: relative error {error:.1e} is above {rtol:.1e} (largest gap {gap:.1e})"


def in_new_process(code: str) -> str:
    """What `code` prints in a fresh interpreter with one thread: its peak memory is its own."""
    code = "import torch; torch.set_num_threads(1)\n" + code
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
