"""What the user calls the nodes of the structure table, turned into rows of the table. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.errors import RequestError
from graph2mlp.export.requests import PAD

__all__ = ["NodeNames"]

_SEPARATORS = {None: "spaces", ";": "';'", "|": "'|'"}
"""What stands between names in a cell, the first that no name holds: None is white space."""


class NodeNames:
    """Looks up nodes by name: `names [N]`, int64 or text, row by row."""

    def __init__(self, names: NDArray[Any]) -> None:
        words = [str(name).strip() for name in names.tolist()]
        self._rows = {word: row for row, word in enumerate(words)}
        if len(self._rows) < len(words):
            twice = next(word for row, word in enumerate(words) if self._rows[word] != row)
            raise RequestError(
                f"In this bundle two nodes are called '{twice[:40]}', white space around it aside. Rename one in the "
                "graph, and export again."
            )
        self._separator = _separator(words) if names.dtype.kind == "U" else None
        between = _SEPARATORS.get(self._separator)
        how = f"several in a cell separated by {between}" if between else "one in a cell"
        self.form = f"ids look like '{next(iter(self._rows), '')[:40]}', {how}"
        """For messages: what a cell holds."""

    def positions(self, cell: Any, where: str) -> NDArray[np.int64]:
        """Rows of the names in a cell: text, a list, or a single name; empty for none.

        Raises:
            RequestError: a name is not that of a node.
        """
        if isinstance(cell, str) and self._separator != "":
            cell = cell.split(self._separator)
        names = cell if isinstance(cell, list | np.ndarray) else [cell]
        wanted = [str(name).strip() for name in names]
        return np.array([self._row(name, where) for name in wanted if name], dtype=np.int64)

    def table(self, names: NDArray[Any], where: str) -> NDArray[np.int64]:
        """Rows `[B, K]` of names `[B, K]`, padded with -1 (numbers) or empty text.

        Raises:
            RequestError: a name is not that of a node.
        """
        try:
            words = names.astype(str)
        except ValueError:  # bytes that are no letters
            raise RequestError(f"{where}: 'neighbors' must hold numbers or text, got {names.dtype}.") from None
        padding = {"", str(PAD)}
        if str(PAD) in self._rows:
            if names.dtype.kind in "if" and (names == PAD).any():
                raise RequestError(
                    f"{where}: a node is called {PAD}, which pads numbers. Give 'neighbors' as text, padded with empty "
                    "text."
                )
            padding = {""}
        wanted = [word.strip() for word in words.ravel().tolist()]
        rows = [PAD if word in padding else self._row(word, where) for word in wanted]
        return np.array(rows, dtype=np.int64).reshape(words.shape)

    def _row(self, name: str, where: str) -> int:
        if name not in self._rows:
            raise RequestError(
                f"{where}: '{name[:40]}' is no node of the graph this bundle was made from ({self.form}). Leave "
                "unknown neighbours out; a node without any has an empty cell, or list."
            )
        return self._rows[name]


def _separator(words: Sequence[str]) -> str | None:
    """Of `_SEPARATORS`; empty where names hold all of them, so that a cell can only be one name."""
    if all(len(word.split()) == 1 for word in words):
        return None
    return next((mark for mark in _SEPARATORS if mark and not any(mark in word for word in words)), "")
