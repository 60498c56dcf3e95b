"""Which pairs of rows a loss compares, and how the rows are prepared for it: the same for every form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Pairs", "centred"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Row i against column j, which is row `ids_j`."""

    ids: Tensor
    """`[M]`; 0, 1, 2, ... unless there are anchors."""
    members: Tensor
    """`[N]`, how many columns take part in row i, but at least 1."""
    diagonal: bool
    """Whether a row takes part as its own column."""

    @staticmethod
    def of(rows: int, anchors: Tensor | None, diagonal: bool, like: Tensor) -> Pairs:
        """`members` gets the type and the device of `like`."""
        ids = torch.arange(rows, device=like.device) if anchors is None else anchors
        members = torch.full((rows,), len(ids), dtype=like.dtype, device=like.device)
        if not diagonal:
            members -= torch.bincount(ids, minlength=rows)
        return Pairs(ids, members.clamp(min=1), diagonal)

    def own(self, where: slice) -> tuple[Tensor, Tensor]:
        """Positions, within rows `where`, of the pairs of a row with itself. A column has one at most."""
        column = torch.nonzero((self.ids >= where.start) & (self.ids < where.stop))[:, 0]
        return self.ids[column] - where.start, column


def centred(side: Tensor, anchors: Tensor | None, kernel: str) -> Tensor:
    """Rows for a distance: the columns' mean is subtracted, so that less cancels in `|x|^2 + |y|^2 - 2 x.y`.

    Distances do not change, nor do gradients: they sum to 0 over all rows.
    """
    wide = side.to(torch.promote_types(side.dtype, torch.float32))
    wide = wide - (wide if anchors is None else wide[anchors]).mean(0)
    # The gradient of a distance has weights 1/r, which know no bound; float16 ends at 65504.
    return wide if kernel == "l2" and side.dtype == torch.float16 else wide.to(side.dtype)
