"""Centred kernel alignment: how alike two sets of features are, up to rotation and scale."""

from graph2mlp.kernels.cka.loss import cka
from graph2mlp.kernels.cka.reference import reference

__all__ = ["cka", "reference"]
