"""InfoNCE on every path, and on the formula in float64: what its tests share."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from graph2mlp.kernels.dispatch import Backend, use
from graph2mlp.kernels.info_nce import info_nce, reference
from tests.kernels.compare import Graded, graded

PATHS: list[Backend] = ["chunked", "interpret"]


TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def run_of(path: Backend, student: Tensor, teacher: Tensor, **settings: Any) -> Graded:
    with use(path):
        return graded(functools.partial(info_nce, **settings), student, teacher)


def exact(student: Tensor, teacher: Tensor, **settings: Any) -> Graded:
    """The formula in float64, on exactly the features the other paths were given."""
    wide = {
        name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in settings.items()
    }
    return graded(functools.partial(reference, **wide), student.double(), teacher.double())


def labels_of(rows: int) -> Tensor:
    return torch.arange(rows) % 3


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "symmetric": {"symmetric": True},
    "symmetric, none": {"symmetric": True, "reduction": "none"},
    "labels": {"labels": labels_of(70)},
    "symmetric, labels": {"symmetric": True, "labels": labels_of(70)},
    "weight": {"weight": torch.arange(70) / 70},
    "symmetric, weight": {"symmetric": True, "weight": (torch.arange(70) % 4).float()},
    "none, mask": {"reduction": "none", "weight": torch.arange(70) % 2 == 0},
    "positives": {"positives": torch.arange(70).square() % 40},
    "raw": {"normalize": False, "tau": 2.0},
}


FLOAT = torch.ones(3, 2)
