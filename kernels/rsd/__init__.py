"""Relational similarity distillation: the mean squared difference of two Gram matrices."""

from graph2mlp.kernels.rsd.loss import rsd
from graph2mlp.kernels.rsd.reference import reference

__all__ = ["reference", "rsd"]
