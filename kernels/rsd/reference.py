"""The formula as published, with whole N x M matrices: the yardstick for the other forms, for small N only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["reference"]


def reference(
    student: Tensor,
    teacher: Tensor,
    *,
    center: bool = False,
    normalize: bool = False,
    weight: Tensor | None = None,
    diagonal: bool = True,
    anchors: Tensor | None = None,
) -> Tensor:
    """`mean_ij (t_i . t_j - s_i . s_j)^2`, see `rsd`: `student [N, A]`, `teacher [N, B]` -> scalar."""
    mass = torch.ones(len(student), dtype=student.dtype, device=student.device) if weight is None else weight
    mass = mass.to(student.dtype)
    similarities = []
    for side in (student, teacher):
        side = torch.where((mass == 0)[:, None], 0, side)
        if center:
            side = side - (mass[:, None] * side).sum(0) / mass.sum()
            side = torch.where((mass == 0)[:, None], 0, side)
        if normalize:
            side = F.normalize(side, dim=-1)
        similarities.append(side @ (side if anchors is None else side[anchors]).T)
    pairs = mass[:, None] * (mass if anchors is None else mass[anchors])
    if not diagonal:
        pairs = pairs - torch.diag(pairs.diagonal())
    return (pairs * (similarities[1] - similarities[0]).square()).sum() / pairs.sum()
