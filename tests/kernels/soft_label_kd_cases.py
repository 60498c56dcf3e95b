"""Soft-label distillation on every path, and on the formula in float64: what its tests share."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from graph2mlp.kernels.dispatch import Backend, use
from graph2mlp.kernels.soft_label_kd import reference, soft_label_kd
from tests.kernels.compare import Graded, graded

PATHS: list[Backend] = ["chunked", "interpret"]


INF, NAN = float("inf"), float("nan")


def run_of(path: Backend, student: Tensor, teacher: Tensor, **settings: Any) -> Graded:
    with use(path):
        return graded(functools.partial(soft_label_kd, **settings), student, teacher)


def exact_of(student: Tensor, teacher: Tensor, **settings: Any) -> Graded:
    """The formula in float64, on exactly the logits the other paths were given."""
    return graded(functools.partial(reference, **settings), student.double(), teacher.double())


def labels_of(rows: int, classes: int) -> Tensor:
    """Every third row has a label."""
    ids = torch.arange(rows)
    return torch.where(ids % 3 == 1, ids % classes, -1)


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tempered": {"tau": 2.5},
    "cold": {"tau": 0.3, "reduction": "sum"},
    "mean": {"reduction": "mean"},
    "none": {"reduction": "none"},
    "labels": {"labels": labels_of(53, 9), "ce_weight": 0.7},
    "labels, tempered, mean": {"labels": labels_of(53, 9), "ce_weight": 0.7, "tau": 4.0, "reduction": "mean"},
    "labels, none": {"labels": labels_of(53, 9), "ce_weight": 0.7, "tau": 4.0, "reduction": "none"},
    "labels, sum": {"labels": labels_of(53, 9), "ce_weight": 0.7, "reduction": "sum"},
    "other hidden label": {"labels": torch.arange(53) % 9, "ce_weight": 0.7, "ignore_index": 4},
    "index": {"labels": torch.arange(53) % 9, "ce_weight": 1.5, "index": torch.tensor([3, 50, 4])},
    "index twice": {"labels": torch.arange(53) % 9, "ce_weight": 1.5, "index": torch.tensor([3, 50, 3])},
    "weight": {"weight": torch.arange(53) / 7},
    "weight, labels": {"weight": (torch.arange(53) % 4).float(), "labels": labels_of(53, 9), "ce_weight": 0.7},
    "mask, none": {
        "weight": torch.arange(53) % 2 == 0,
        "labels": labels_of(53, 9),
        "ce_weight": 2.0,
        "reduction": "none",
    },
}


FLOAT, LABELS = torch.ones(3, 2), torch.tensor([0, 1, -1])
