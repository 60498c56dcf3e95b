"""Soft-label distillation: the student's class probabilities against the teacher's, and against labels where known."""

from graph2mlp.kernels.soft_label_kd.loss import soft_label_kd
from graph2mlp.kernels.soft_label_kd.reference import reference

__all__ = ["reference", "soft_label_kd"]
