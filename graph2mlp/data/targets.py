"""What training needs of a task: its losses, and how answers are mixed, averaged and scaled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph2mlp.tasks import CLASSIFICATION, MULTILABEL, REGRESSION, Task

__all__ = [
    "HIDDEN_LABEL",
    "Classes",
    "Labels",
    "OutputScale",
    "Quantities",
    "Targets",
    "known_rows",
    "targets_of",
    "unknown_like",
]

HIDDEN_LABEL = -1
"""The label of a node whose class is unknown, or must not be read in training."""

_EDGE = 1e-6
"""Probabilities are kept this far from 0 and 1 before their logarithm is taken."""


class Targets(ABC):
    """The truth of a graph's nodes as training sees it. `logits [n, C]`, `y` as the task has it, all rows known."""

    task: ClassVar[Task]

    def score(self, logits: Tensor, y: Tensor) -> float:
        """The task's metric on the rows of `y` that are known."""
        return self.task.score(self.task.labels(logits.detach().cpu().numpy()), y.cpu().numpy())

    def agreement(self, a: Tensor, b: Tensor) -> float:
        """How far two sets of logits give the same answers."""
        return self.task.agreement(self.task.labels(a.numpy()), self.task.labels(b.numpy()))

    @abstractmethod
    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """What a network minimises on labelled nodes, mean over rows."""

    @abstractmethod
    def soft_loss(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """How far the student's answers `[n, C]` are from the teacher's, mean over rows."""

    @abstractmethod
    def mixed(self, one: Tensor, other: Tensor, share: Tensor) -> Tensor:
        """Logits whose answers are `share [n, 1]` parts of those of `one`, the rest those of `other`."""

    @abstractmethod
    def mean(self, logits: Tensor, weights: Tensor) -> Tensor:
        """Logits `[n, C]` whose answers are the mean of those of `logits [M, n, C]`, with weights `[M]`."""

    @abstractmethod
    def answers(self, logits: Tensor) -> Tensor:
        """What the logits say, as a new tensor `[n, C]`: probabilities, or quantities in deviations of the training
        nodes, so numbers of about 1 whatever the unit."""

    def are_probabilities(self, values: Tensor) -> bool:
        """Whether `values [n, C]`, all that somebody said of a graph, are probabilities; a few rows do not tell."""
        return False

    def from_probabilities(self, values: Tensor) -> Tensor:
        """Probabilities as logits."""
        return values

    def as_logits(self, values: Tensor) -> Tensor:
        """All that somebody said of a graph, in whatever form, as logits."""
        return self.from_probabilities(values) if self.are_probabilities(values) else values

    def output_scale(self) -> nn.Module:
        """What a network's last layer passes through: a fresh module, with state for quantities only."""
        return nn.Identity()


class Classes(Targets):
    """One class of several: cross-entropy and the Kullback-Leibler divergence of softmax probabilities."""

    task: ClassVar[Task] = CLASSIFICATION

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y)

    def soft_loss(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        from graph2mlp.kernels.functional import soft_label_kd

        return soft_label_kd(student, teacher, tau=temperature)

    def mixed(self, one: Tensor, other: Tensor, share: Tensor) -> Tensor:
        parts = [share.log() + one.log_softmax(1), torch.log1p(-share) + other.log_softmax(1)]
        return torch.logsumexp(torch.stack(parts), dim=0)

    def mean(self, logits: Tensor, weights: Tensor) -> Tensor:
        return torch.logsumexp(F.log_softmax(logits, dim=2) + weights.log().view(-1, 1, 1), dim=0)

    def answers(self, logits: Tensor) -> Tensor:
        return logits.softmax(1)

    def are_probabilities(self, values: Tensor) -> bool:
        return values.size(1) > 1 and bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < 1e-3).all())

    def from_probabilities(self, values: Tensor) -> Tensor:
        """Their logarithms: soft labels of probabilities themselves are nearly uniform."""
        return values.clamp(min=1e-9).log()


