"""The loss and its gradients from d x d Gram matrices; README.md derives them.

Two passes over the rows are all that is needed: one sums Gram matrices, one multiplies rows with d x d factors.
`chunked.py` and `fused.py` supply these passes, the algebra between them is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from graph2mlp.kernels.rows import scatter_rows

__all__ = ["CHUNK", "DifferenceGrams", "Factors", "Grams", "Passes", "Rows", "SeparateGrams", "closed_form"]

CHUNK = 8192  # rows turned to float64 at a time


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of both sides, and what each weighs (None: 1)."""

    student: Tensor
    teacher: Tensor
    weight: Tensor | None

    def take(self, index: Tensor) -> Rows:
        """Rows `index`, with their weights."""
        return Rows(self.student[index], self.teacher[index], None if self.weight is None else self.weight[index])

    def mass(self) -> Tensor | int:
        """The sum of the weights."""
        return len(self.student) if self.weight is None else self.weight.double().sum()

    def squares(self) -> Tensor:
        """`weight_i^2`, the weight of the pair (i, i): `[N]` in float64."""
        if self.weight is None:
            return torch.ones(len(self.student), dtype=torch.float64, device=self.student.device)
        return self.weight.double().square()

    def gaps(self) -> Tensor:
        """`|s_i|^2 - |t_i|^2`, how far the pair (i, i) is off: `[N]` in float64."""
        gaps = []
        for s, t in zip(self.student.split(CHUNK), self.teacher.split(CHUNK), strict=True):
            s, t = s.double(), t.double()
            same = s.size(1) == t.size(1)
            gaps.append(((s - t) * (s + t)).sum(1) if same else s.square().sum(1) - t.square().sum(1))
        return torch.cat(gaps)


class Factors(NamedTuple):
    """The gradient of one side is `own rows @ own + other rows @ other`."""

    own: Tensor
    other: Tensor


@dataclass(frozen=True, eq=False)
class Grams:
    """`X^T W X`, `Y^T W X` and `Y^T W Y` of two blocks of features X and Y."""

    xx: Tensor
    yx: Tensor
    yy: Tensor

    def pairs(self, columns: Grams) -> Tensor:
        """`sum_ij w_i w_j (s_i . s_j - t_i . t_j)^2`, i over these rows and j over those of `columns`."""
        raise NotImplementedError

    def factors(self, teacher: bool) -> Factors:
        """With these rows as columns: `sum_j w_j (s_i . s_j - t_i . t_j) s_j`, or minus that with `t_j`."""
        raise NotImplementedError


class DifferenceGrams(Grams):
    """X = S + T, Y = S - T, for sides of one width. All that is summed is small when the loss is."""

    def pairs(self, columns: Grams) -> Tensor:
        cross = (self.yx.T * columns.yx).sum()
        if columns is self:
            return (cross + (self.xx * self.yy).sum()) / 2
        return ((self.xx * columns.yy).sum() + (self.yy * columns.xx).sum() + 2 * cross) / 4

    def factors(self, teacher: bool) -> Factors:
        """The other rows are those of `S - T`."""
        t_s = (self.xx - self.yy + (self.yx.T - self.yx)) / 4
        return Factors((self.yy - self.yx) / 2, -t_s.T) if teacher else Factors((self.yx + self.yy) / 2, t_s)


class SeparateGrams(Grams):
    """X = S, Y = T. Three large terms cancel when S is close to T: in float64 only."""

    def pairs(self, columns: Grams) -> Tensor:
        return (self.xx * columns.xx).sum() - 2 * (self.yx * columns.yx).sum() + (self.yy * columns.yy).sum()

    def factors(self, teacher: bool) -> Factors:
        """The other rows are those of the other side."""
        return Factors(self.yy, -self.yx.T) if teacher else Factors(self.xx, -self.yx)


class Passes(Protocol):
    """What an implementation does with the rows themselves."""

    def grams(self, rows: Rows) -> Grams:
        """The Gram matrices of all rows."""

    def pull_back(self, rows: Rows, factors: Factors, own_pair: Tensor | None, teacher: bool) -> Tensor:
        """`weight_i (own_i @ factors.own + other_i @ factors.other) + own_pair_i own_i`, `[N, d]`."""


def closed_form(
    passes: Passes,
    rows: Rows,
    weight: Tensor,
    anchors: Tensor | None,
    diagonal: bool,
    need_student: bool,
    need_teacher: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean over all pairs, and the gradients of `weight` times it."""
    columns = rows if anchors is None else rows.take(anchors)
    grams = passes.grams(rows)
    column_grams = grams if anchors is None else passes.grams(columns)
    total, count = grams.pairs(column_grams), rows.mass() * columns.mass()
    own_pair = None
    if not diagonal:
        own_pair, squares = rows.gaps(), rows.squares()
        total = total - (squares * own_pair.square()).sum()
        count, own_pair = count - squares.sum(), squares * own_pair
    # Rounding may leave -1e-17. clamp would turn NaN into a number; weights of both signs may mean a negative sum.
    rounded = total < 0 if rows.weight is None else (total < 0) & (rows.weight >= 0).all()
    loss = torch.where(rounded, 0, total) / count
    scale = weight.double() / count

    gradients = []
    for teacher, needed in ((False, need_student), (True, need_teacher)):
        if not needed:
            gradients.append(weight.new_empty(0))
            continue
        # Without anchors a row is both i and j of its pairs, in the same way.
        share = 4 * scale if anchors is None else 2 * scale
        own = None if own_pair is None else own_pair * (share if teacher else -share)
        gradient = passes.pull_back(rows, _scaled(column_grams.factors(teacher), share), own, teacher)
        if anchors is not None:
            as_anchor = passes.pull_back(columns, _scaled(grams.factors(teacher), share), None, teacher)
            gradient += scatter_rows(as_anchor, anchors, len(gradient))
        gradients.append(gradient)
    return loss.to(weight.dtype), gradients[0], gradients[1]


def _scaled(factors: Factors, share: Tensor) -> Factors:
    return Factors(factors.own * share, factors.other * share)
