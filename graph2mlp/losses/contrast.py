"""Contrast between nodes: each student row must find the teacher row of its own node."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from graph2mlp.errors import ConfigError, MethodError
from graph2mlp.kernels.functional import info_nce
from graph2mlp.losses.base import Batch, LossTerm, mean_over_teachers
from graph2mlp.students.base import StudentOutput, StudentSpec
from graph2mlp.students.norm import BatchNorm

__all__ = ["Contrast"]


class Contrast(LossTerm):
    """`mean_i -log( exp(u_i . v_i / tau) / sum_j exp(u_i . v_j / tau) )` over the batch (G-CRD).

    `u = P_S(s) / |.|`, `v = P_T(h) / |.|`: last hidden layers of student `[B, D]` and teacher `[B, D_T]` through one
    head each, `Linear -> BatchNorm -> ReLU` of width `width`, both trained here and dropped at export. Several teachers
    share their head.

    Raises:
        ConfigError: tau or width is impossible.
        MethodError: the teachers' layers differ in width.
    """

    needs = frozenset({"teacher.hidden"})

    def __init__(
        self, spec: StudentSpec, teacher_widths: Sequence[int], *, tau: float = 0.075, width: int = 128
    ) -> None:
        super().__init__()
        if not (0 < tau < math.inf and width >= 1):
            raise ConfigError(f"The contrast needs a finite tau > 0 and a width of at least 1 (got {tau}, {width})")
        if len(set(teacher_widths)) > 1:
            raise MethodError(
                "The contrast reads the last hidden layers of all teachers by one head, but their widths are "
                f"{', '.join(map(str, teacher_widths))}. Give teachers of one width, or take another term (similarity, "
                "gsp, lsp)."
            )
        self.tau, self.dropout = tau, spec.dropout
        self.student_head, self.teacher_head = _head(spec.hidden, width), _head(max((1, *teacher_widths)), width)

    def forward(self, batch: Batch, out: StudentOutput) -> Tensor:
        student = F.dropout(F.relu(out.hidden[-1]), self.dropout, self.training)
        rows = self.student_head(student)
        return mean_over_teachers(batch, lambda hidden: info_nce(rows, self.teacher_head(hidden), tau=self.tau))


def _head(inputs: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, width), BatchNorm(width), nn.ReLU())
