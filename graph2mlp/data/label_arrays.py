"""Labels as loose arrays hold them, made into the form of their task (see `GraphData`)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from graph2mlp.data.targets import HIDDEN_LABEL
from graph2mlp.errors import DataError, suggest
from graph2mlp.tasks import CLASSIFICATION, MULTILABEL, REGRESSION, TASKS

__all__ = ["AUTO", "Array", "class_count", "find_task", "named", "numbered", "typed_labels", "whole_labels"]

Array: TypeAlias = NDArray[Any]

AUTO = "auto"
"""Tell the task by the labels: whole numbers are classes, several columns of 0 and 1 are labels of their own."""


def typed_labels(y: Array, task: str, where: str, *, name: str = "y") -> Array:
    """`[N]` int64 classes, `[N, C]` int64 of 0 and 1, or `[N, C]` float32 quantities.

    -1, and NaN among floats, is unknown. `where` begins each complaint.

    Raises:
        DataError: they cannot be labels of that task, or with `auto` they may be quantities.
    """
    find_task(task, where)
    if not y.size:
        raise DataError(f"{where}: there are no labels, so there are no nodes.")
    if task == AUTO:
        task = _guessed(y)
    if task == REGRESSION.name:
        return _quantities(y, name, where)
    return _decisions(y, name, where) if task == MULTILABEL.name else whole_labels(y, name, where)


def find_task(task: str, where: str) -> None:
    """Refuse the name of a task that does not exist.

    Raises:
        DataError: there is none.
    """
    if task not in (AUTO, *TASKS):
        raise DataError(f"{where}: unknown task '{task}'. {suggest(task, (AUTO, *TASKS))}")


def named(y: Array, where: str) -> tuple[str, ...]:
    """Names for the columns of an answer where nothing better is known."""
    if y.ndim == 1:
        return numbered(class_count(y, where))
    if y.dtype == np.float32:
        return ("y",) if y.shape[1] == 1 else tuple(f"y{number}" for number in range(y.shape[1]))
    return numbered(y.shape[1])


def whole_labels(y: Array, name: str, where: str) -> NDArray[np.int64]:
    """Classes as `[N]` int64, `-1` for unknown.

    Raises:
        DataError: they are no classes.
    """
    if np.issubdtype(y.dtype, np.floating) or np.iscomplexobj(y):
        raise DataError(
            f"{where}: labels {name} must be integers (a class number per node, -1 for unknown), got {y.dtype}. "
            "Cast them if they are class numbers; if they are quantities, add --task regression."
        )
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{where}: labels {name} must be integers (a class number per node), got {y.dtype}.")
    if y.ndim != 1:
        raise DataError(
            f"{where}: labels must be int64 [nodes], one class per node, got shape {y.shape}. Several labels per node "
            "are columns of 0 and 1 (--task multilabel)."
        )
    if not y.size:
        raise DataError(f"{where}: there are no labels, so there are no nodes.")
    if y.dtype == np.uint64 and (largest := int(y.max())) > np.iinfo(np.int64).max:  # -1, once it is cast
        raise DataError(f"{where}: the largest label is {largest}. Number the classes 0, 1, 2, ... without gaps.")
    return y.astype(np.int64)


def class_count(labels: NDArray[np.int64], where: str) -> int:
    """C, one more than the largest label; refused beyond one class per node, where the numbers are no class numbers."""
    count = int(labels.max()) + 1
    if count > max(2, len(labels)):
        raise DataError(
            f"{where}: the largest label is {count - 1}, more than the graph's {len(labels)} nodes. "
            "Number the classes 0, 1, 2, ... without gaps; if they are quantities, add --task regression."
        )
    return count


def numbered(count: int) -> tuple[str, ...]:
    """Class names where nothing better is known."""
    return tuple(str(c) for c in range(count))


def _guessed(y: Array) -> str:
    several = y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "biuf"
    return MULTILABEL.name if several and _decided(y).all() else CLASSIFICATION.name


def _decided(y: Array) -> NDArray[np.bool_]:
    """Which entries are 0, 1 or unknown; NaN alone differs from itself."""
    return np.asarray(np.isin(y, (0, 1, HIDDEN_LABEL)) | (y != y))


def _decisions(y: Array, name: str, where: str) -> NDArray[np.int64]:
    if y.ndim != 2 or y.dtype.kind not in "biuf":
        raise DataError(
            f"{where}: labels {name} of the task multilabel must be [nodes, labels] of 0 and 1, got {y.dtype} "
            f"{list(y.shape)}."
        )
    if not (decided := _decided(y)).all():
        raise DataError(f"{where}: labels {name} must be 0 or 1 (a row of -1: unknown), got {y[~decided][0]}.")
    return np.where(y != y, HIDDEN_LABEL, y).astype(np.int64)


def _quantities(y: Array, name: str, where: str) -> NDArray[np.float32]:
    if y.ndim not in (1, 2) or y.dtype.kind not in "iuf":
        raise DataError(
            f"{where}: labels {name} of the task regression must be numbers [nodes] or [nodes, quantities], got "
            f"{y.dtype} {list(y.shape)}."
        )
    with np.errstate(over="ignore"):  # too large becomes infinite, which `GraphData` refuses
        found = y.astype(np.float32)
    return found[:, None] if y.ndim == 1 else found