class Labels(Targets):
    """Any of several labels, each a decision of its own: binary cross-entropy, mean over labels."""

    task: ClassVar[Task] = MULTILABEL

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, y.float())

    def soft_loss(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """`t^2 KL(sigmoid(z_T / t) || sigmoid(z_S / t))`, mean over labels."""
        told = teacher / temperature
        wanted = told.sigmoid()
        cross = F.binary_cross_entropy_with_logits(student / temperature, wanted)
        return temperature**2 * (cross - F.binary_cross_entropy_with_logits(told, wanted))

    def mixed(self, one: Tensor, other: Tensor, share: Tensor) -> Tensor:
        return torch.logit(torch.lerp(other.sigmoid(), one.sigmoid(), share), eps=_EDGE)

    def mean(self, logits: Tensor, weights: Tensor) -> Tensor:
        return torch.logit((logits.sigmoid() * weights.view(-1, 1, 1)).sum(0), eps=_EDGE)

    def answers(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def are_probabilities(self, values: Tensor) -> bool:
        """Logits of which none is negative or above 1 are hardly possible."""
        return bool(((values >= 0) & (values <= 1)).all())

    def from_probabilities(self, values: Tensor) -> Tensor:
        """Their log-odds."""
        return torch.logit(values, eps=_EDGE)


class Quantities(Targets):
    """Numbers with a unit: squared error in standard deviations of the training nodes, mean over quantities.

    `center [C]` and `spread [C]` are mean and deviation of the training nodes. Networks answer in the user's units:
    behind their last layer stands `OutputScale`, so that what is learned has mean 0 and deviation 1.
    """

    task: ClassVar[Task] = REGRESSION

    def __init__(self, center: Tensor, spread: Tensor) -> None:
        self.center, self.spread = center, spread

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return ((logits - y) / self.spread.to(logits.device)).square().mean()

    def soft_loss(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """The squared distance; a quantity has no temperature."""
        return ((student - teacher) / self.spread.to(student.device)).square().mean()

    def mixed(self, one: Tensor, other: Tensor, share: Tensor) -> Tensor:
        return torch.lerp(other, one, share)

    def mean(self, logits: Tensor, weights: Tensor) -> Tensor:
        return (logits * weights.view(-1, 1, 1)).sum(0)

    def answers(self, logits: Tensor) -> Tensor:
        return (logits - self.center) / self.spread

    def output_scale(self) -> nn.Module:
        scale = OutputScale(len(self.center))
        scale.center.copy_(self.center)
        scale.spread.copy_(self.spread)
        return scale


class OutputScale(nn.Module):
    """`z -> z * spread + center`, per column: from deviations of the training nodes to the user's units."""

    center: Tensor
    spread: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def forward(self, z: Tensor) -> Tensor:
        return z * self.spread + self.center


def task_of(y: Tensor) -> Task:
    """The task that labels of this form belong to."""
    if y.is_floating_point():
        return REGRESSION
    return CLASSIFICATION if y.dim() == 1 else MULTILABEL


def targets_of(y: Tensor, train: Tensor) -> Targets:
    """The targets of a graph with labels `y`, learned from nodes `train`."""
    task = task_of(y)
    if task is not REGRESSION:
        return _FIXED[task.name]
    learned = y[train].double()
    spread = learned.std(0, correction=0)
    return Quantities(learned.mean(0).float(), torch.where(spread > 0, spread, 1.0).float())


_FIXED: Mapping[str, Targets] = {CLASSIFICATION.name: Classes(), MULTILABEL.name: Labels()}


def known_rows(y: Tensor) -> Tensor:
    """Rows whose truth is known, `[n]` bool."""
    known = y.isfinite() if y.is_floating_point() else y != HIDDEN_LABEL
    return known if y.dim() == 1 else known.all(1)


def unknown_like(y: Tensor, rows: int | None = None) -> Tensor:
    """As many unknown labels as `y` has, or `rows`, of its form."""
    size = (len(y) if rows is None else rows, *y.shape[1:])
    unknown = float("nan") if y.is_floating_point() else HIDDEN_LABEL
    return torch.full(size, unknown, dtype=y.dtype, device=y.device)
