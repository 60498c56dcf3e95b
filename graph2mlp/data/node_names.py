"""What the user calls the nodes, in the two forms that graphs and bundles hold: whole numbers, or text."""

from __future__ import annotations

import numpy as np

from graph2mlp.data.label_arrays import Array
from graph2mlp.errors import DataError, one_line

__all__ = ["node_names"]

_EXACT = 2**53
"""Floats beyond it are whole, but no longer every whole number: two names may have become one."""


def node_names(names: Array, where: str) -> Array:
    """Names `[N]` as int64 or text: whole floats are numbers, bytes UTF-8, numbers beyond int64 the text they are.

    Raises:
        DataError: they are something else, or two nodes have one name.
    """
    typed = _typed(names, where)
    # In a file of requests a number is the text it is written as, and white space around a name counts for nothing; how
    # many there are `GraphData` checks.
    words = np.strings.strip(typed) if typed.dtype.kind == "U" else typed
    known, counts = np.unique(words, return_counts=True)
    if words.ndim == 1 and len(known) < len(words):
        name = known[counts > 1][0]
        first, second = np.nonzero(words == name)[0][:2]
        raise DataError(
            f"{where}: nodes {first} and {second} are both called '{str(name)[:40]}' (a number is the text it is "
            "written as). Each node needs a name of its own."
        )
    return typed


def _typed(names: Array, where: str) -> Array:
    kind = names.dtype.kind
    if kind == "O":
        return _of_objects(names, where)
    if kind == "S":
        try:
            return np.char.decode(names, "utf-8")
        except UnicodeDecodeError as error:
            raise _refused(where, f"bytes that are not UTF-8 ({error.object[:20]!r})") from None
    if kind == "u":
        fits = not names.size or int(names.max()) <= np.iinfo(np.int64).max
        return names.astype(np.int64 if fits else str)
    if kind == "f":
        odd = ~(np.isfinite(names) & (np.floor(names) == names) & (np.abs(names) < _EXACT))
        if odd.any():
            raise _refused(where, f"'{names[odd][0]}'")
        return names.astype(np.int64)
    if kind not in "iU":
        raise _refused(where, str(names.dtype))
    return names.astype(np.int64, copy=False) if kind == "i" else names


def _of_objects(names: Array, where: str) -> Array:
    """A column of pandas: text, or numbers of Python."""
    held = names.ravel().tolist()
    if all(isinstance(name, str) for name in held):
        return names.astype(str)
    if odd := [name for name in held if isinstance(name, bool) or not isinstance(name, int | np.integer)]:
        mixed = " among whole numbers" if isinstance(odd[0], str) else ""
        raise _refused(where, f"{one_line(repr(odd[0]), 40)}{mixed}")
    small = all(-(2**63) <= name < 2**63 for name in held)
    return names.astype(np.int64 if small else str)


def _refused(where: str, found: str) -> DataError:
    return DataError(
        f"{where}: names of nodes must be all whole numbers or all text, got {found}. Make them text: "
        "[str(name) for name in names]"
    )
