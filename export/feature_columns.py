"""Which columns of a table of requests hold the features: by their names in the graph, or by number. No torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.errors import RequestError

__all__ = ["NODE_WORDS", "RESERVED", "Columns", "FeatureColumns", "feature_matrix"]

Columns = dict[str, Sequence[Any] | NDArray[Any]]

RESERVED = ("id", "indices", "values", "neighbors")
"""What else a request may hold; a feature that is called so can only be given by number."""

NODE_WORDS = ("label", "y", "split")
"""Columns of the table of nodes that a graph was made of; passed over, so that this table can be asked as it is."""

_NUMBERED = re.compile(r"x(0|[1-9][0-9]{0,8})")
_SHOWN = 5


class FeatureColumns:
    """Finds the F features of a request: called x0 to x{F-1}, or by the `names` that the graph has for them, if any."""

    def __init__(self, features: int, names: Sequence[str] = ()) -> None:
        self.features, self.names = features, tuple(names)
        self._known = frozenset(names)
        self._numbers = f"x0 to x{features - 1}"
        self.form = f"{_listed(self.names)} (or {self._numbers})" if names else self._numbers
        """For messages: what the columns are called."""

    def find(self, given: Collection[str], path: Path) -> list[str]:
        """The columns among `given` that hold the features, in the bundle's order; empty where there are none.

        Raises:
            RequestError: some features are missing, or a column is neither a feature nor another part of a request.
        """
        others = [name for name in given if name not in RESERVED]
        wanted: list[str] = []
        if len(others) >= self.features:
            forms = self.names, [f"x{i}" for i in range(self.features)]
            wanted = next((list(form) for form in forms if form and set(form).issubset(others)), [])
        used, known = set(wanted), self._known
        left = [name for name in others if name not in used and (name in known or name not in NODE_WORDS)]
        for name in left:
            if name not in known and not _NUMBERED.fullmatch(name):
                raise RequestError(f"{path}: unknown column '{name}'. {self._known_ones(name)}")
        if left and wanted:
            ends = f"{wanted[0]} to {wanted[-1]}"
            raise RequestError(f"{path} has the features as {ends}, and beside them '{left[0]}'. Remove that column.")
        if left:
            raise RequestError(f"{path} {self._incomplete(left)}")
        return wanted

    def spread(self, columns: Columns, path: Path) -> Columns:
        """Columns of lists (parquet) as the columns they are in the graph: `emb` becomes `emb[0]`, `emb[1]`, ...

        Raises:
            RequestError: the lists are not as long as those of the graph, or hold something else than numbers.
        """
        out = Columns()
        for name, column in columns.items():
            width = next(i for i in range(len(self.names) + 1) if f"{name}[{i}]" not in self._known)
            one = name in self._known and len(column) > 0 and isinstance(column[0], np.ndarray)  # lists of one number
            if name in RESERVED or not (width or one):
                out[name] = column
                continue
            try:
                table = np.array(column, dtype=np.float64).reshape(len(column), width or 1)
            except (ValueError, TypeError):
                raise RequestError(f"{path}: column '{name}' must hold lists of {width or 1} numbers each.") from None
            out |= {f"{name}[{i}]" if width else name: table[:, i] for i in range(width or 1)}
        return out

    def _known_ones(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.names, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        return f"Known: id, {self.form}, {', '.join(RESERVED[1:])}.{hint}"

    def _incomplete(self, found: Sequence[str]) -> str:
        """What is wrong with the features `found`, which are not all of them."""
        if self._known.isdisjoint(found):
            places = sorted(int(name[1:]) for name in found)
            return (
                f"has {len(found)} feature columns, x{places[0]} to x{places[-1]}; the bundle takes {self.features}, "
                f"{self.form}."
            )
        if clash := [name for name in RESERVED if name in self._known]:
            return (
                f"gives features by name, but the column '{clash[0]}' of a request is no feature. Call all features "
                f"{self._numbers}, in the order of 'feature_names' in bundle.json."
            )
        there = set(found)
        missing = [name for name in self.names if name not in there]
        return (
            f"lacks {len(missing)} of {self.features} features: {_listed(missing)}. Give all of them by name, or all "
            f"as {self._numbers}."
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name[:40]}'" for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def feature_matrix(columns: Columns, wanted: Sequence[str], path: Path) -> NDArray[np.float32]:
    """The columns `wanted` as `x [B, F]`.

    Raises:
        RequestError: a cell is no number.
    """
    x = np.empty((len(columns[wanted[0]]), len(wanted)), dtype=np.float32)
    for place, name in enumerate(wanted):
        try:
            with np.errstate(over="ignore"):  # too large becomes infinite, which the runtime refuses by name
                x[:, place] = _numbers(columns[name])
        except (ValueError, TypeError):
            row = next(row for row, cell in enumerate(columns[name]) if not _is_number(cell))
            raise RequestError(
                f"{path}, request {row}: '{name}' must be a number, got '{str(columns[name][row])[:40]}'."
            ) from None
    return x


def _numbers(column: Sequence[Any] | NDArray[Any]) -> NDArray[np.float64]:
    if not isinstance(column, np.ndarray) and "_" in "".join(column):  # a TypeError where the cells are lists
        raise ValueError  # 1_0 is ten to Python, and to nobody else
    return np.asarray(column, dtype=np.float64)


def _is_number(cell: Any) -> bool:
    try:
        _numbers([cell])
    except (ValueError, TypeError):
        return False
    return True
