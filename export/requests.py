"""`Requests`: what a device asks, as numpy arrays, before anyone knows which bundle will answer. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.errors import RequestError, one_line

__all__ = [
    "PAD",
    "Floats",
    "Ints",
    "Requests",
    "dense_features",
    "pad_lists",
    "read_lists",
    "sparse_features",
    "wraps",
]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

PAD = -1
"""Fills a row of indices or neighbour ids up to the longest row of its batch."""

_FLOAT, _INT = np.dtype(np.float32), np.dtype(np.int64)
_MOST = int(np.iinfo(np.int64).max)

_OWN_IDS = (
    f"They are positions in the table, padded with {PAD}; Predictor.neighbors(lists) makes them of lists of your own "
    "ids"
)
_UNEVEN = {
    "x": "every request has one number per feature",
    "indices": f"pad them with {PAD}",
    "values": "pad them with 0",
    "neighbors": _OWN_IDS,
}
"""What to do about rows of different lengths."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Requests:
    """B requests. Features are dense (`x`) or sparse (`indices`, `values`); either serves any bundle.

    Shapes: `x [B, F]` float32; `indices [B, J]` int64 padded with `PAD`, `values [B, J]` float32 (default: ones);
    `neighbors [B, K]` int64 padded with `PAD`: a node of the training graph lists its own id, any other node the ids
    of its neighbours, a node without edges nothing; `ids [B]`, numbers or text, are only carried through.

    Numbers of other types are converted, integers never to floats they do not fit.

    Raises:
        RequestError: features are missing or given twice, or an array is of the wrong type or shape.
    """

    x: Floats | None = None
    indices: Ints | None = None
    values: Floats | None = None
    neighbors: Ints | None = None
    ids: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if (self.x is None) == (self.indices is None):
            what = "A request needs features" if self.x is None else "Features are given twice"
            raise RequestError(f"{what}: give either dense 'x' or sparse 'indices' and 'values'.")
        for name, given, kinds, dtype in (
            ("x", self.x, "fiub", _FLOAT),
            ("indices", self.indices, "iu", _INT),
            ("values", self.values, "fiub", _FLOAT),
            ("neighbors", self.neighbors, "iu", _INT),
        ):
            # The usual case, at the price of a few comparisons: this is on the way of every single request. numpy has
            # one object per native type; another object of the same type is converted, which changes nothing.
            if given is None or (
                type(given) is np.ndarray and given.dtype is dtype and given.ndim == 2 and given.flags.c_contiguous
            ):
                continue
            object.__setattr__(self, name, _convert(name, given, kinds, dtype))
        if self.indices is not None:
            if self.values is None:
                object.__setattr__(self, "values", (self.indices != PAD).astype(np.float32))
            elif self.values.shape != self.indices.shape:
                raise RequestError(
                    f"'values' must have the shape of 'indices', got {self.values.shape} and {self.indices.shape}."
                )
        if self.ids is not None:
            object.__setattr__(self, "ids", _ids(self.ids))
        count = len(self)
        for name, array in (("neighbors", self.neighbors), ("ids", self.ids)):
            if array is not None and len(array) != count:
                raise RequestError(f"There are {count} rows of features, but {len(array)} of '{name}'.")

    def __len__(self) -> int:
        features = self.x if self.x is not None else self.indices
        assert features is not None  # checked on construction
        return len(features)

    def take(self, rows: slice | Ints) -> Requests:
        """Some of the requests, by slice or by position."""
        parts = {name: getattr(self, name) for name in ("x", "indices", "values", "neighbors", "ids")}
        return Requests(**{name: part[rows] for name, part in parts.items() if part is not None})

    def trim(self) -> Requests:
        """The same without columns that hold nothing but padding; one column is always left."""
        indices, values, neighbors = self.indices, self.values, self.neighbors
        if indices is not None and values is not None:
            indices, values = indices[:, : _used(indices)], values[:, : _used(indices)]
        if neighbors is not None:
            neighbors = neighbors[:, : _used(neighbors)]
        return Requests(x=self.x, indices=indices, values=values, neighbors=neighbors, ids=self.ids)

    def dense(self, width: int) -> Floats:
        """The features as `x [B, width]`, whichever way they came; indices must be in range."""
        if self.x is not None:
            return self.x
        assert self.indices is not None
        assert self.values is not None
        return dense_features(self.indices, self.values, width)

    def sparse(self) -> tuple[Ints, Floats]:
        """The features as `(indices [B, J], values [B, J])`, whichever way they came."""
        if self.x is not None:
            return sparse_features(self.x)
        assert self.indices is not None
        assert self.values is not None
        return self.indices, self.values


