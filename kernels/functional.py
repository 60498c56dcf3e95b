"""The losses as functions: student first, teacher second, a scalar out. `use(...)` chooses how they are computed."""

from graph2mlp.kernels.cka import cka
from graph2mlp.kernels.gsp import gsp
from graph2mlp.kernels.info_nce import info_nce
from graph2mlp.kernels.lsp import lsp
from graph2mlp.kernels.neighbour_targets import neighbour_kl, neighbour_targets
from graph2mlp.kernels.pgd_perturb import pgd_perturb
from graph2mlp.kernels.rsd import rsd
from graph2mlp.kernels.soft_label_kd import soft_label_kd

__all__ = [
    "cka",
    "gsp",
    "info_nce",
    "lsp",
    "neighbour_kl",
    "neighbour_targets",
    "pgd_perturb",
    "rsd",
    "soft_label_kd",
]
