"""What the user calls the nodes of the structure table, turned into rows of the table. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.errors import RequestError
from graph2mlp.export.requests import PAD

__all__ = ["NodeNames"]


class NodeNames:
    """Looks up nodes by name: `names [N]`, int64 or text, row by row."""

    def __init__(self, names: NDArray[Any]) -> None:
        self._rows = {str(name): row for row, name in enumerate(names.tolist())}
        spaced = names.dtype.kind == "U" and any(len(name.split()) != 1 for name in names.tolist())
        self.separator = ";" if spaced else None
        """Between names in a cell: white space, or `;` where names hold white space."""
        how = "';'" if self.separator else "spaces"
        self.form = f"ids look like '{next(iter(self._rows), '')[:40]}', several in a cell separated by {how}"
        """For messages: what a cell holds."""

    def positions(self, cell: Any, where: str) -> NDArray[np.int64]:
        """Rows of the names in a cell: text, a list, or a single name; empty for none.

        Raises:
            RequestError: a name is not that of a node.
        """
        if isinstance(cell, str):
            cell = cell.split(self.separator)
        names = cell if isinstance(cell, list | np.ndarray) else [cell]
        wanted = [str(name).strip() for name in names]
        return np.array([self._row(name, where) for name in wanted if name], dtype=np.int64)

    def table(self, names: NDArray[Any], where: str) -> NDArray[np.int64]:
        """Rows `[B, K]` of names `[B, K]`, padded with -1 (numbers) or empty text.

        Raises:
            RequestError: a name is not that of a node.
        """
        words = names.astype(str)
        rows = [PAD if word in ("", str(PAD)) else self._row(word, where) for word in words.ravel().tolist()]
        return np.array(rows, dtype=np.int64).reshape(words.shape)

    def _row(self, name: str, where: str) -> int:
        if name not in self._rows:
            raise RequestError(
                f"{where}: '{name[:40]}' is no node of the graph this bundle was made from ({self.form}). Leave "
                "unknown neighbours out; a node without any has an empty cell, or list."
            )
        return self._rows[name]
