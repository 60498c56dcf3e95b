"""Normalisation over a batch."""

from __future__ import annotations

from torch import Tensor, nn

from graph2mlp.errors import MethodError

__all__ = ["BatchNorm"]


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of rows `[B, D]` (Ioffe and Szegedy, ICML 2015), which one row alone does not have.

    Raises:
        MethodError: a training batch has fewer than two rows.
    """

    def forward(self, rows: Tensor) -> Tensor:
        if self.training and len(rows) < 2:
            raise MethodError(
                "Batch normalisation needs two rows in a batch, but one has a single row. Raise train.batch_size, or "
                "do without student.norm=batch and heads that normalise (g_crd, loss.gcrd)."
            )
        return super().forward(rows)
