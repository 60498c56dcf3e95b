"""Projected gradient descent on the input: the bounded noise that raises a loss most."""

from graph2mlp.kernels.pgd_perturb.perturb import pgd_perturb
from graph2mlp.kernels.pgd_perturb.reference import reference
from graph2mlp.kernels.pgd_perturb.step import signed_step
from graph2mlp.kernels.pgd_perturb.still import fixed_parameters, kept_statistics

__all__ = ["fixed_parameters", "kept_statistics", "pgd_perturb", "reference", "signed_step"]
