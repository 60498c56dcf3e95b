"""What a graph asks of its nodes, and so what a model's numbers mean: a class, any number of labels, or quantities.

One object per task, on numpy alone: a device that answers requests, an export that judges its file and a training that
selects its epoch read the same rules here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLASSIFICATION", "MULTILABEL", "REGRESSION", "TASKS", "Task"]

Array = NDArray[Any]
Floats = NDArray[np.floating[Any]]


class Task(ABC):
    """How raw outputs `logits [B, C]` are read, and what they are worth against the truth `y`.

    `name` is what the command line and `bundle.json` call it; `metric` is the word for `score`, which is 1 at best.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    unit: ClassVar[str]
    """What one column of the outputs stands for."""
    units: ClassVar[str]
    """Several of them."""
    same: ClassVar[str]
    """What `agreement` says, of whom is still to be filled in."""
    apart: ClassVar[str] = "mean total variation {:.4f}"
    """What `distance` says, once its figure is filled in."""
    outputs: ClassVar[tuple[str, ...]] = ("logits", "probabilities")
    """What an exported model gives."""

    @abstractmethod
    def known(self, y: Array) -> NDArray[np.bool_]:
        """Rows of `y` whose truth is known, `[n]`."""

    @abstractmethod
    def labels(self, logits: Floats) -> Array:
        """The answers, of the shape of `y`."""

    @abstractmethod
    def probabilities(self, logits: Floats) -> NDArray[np.float64]:
        """`[B, C]`.

        Raises:
            TypeError: the task has none.
        """

    @abstractmethod
    def score(self, labels: Array, y: Array) -> float:
        """How good answers are on the rows that are known; NaN where there is none."""

    @abstractmethod
    def agreement(self, labels: Array, others: Array) -> float:
        """How far two sets of answers are the same; 1 for equal ones."""

    @abstractmethod
    def baseline(self, y: Array) -> float:
        """The score of the best answer that is the same for every node; all of `y` are known."""

    def distance(self, one: Floats, other: Floats) -> float:
        """Total variation: half the L1 distance of the probabilities of a row, mean over rows."""
        return float(np.abs(self.probabilities(one) - self.probabilities(other)).sum(1).mean() / 2)


class _Classification(Task):
    """One class of C; `y [n]`, -1 where unknown."""

    name: ClassVar[str] = "classification"
    metric: ClassVar[str] = "accuracy"
    unit: ClassVar[str] = "class"
    units: ClassVar[str] = "classes"
    same: ClassVar[str] = "same class as {}"

    def known(self, y: Array) -> NDArray[np.bool_]:
        return np.asarray(y >= 0)

    def labels(self, logits: Floats) -> Array:
        return np.asarray(logits.argmax(1))

    def probabilities(self, logits: Floats) -> NDArray[np.float64]:
        shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        total: NDArray[np.float64] = shifted / shifted.sum(1, keepdims=True)
        return total

    def score(self, labels: Array, y: Array) -> float:
        known = self.known(y)
        return float((labels == y)[known].mean()) if known.any() else float("nan")

    def agreement(self, labels: Array, others: Array) -> float:
        return float((labels == others).mean()) if len(labels) else float("nan")

    def baseline(self, y: Array) -> float:
        return float(np.bincount(y).max() / len(y))


class _MultiLabel(Task):
    """Any of C labels; `y [n, C]` of 0 and 1, a row of -1 where unknown. Micro-F1: all decisions of all rows in one."""

    name: ClassVar[str] = "multilabel"
    metric: ClassVar[str] = "micro-F1"
    unit: ClassVar[str] = "label"
    units: ClassVar[str] = "labels"
    same: ClassVar[str] = "same decision on a label as {}"

    def known(self, y: Array) -> NDArray[np.bool_]:
        return np.asarray((y >= 0).all(1))

    def labels(self, logits: Floats) -> Array:
        return (logits > 0).astype(np.int64)

    def probabilities(self, logits: Floats) -> NDArray[np.float64]:
        # exp of a negative number only, so that nothing overflows.
        small = np.exp(-np.abs(logits.astype(np.float64)))
        found: NDArray[np.float64] = np.where(logits >= 0, 1.0, small) / (1.0 + small)
        return found

    def score(self, labels: Array, y: Array) -> float:
        known = self.known(y)
        if not known.any():
            return float("nan")
        said, true = labels[known] > 0, y[known] > 0
        total = int(said.sum() + true.sum())
        return 2 * int((said & true).sum()) / total if total else 1.0

    def agreement(self, labels: Array, others: Array) -> float:
        return float((labels == others).mean()) if labels.size else float("nan")

    def baseline(self, y: Array) -> float:
        """Of the most frequent labels for everyone, as many as pay."""
        shares = np.sort(y.mean(0))[::-1]
        number = np.arange(1, len(shares) + 1)
        return float((2 * shares.cumsum() / (number + shares.sum())).max())

    def distance(self, one: Floats, other: Floats) -> float:
        """A label is a distribution of two outcomes of its own: the mean over labels."""
        return float(np.abs(self.probabilities(one) - self.probabilities(other)).mean())


class _Regression(Task):
    """C quantities; `y [n, C]`, a row of NaN where unknown. R2: the share of the variance explained, mean over them."""

    name: ClassVar[str] = "regression"
    metric: ClassVar[str] = "R2"
    unit: ClassVar[str] = "quantity"
    units: ClassVar[str] = "quantities"
    same: ClassVar[str] = "R2 against {}"
    apart: ClassVar[str] = "mean difference {:.4f} standard deviations"
    outputs: ClassVar[tuple[str, ...]] = ("logits",)

    def known(self, y: Array) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(y).all(1))

    def labels(self, logits: Floats) -> Array:
        return np.asarray(logits)

    def probabilities(self, logits: Floats) -> NDArray[np.float64]:
        raise TypeError("a quantity has no probability")

    def score(self, labels: Array, y: Array) -> float:
        """NaN for fewer than two rows, or where a quantity is the same everywhere."""
        known = self.known(y)
        true = y[known].astype(np.float64)
        spread = ((true - true.mean(0)) ** 2).sum(0) if len(true) else np.zeros(y.shape[1])
        if not spread.all():
            return float("nan")
        return float((1 - ((labels[known] - true) ** 2).sum(0) / spread).mean())

    def agreement(self, labels: Array, others: Array) -> float:
        """R2 of one for the other; 1 for equal ones, whatever their spread."""
        return 1.0 if np.array_equal(labels, others) else self.score(labels, others)

    def baseline(self, y: Array) -> float:
        return 0.0

    def distance(self, one: Floats, other: Floats) -> float:
        """Mean absolute difference, in standard deviations of `one`."""
        spread = one.astype(np.float64).std(0)
        return float((np.abs(one.astype(np.float64) - other) / np.where(spread > 0, spread, 1.0)).mean())


CLASSIFICATION, MULTILABEL, REGRESSION = _Classification(), _MultiLabel(), _Regression()
TASKS: Mapping[str, Task] = MappingProxyType({one.name: one for one in (CLASSIFICATION, MULTILABEL, REGRESSION)})
"""Every task, by name."""
