"""Losses that compare how rows relate to each other, so student and teacher may differ in width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from graph2mlp.kernels.functional import rsd
from graph2mlp.losses.base import Batch, LossTerm, mean_over_teachers
from graph2mlp.students.base import StudentOutput, StudentSpec

__all__ = ["SimilarityDistillation"]


class SimilarityDistillation(LossTerm):
    """`mean_ij (<h_i, h_j> - <u_i, u_j>)^2` over all pairs of the batch (NOSMOG's L_rsd).

    `h` is the teacher's last hidden layer, before its activation; `u = dropout(ReLU(Linear(hidden)))` a projection of
    the student's, `[B, D]`, trained here and dropped at export. With `cosine` all rows are scaled to length 1 first,
    which makes the weight comparable between graphs.
    """

    needs = frozenset({"teacher.hidden"})

    def __init__(self, spec: StudentSpec, *, cosine: bool = False) -> None:
        super().__init__()
        self.project = nn.Linear(spec.hidden, spec.hidden)
        self.dropout, self.cosine = spec.dropout, cosine

    def forward(self, batch: Batch, out: StudentOutput) -> Tensor:
        student = F.dropout(F.relu(self.project(out.hidden[-1])), self.dropout, self.training)
        # Rows of length 1 leave float32 seven right digits, at half the cost of float64.
        return mean_over_teachers(
            batch, lambda hidden: rsd(student, hidden, normalize=self.cosine, precise=not self.cosine)
        )