def _convert(name: str, given: Any, kinds: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        array = np.asarray(given)
    except ValueError:  # rows of different lengths
        raise RequestError(f"'{name}' must be a table, got rows of different lengths. {_UNEVEN[name]}.") from None
    # An empty list has no type of its own; numpy calls it float.
    if array.dtype.kind not in kinds and array.size:
        expected = "whole numbers" if kinds == "iu" else "numbers"
        hint = f" {_OWN_IDS}." if name == "neighbors" else ""
        raise RequestError(f"'{name}' must hold {expected}, got {array.dtype}.{hint}")
    if array.ndim != 2:
        raise RequestError(f"'{name}' must have two dimensions, [requests, width], got shape {array.shape}.")
    if dtype is _INT and wraps(array):
        raise RequestError(f"'{name}' must hold whole numbers below 2**63, got {array.max()}.")
    with np.errstate(over="ignore"):  # too large becomes infinite, which the runtime refuses by name
        return np.ascontiguousarray(array, dtype=dtype)


def _ids(given: Any) -> NDArray[Any]:
    try:
        array = np.asarray(given)
    except ValueError:  # lists of different lengths
        array = np.empty((0, 0))
    if array.ndim != 1 or array.dtype.kind not in "iufbU":
        what = f"{one_line(array.dtype, 40)} of shape {array.shape}" if array.size else "lists"
        raise RequestError(
            f"'ids' must hold one number or text for each request, got {what}. Give one column, or .astype(str)."
        )
    return array


def wraps(array: NDArray[Any]) -> bool:
    """Whether a number would be another one as int64: 2**64 - 1 would be the padding."""
    return array.dtype.kind == "u" and array.size > 0 and int(array.max()) > _MOST


def _used(table: Ints) -> int:
    used = np.nonzero((table != PAD).any(0))[0]
    return int(used[-1]) + 1 if len(used) else 1


def read_lists(name: str, cells: Iterable[Any], dtype: type[np.generic], where: str) -> list[NDArray[Any]]:
    """One array per request, from text with spaces between numbers, from lists, or from single numbers.

    `name` is that of the column, `where` (a file) begins each complaint.

    Raises:
        RequestError: a cell holds something else.
    """
    out = []
    for row, cell in enumerate(cells):
        try:
            out.append(_exact(np.asarray(_words(cell) if isinstance(cell, str) else np.atleast_1d(cell)), dtype))
        except (ValueError, OverflowError):
            expected = "whole numbers" if dtype is np.int64 else "numbers"
            raise RequestError(
                f"{where}, request {row}: '{name}' must be {expected} separated by spaces, got '{str(cell)[:40]}'."
            ) from None
    return out


def _words(cell: str) -> list[str]:
    if "_" in cell:
        raise ValueError  # 1_0 is ten to Python, and to nobody else
    return cell.split()


def _exact(items: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    if items.ndim != 1 or (dtype is np.int64 and items.size and (items.dtype.kind not in "iuUS" or wraps(items))):
        raise ValueError  # 1.7 must not become id 1
    with np.errstate(over="ignore"):
        return items.astype(dtype)


def pad_lists(lists: list[NDArray[Any]], dtype: type[np.generic], fill: int = PAD) -> NDArray[Any]:
    """Lists of different lengths as one table `[B, longest]`, at least one column wide."""
    counts = np.fromiter((len(row) for row in lists), np.int64, len(lists))
    out = np.full((len(lists), max(1, int(counts.max(initial=0)))), fill, dtype=dtype)
    if counts.sum():
        with np.errstate(over="ignore"):  # as in `_convert`
            out[np.arange(out.shape[1]) < counts[:, None]] = np.concatenate(lists)
    return out


def sparse_features(x: Floats) -> tuple[Ints, Floats]:
    """Dense rows `[B, F]` as `(indices [B, J], values [B, J])`, J the most non-zeros of a row (at least 1)."""
    row, column = np.nonzero(x)
    counts = np.bincount(row, minlength=len(x))
    filled = np.arange(max(1, int(counts.max(initial=0)))) < counts[:, None]
    indices = np.full(filled.shape, PAD, dtype=np.int64)
    values = np.zeros(filled.shape, dtype=np.float32)
    indices[filled], values[filled] = column, x[row, column]
    return indices, values


def dense_features(indices: Ints, values: Floats, width: int) -> Floats:
    """The reverse: `[B, J]` and `[B, J]` -> `[B, F]`; an index that comes twice counts twice."""
    x = np.zeros((len(indices), width), dtype=np.float32)
    row, column = np.nonzero(indices != PAD)
    with np.errstate(over="ignore", invalid="ignore"):
        np.add.at(x, (row, indices[row, column]), values[row, column])
    return x
