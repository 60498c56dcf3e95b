"""`LossTerm`: a function of batch and output that says what it needs and owns its training-only heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from graph2mlp.data.targets import known_rows
from graph2mlp.kernels import NeighbourIndex
from graph2mlp.students.base import StudentInput, StudentOutput

__all__ = ["Batch", "LossTerm", "LossTerms", "Partners", "TeacherRows"]


@dataclass(frozen=True, eq=False)
class TeacherRows:
    """What one teacher says of the rows of a batch: `logits [B, C]`, last hidden layer `hidden [B, D_T]` or None."""

    logits: Tensor
    hidden: Tensor | None

    def to(self, device: torch.device) -> TeacherRows:
        """The same on `device`."""
        return TeacherRows(self.logits.to(device), None if self.hidden is None else self.hidden.to(device))


@dataclass(frozen=True, eq=False)
class Partners:
    """One random neighbour for each of a batch's own rows, itself where there is none, and how the two are mixed.

    A mixture keeps the share `share [B, 1]` of the row and takes the rest from its partner.
    """

    inputs: StudentInput
    teachers: tuple[TeacherRows, ...]
    share: Tensor

    def to(self, device: torch.device) -> Partners:
        """The same on `device`."""
        teachers = tuple(rows.to(device) for rows in self.teachers)
        return Partners(self.inputs.to(device), teachers, self.share.to(device))


@dataclass(frozen=True, eq=False)
class Batch:
    """B training rows. `ids [B]` are positions in the observed graph; `labels [B]`, or `[B, C]`, are unknown off the
    training set, so no loss can read a validation or test label.
    """

    ids: Tensor
    inputs: StudentInput
    labels: Tensor
    teachers: tuple[TeacherRows, ...] = ()
    edges: NeighbourIndex | None = None
    """In-neighbours of the batch's own rows, as positions in the batch."""
    own: int | None = None
    """How many rows, from the first, the batch is about; None for all."""
    partners: Partners | None = None
    """For objectives that look between a node and its neighbours."""

    def labelled(self) -> Tensor:
        """Rows with a training label, `[B]` bool."""
        return known_rows(self.labels)

    def to(self, device: torch.device) -> Batch:
        """The same on `device`."""
        return Batch(
            self.ids.to(device),
            self.inputs.to(device),
            self.labels.to(device),
            tuple(rows.to(device) for rows in self.teachers),
            None if self.edges is None else self.edges.to(device),
            self.own,
            None if self.partners is None else self.partners.to(device),
        )

    def first(self, count: int) -> Batch:
        """What the first `count` rows are compared with; their inputs are not cut, since the caller holds them."""
        teachers = tuple(
            TeacherRows(rows.logits[:count], None if rows.hidden is None else rows.hidden[:count])
            for rows in self.teachers
        )
        return Batch(self.ids[:count], self.inputs, self.labels[:count], teachers)


class LossTerm(nn.Module):
    """One term of an objective: `forward(batch, out) -> scalar`.

    It never runs a model and never weighs itself. `needs` names what must be in the batch: any of `labels`,
    `teacher.logits`, `teacher.hidden`, `edges`. Trainable heads live inside the term, so they cannot reach an export.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def forward(self, batch: Batch, out: StudentOutput) -> Tensor:
        raise NotImplementedError


LossTerms: TypeAlias = Mapping[str, tuple[float, LossTerm]]
"""Name -> (weight, term). A term of weight 0 must be left out: even an all-zero gradient moves Adam with decay."""


def mean_over_teachers(batch: Batch, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of `loss(hidden)` over the teachers; for terms whose `needs` name `teacher.hidden`."""
    losses = []
    for rows in batch.teachers:
        assert rows.hidden is not None  # promised by `needs`
        losses.append(loss(rows.hidden))
    return sum(losses[1:], losses[0]) / len(losses)


def no_rows(out: StudentOutput) -> Tensor:
    """Zero with a gradient path, for a batch that holds no row of the wanted kind."""
    return out.logits.sum() * torch.zeros((), device=out.logits.device)
