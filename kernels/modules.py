"""The losses as modules: the settings are chosen once, and a learned temperature has a place in `state_dict`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from graph2mlp.kernels.checks import check_positive
from graph2mlp.kernels.functional import gsp, info_nce, lsp, rsd, soft_label_kd
from graph2mlp.kernels.neighbours import NeighbourIndex

__all__ = ["GSPLoss", "InfoNCELoss", "KDLoss", "LSPLoss", "RSDLoss"]


class _Loss(nn.Module):
    """Keeps the keyword arguments of its function; each call may add those that belong to the batch."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = settings

    def extra_repr(self) -> str:
        """The settings, as they were given."""
        return ", ".join(f"{name}={value!r}" for name, value in self.settings.items())


class RSDLoss(_Loss):
    """`graph2mlp.kernels.functional.rsd` with fixed settings: `student [N, a]`, `teacher [N, b]` -> scalar."""

    def forward(self, student: Tensor, teacher: Tensor, **batch: Any) -> Tensor:
        """See `rsd`; `weight` and `anchors` may be given here."""
        return rsd(student, teacher, **{**self.settings, **batch})


class InfoNCELoss(_Loss):
    """`graph2mlp.kernels.functional.info_nce` with fixed settings: `student [N, d]`, `teacher [M, d]` -> scalar.

    With `learn_tau` the temperature is a parameter, kept as `log_beta = -log tau` so that it stays positive.
    """

    def __init__(self, *, tau: float = 0.075, learn_tau: bool = False, **settings: Any) -> None:
        super().__init__(tau=tau, **settings)
        check_positive("info_nce", "tau", tau)
        self.log_beta = nn.Parameter(torch.tensor(-math.log(tau))) if learn_tau else None

    def forward(self, student: Tensor, teacher: Tensor, **batch: Any) -> Tensor:
        """See `info_nce`; `positives`, `weight` and `labels` may be given here."""
        tau = self.settings["tau"] if self.log_beta is None else torch.exp(-self.log_beta)
        return info_nce(student, teacher, **{**self.settings, "tau": tau, **batch})


class GSPLoss(_Loss):
    """`graph2mlp.kernels.functional.gsp` with fixed settings: `student [N, a]`, `teacher [N, b]` -> scalar."""

    def forward(self, student: Tensor, teacher: Tensor, **batch: Any) -> Tensor:
        """See `gsp`; `weight` and `anchors` may be given here."""
        return gsp(student, teacher, **{**self.settings, **batch})


class LSPLoss(_Loss):
    """`graph2mlp.kernels.functional.lsp` with fixed settings: `student [N, a]`, `teacher [N, b]`, graph -> scalar."""

    def forward(self, student: Tensor, teacher: Tensor, graph: NeighbourIndex | Tensor) -> Tensor:
        """See `lsp`."""
        return lsp(student, teacher, graph, **self.settings)


class KDLoss(_Loss):
    """`graph2mlp.kernels.functional.soft_label_kd` with fixed settings: logits `[N, C]`, `[N, C]` -> scalar."""

    def forward(self, student: Tensor, teacher: Tensor, **batch: Any) -> Tensor:
        """See `soft_label_kd`; `labels`, `index` and `weight` may be given here."""
        return soft_label_kd(student, teacher, **{**self.settings, **batch})
