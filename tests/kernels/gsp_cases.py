"""GSP on every path, and on the formula in float64: what its tests share."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from graph2mlp.kernels.dispatch import available, use
from graph2mlp.kernels.gsp import gsp, reference
from tests.kernels.compare import Graded, graded, pair

KERNELS = ["cosine", "poly", "l2", "rbf"]


DIVERGENCES = ["mse", "kl"]


GOLDEN = {"cosine": 0.188126, "poly": 0.0699856, "l2": 0.454595, "rbf": 0.00236136}


each_kernel = pytest.mark.parametrize("kernel", KERNELS)


each_divergence = pytest.mark.parametrize("divergence", DIVERGENCES)


interpreter = pytest.mark.skipif(not available()["interpret"], reason="no Triton interpreter")


each_path = pytest.mark.parametrize("path", ["chunked", pytest.param("interpret", marks=interpreter)])


def pair_of(rows: int, a: int, b: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Features short enough that no kernel is flat at them."""
    return [side / math.sqrt(side.size(1)) for side in pair(rows, a, b, dtype)]


def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody wrote holds NaN. (The interpreter works on copies: writes beyond an output are not seen.)"""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocated(*args: Any, **kwargs: Any) -> Tensor:
            out = allocate(*args, **kwargs)
            return out.fill_(torch.nan) if out.is_floating_point() else out

        return allocated

    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(Tensor, "new_empty", poisoned(Tensor.new_empty))


def both_of(path: Any, student: Tensor, teacher: Tensor, **settings: Any) -> tuple[Graded, Graded]:
    """The loss on one path, and the published formula in float64."""
    wide = {
        name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in settings.items()
    }
    want = graded(partial(reference, **wide), student.double(), teacher.double())
    with use(path):
        return graded(partial(gsp, **settings), student, teacher), want


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation gives back."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, Tensor):
                self.numbers = max(self.numbers, one.numel())
        return out
