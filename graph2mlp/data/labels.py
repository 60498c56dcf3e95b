"""Words for classes and for parts of the split, as tables and NetworkX nodes hold them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph2mlp.data.arrays import PARTS, Array
from graph2mlp.data.graph import HIDDEN_LABEL
from graph2mlp.errors import DataError, suggest

__all__ = ["encode_labels", "split_parts"]

_UNKNOWN = ("", "nan", "NaN", str(HIDDEN_LABEL))
_PART_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def encode_labels(column: Array, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class numbers `[N]` and class names, of labels in words or whole numbers `[N]`.

    The different labels are the classes: whole numbers in their order, words in the alphabet's. An empty cell, `nan` or
    -1 is an unknown label.

    Raises:
        DataError: the labels are numbers with fractions, or there are none.
    """
    values = _whole(column, where)
    unknown = np.isin(values, _UNKNOWN) if values.dtype.kind == "U" else values == HIDDEN_LABEL
    if bool(unknown.all()):
        raise DataError(f"{where}: no node has a label. Fill the column at least for nodes to learn from.")
    classes, number = np.unique(values[~unknown], return_inverse=True)
    y = np.full(len(values), HIDDEN_LABEL, dtype=np.int64)
    y[~unknown] = number
    return y, tuple(str(name) for name in classes)


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
            f"{where}: labels are numbers with fractions, such as '{fractions[0]}'. Only single-label "
            "classification is done so far; regression has to wait."
        )
    if any(str(word).removesuffix(".0") != f"{number:.0f}" for word, number in zip(known, numbers, strict=True)):
        return column  # 007 is a name
    whole = np.full(len(words), HIDDEN_LABEL, dtype=np.int64)
    whole[~np.isin(words, _UNKNOWN)] = numbers.astype(np.int64)
    return whole[inverse]
