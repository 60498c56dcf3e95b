"""The Twitch graphs of MUSAE: six countries, one set of features, two classes; learn from one, answer in the others.

Rozemberczki, Allen, Sarkar: "Multi-Scale Attributed Node Embedding", Journal of Complex Networks 2021. A class says
whether a streamer uses explicit language.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse as sp

from graph2mlp.data.npz import RawGraph, load_arrays
from graph2mlp.errors import DataError

__all__ = ["COUNTRIES", "read_twitch"]

COUNTRIES = ("DE", "EN", "ES", "FR", "PT", "RU")

_CLASSES = ("plain", "explicit")


def read_twitch(path: Path) -> RawGraph:
    """The graph (edges made undirected) of `features [N, F]`, `edges [E, 2]` and `target [N]`.

    Features are bags of words, 0 or 1 (PyG's own download has 128 dense numbers in their place; both are read).

    Raises:
        DataError: an array is missing or holds something else.
    """
    arrays = load_arrays(path)
    if missing := sorted({"features", "edges", "target"} - arrays.keys()):
        raise DataError(f"{path} lacks {', '.join(missing)}. Expected a file of the Twitch graphs.")
    features, edges, labels = arrays["features"], arrays["edges"], np.ravel(arrays["target"])
    count = len(labels)
    if features.ndim != 2 or len(features) != count or features.dtype.kind not in "uifb":
        raise DataError(f"{path}: expected numbers features [{count}, F], got {features.dtype} {features.shape}.")
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "ui":
        raise DataError(f"{path}: expected whole numbers edges [E, 2], got {edges.dtype} {edges.shape}.")
    if edges.size and not 0 <= int(edges.min()) <= int(edges.max()) < count:
        raise DataError(f"{path}: edges name nodes {edges.min()} to {edges.max()}, but there are {count}.")
    if labels.dtype.kind not in "ui" or not np.isin(labels, (0, 1)).all():
        raise DataError(f"{path}: target must be 0 or 1 for each node.")
    adjacency = sp.csr_matrix((np.ones(len(edges), np.float32), (edges[:, 0], edges[:, 1])), (count, count))
    x = features.astype(np.float32)
    return RawGraph(adjacency, sp.csr_matrix(x), labels.astype(np.int64), _CLASSES).undirected()
