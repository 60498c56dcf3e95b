"""Planetoid's raw files (Cora, CiteSeer, PubMed), read without trusting them and without making them dense."""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from graph2mlp.data.npz import RawGraph
from graph2mlp.data.splits import Split
from graph2mlp.errors import DataError

__all__ = ["read_planetoid"]

# The raw files are Python 2 pickles and exist in no other form. Only these names may be loaded from them: enough to
# rebuild arrays, sparse matrices and the neighbour lists, and nothing that can act.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("scipy.sparse.csr", "csr_matrix"): sp.csr_matrix,
    ("scipy.sparse._csr", "csr_matrix"): sp.csr_matrix,
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "defaultdict"): collections.defaultdict,
    ("__builtin__", "list"): list,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(f"it asks for {module}.{name}, which a Planetoid file has no use for. Do not open it.")
        return _ALLOWED[module, name]


def read_planetoid(folder: Path, name: str) -> tuple[RawGraph, Split]:
    """Graph and public split (20 per class / 500 / 1,000) from `ind.<name>.*` in `folder`.

    Test rows that the files leave out (CiteSeer's 15 isolated nodes) get zero features and class 0, as elsewhere.
    """
    tx, allx, y, ty, ally, lists = (
        _unpickle(folder / f"ind.{name}.{part}") for part in ("tx", "allx", "y", "ty", "ally", "graph")
    )
    for part, value, kind in (("allx", allx, sp.csr_matrix), ("tx", tx, sp.csr_matrix), ("graph", lists, dict)):
        if not isinstance(value, kind):
            file = folder / f"ind.{name}.{part}"
            raise DataError(f"{file} is not a Planetoid file: it holds a {type(value).__name__}.")
    try:
        test = np.loadtxt(folder / f"ind.{name}.test.index", dtype=np.int64)
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read {folder / f'ind.{name}.test.index'}: {error}") from None
    ranked = np.sort(test)
    total = int(max(ranked[-1] + 1, len(lists)))
    features = sp.lil_matrix((total, allx.shape[1]), dtype=np.float32)
    labels = np.zeros((total, ally.shape[1]))
    features[: allx.shape[0]], labels[: allx.shape[0]] = allx, ally
    # Row k of tx belongs to the node that line k of test.index names.
    features[test], labels[test] = tx, ty
    source = np.repeat(np.fromiter(lists, np.int64), [len(targets) for targets in lists.values()])
    target = np.fromiter((t for targets in lists.values() for t in targets), np.int64)
    adjacency = sp.csr_matrix((np.ones(len(source), np.float32), (source, target)), (total, total))
    classes = labels.shape[1]
    raw = RawGraph(adjacency, features.tocsr(), labels.argmax(1), tuple(str(c) for c in range(classes)))
    train = torch.arange(y.shape[0])
    return raw.undirected(), Split(train, torch.arange(len(train), len(train) + 500), torch.from_numpy(ranked))


def _unpickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file, encoding="latin1").load()
    except (OSError, pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, DataError) as error:
        raise DataError(f"{path} is not a Planetoid file: {error}") from None
