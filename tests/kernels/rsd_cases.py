"""The similarity loss on every path, and on the formula in float64: what its tests share."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from graph2mlp.kernels.dispatch import Backend, use
from graph2mlp.kernels.rsd import reference, rsd
from tests.kernels.compare import Graded, graded

PATHS: list[Backend] = ["chunked", "interpret"]


WEIGHT = torch.arange(70) % 4 / 3  # zeros among them


def run_of(path: Backend, student: Tensor, teacher: Tensor, **settings: Any) -> Graded:
    with use(path):
        return graded(functools.partial(rsd, **settings), student, teacher)


def exact(student: Tensor, teacher: Tensor, **settings: Any) -> Graded:
    """The formula in float64, on exactly the features the other paths were given."""
    settings.pop("precise", None)
    if "weight" in settings:
        settings["weight"] = settings["weight"].double()
    return graded(functools.partial(reference, **settings), student.double(), teacher.double())


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "float32": {"precise": False},
    "center": {"center": True},
    "normalize": {"normalize": True},
    "weight": {"weight": WEIGHT},
    "mask": {"weight": WEIGHT > 0},
    "both signs": {"weight": WEIGHT - 0.4},
    "no diagonal": {"diagonal": False},
    "no diagonal, weight": {"diagonal": False, "weight": WEIGHT, "precise": False},
    "anchors": {"anchors": torch.tensor([0, 69, 5, 5, 12])},
    "anchors, weight": {"anchors": torch.tensor([0, 69, 5, 5, 12]), "weight": WEIGHT},
    "all": {"center": True, "normalize": True, "weight": WEIGHT, "diagonal": False},
}


FLOAT = torch.ones(3, 2)
