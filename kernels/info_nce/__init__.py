"""InfoNCE: every student row must find its teacher row among all teacher rows."""

from graph2mlp.kernels.info_nce.loss import info_nce
from graph2mlp.kernels.info_nce.reference import reference

__all__ = ["info_nce", "reference"]
