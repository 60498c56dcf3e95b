"""GSP: the student's pairwise similarities must look like the teacher's (global structure preservation)."""

from graph2mlp.kernels.gsp.loss import gsp
from graph2mlp.kernels.gsp.reference import reference

__all__ = ["gsp", "reference"]
