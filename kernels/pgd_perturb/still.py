"""A model that learns nothing while it is being searched, and is as before afterwards, also after an exception."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["fixed_parameters", "kept_statistics"]


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Normalisation uses its running statistics, and learns nothing from inputs nobody will ever send."""
    norms = [one for one in model.modules() if one.training and getattr(one, "running_mean", None) is not None]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True


@contextmanager
def fixed_parameters(model: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient, so nothing is kept for one."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
