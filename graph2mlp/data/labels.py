"""Words for classes and for parts of the split, as tables and NetworkX nodes hold them."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from graph2mlp.data.arrays import PARTS
from graph2mlp.data.columns import is_number
from graph2mlp.data.label_arrays import AUTO, Array
from graph2mlp.data.targets import HIDDEN_LABEL
from graph2mlp.errors import DataError, suggest
from graph2mlp.tasks import MULTILABEL, REGRESSION

__all__ = ["encode_labels", "split_parts"]

_EMPTY = ("", "nan", "NaN")
_UNKNOWN = (*_EMPTY, str(HIDDEN_LABEL))
_BETWEEN, _NONE = ";", "-"
"""Between the labels of one node, and in place of them where it has none."""
_PART_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def encode_labels(column: Array, where: str, task: str = AUTO) -> tuple[Array, tuple[str, ...]]:
    """Labels in the form of `task` (`auto`: classes) and the names of its columns, of one cell per node `[N]`.

    The different words, or whole numbers, are the classes or labels: numbers in their order, words in the alphabet's.
    An empty cell, `nan` or -1 (-1 is a quantity like any other) is unknown.

    Raises:
        DataError: classes are numbers with fractions, quantities are words, or no label is known; or with `auto`
            several cells seem to hold several labels each.
    """
    if task == REGRESSION.name:
        return _quantities(column, where), ("y",)
    if task == MULTILABEL.name:
        return _label_lists(column, where)
    y, names = _classes(column, where)
    if task == AUTO:
        _refuse_combinations(names, where)
    return y, names


def _refuse_combinations(names: tuple[str, ...], where: str) -> None:
    """Classes that are made of one another, `red;big` beside `red` and `big;new`, are hardly meant as classes.

    One part that is met elsewhere tells nothing, since a class may be called `Arts; Music` beside `Arts`; two do.
    """
    parts = {name: {word for cell in name.split(_BETWEEN) if (word := cell.strip())} for name in names}
    met = Counter(word for words in parts.values() for word in words)
    shared = [name for name, words in parts.items() if len(words) > 1 for word in words if met[word] > 1]
    if len(shared) > 1:
        raise DataError(
            f"{where}: labels such as '{shared[0][:40]}' share their parts with others, as if a node had several. If "
            "so, add --task multilabel; if each combination is a class of its own, --task classification."
        )


def _classes(column: Array, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    values = _whole(column, where)
    unknown = np.isin(values, _UNKNOWN) if values.dtype.kind == "U" else values == HIDDEN_LABEL
    if bool(unknown.all()):
        raise DataError(f"{where}: no node has a label. Fill the column at least for nodes to learn from.")
    classes, number = np.unique(values[~unknown], return_inverse=True)
    y = np.full(len(values), HIDDEN_LABEL, dtype=np.int64)
    y[~unknown] = number
    return y, tuple(str(name) for name in classes)


def _label_lists(column: Array, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    cells = column.astype(str)
    known = ~np.isin(cells, _UNKNOWN)
    lists = [[word.strip() for word in cell.split(_BETWEEN)] if cell != _NONE else [] for cell in cells[known].tolist()]
    names = sorted({word for words in lists for word in words})
    if not names or "" in names:
        raise DataError(
            f"{where}: {'a label is empty' if names else 'no node has a label'}. Write them as 'a{_BETWEEN}b', "
            f"'{_NONE}' for a node with none of them, and leave unknown ones empty."
        )
    place = {name: number for number, name in enumerate(names)}
    y = np.full((len(cells), len(names)), HIDDEN_LABEL, dtype=np.int64)
    y[known] = 0
    for row, words in zip(np.nonzero(known)[0], lists, strict=True):
        y[row, [place[word] for word in words]] = 1
    return y, tuple(names)


def _quantities(column: Array, where: str) -> NDArray[np.float32]:
    cells = column.astype(str)
    known = ~np.isin(cells, _EMPTY)
    y = np.full(len(cells), np.nan)
    try:
        y[known] = cells[known].astype(np.float64)
    except ValueError:
        word = next(cell for cell in cells[known].tolist() if not is_number(cell))
        raise DataError(f"{where}: '{word[:40]}' is no number, which --task regression needs.") from None
    if not known.any():
        raise DataError(f"{where}: no node has a label. Fill the column at least for nodes to learn from.")
    return y.astype(np.float32)[:, None]


def split_parts(column: Array, where: str) -> dict[str, Array]:
    """Positions of `train`, `val` (also valid, validation) and `test`; an empty cell is in none of them.

    Raises:
        DataError: a word is none of these.
    """
    words = np.char.lower(column.astype(str))
    for word in np.unique(words):
        if word and word not in _PART_WORDS:
            raise DataError(f"{where}: '{word}' is no part of a split. {suggest(str(word), PARTS)} Or leave it empty.")
    parts = np.array([_PART_WORDS.get(str(word), "") for word in words])
    return {part: np.nonzero(parts == part)[0] for part in PARTS}


def _whole(column: Array, where: str) -> Array:
    """Labels as int64 where all known ones are written like whole numbers (`2`, or pandas' `2.0`), else as text."""
    if column.dtype.kind in "iu":
        return column.astype(np.int64)
    words, inverse = np.unique(column, return_inverse=True)
    known = words[~np.isin(words, _UNKNOWN)]
    try:
        numbers = known.astype(np.float64)
    except ValueError:
        return column
    if fractions := [word for word, number in zip(known, numbers, strict=True) if number != np.floor(number)]:
        raise DataError(
            f"{where}: labels are numbers with fractions, such as '{fractions[0]}', so they are no "
            "classes. If they are quantities, add --task regression."
        )
    if any(str(word).removesuffix(".0") != f"{number:.0f}" for word, number in zip(known, numbers, strict=True)):
        return column  # 007 is a name
    whole = np.full(len(words), HIDDEN_LABEL, dtype=np.int64)
    whole[~np.isin(words, _UNKNOWN)] = numbers.astype(np.int64)
    return whole[inverse]
