"""`digits`: a real graph that needs no network and no download."""

from __future__ import annotations

import numpy as np
import torch

from graph2mlp.data.graph import GraphData
from graph2mlp.data.splits import per_class_split
from graph2mlp.errors import require

__all__ = ["digits"]

_NEIGHBOURS = 5


def digits(seed: int) -> GraphData:
    """1,797 handwritten digits: features are the left half of each image, edges join similar right halves.

    What the features lack is in the edges, so a plain MLP is clearly worse than a graph network. `x [1797, 32]` in
    [0, 1]; each image is joined, both ways, to the 5 images with the nearest right half; 20 labels per class,
    300 validation nodes. Source: scikit-learn's copy of the UCI optical digits (test part).
    """
    datasets = require("sklearn.datasets", extra="distill", purpose="The built-in graph 'digits'")
    bunch = datasets.load_digits()
    left = (bunch.images[:, :, :4].reshape(-1, 32) / 16.0).astype(np.float32)
    near = _nearest(bunch.images[:, :, 4:].reshape(-1, 32), _NEIGHBOURS)
    pairs = np.stack([np.repeat(np.arange(len(near)), _NEIGHBOURS), near.ravel()])
    both = np.unique(np.concatenate([pairs, pairs[::-1]], axis=1), axis=1)
    labels = bunch.target.astype(np.int64)
    return GraphData(
        name="digits",
        x=torch.from_numpy(np.ascontiguousarray(left)),
        edge_index=torch.from_numpy(both.astype(np.int64)),
        y=torch.from_numpy(labels),
        split=per_class_split(labels, seed, train=20, val_total=300),
        class_names=tuple(str(name) for name in bunch.target_names),
    )


def _nearest(points: np.ndarray, count: int) -> np.ndarray:
    """The `count` nearest other rows of each row -> `[N, count]`; of equally near ones those that come first.

    Pixels are whole numbers, so squared distances are exact and many are equal; a library's choice among equals depends
    on its threads, and would make another graph in another process.
    """
    squares = (points**2).sum(1)
    rows = []
    for start in range(0, len(points), 256):
        part = points[start : start + 256]
        distance = squares[start : start + 256, None] + squares - 2 * part @ points.T
        distance[np.arange(len(part)), start + np.arange(len(part))] = np.inf
        rows.append(np.argsort(distance, axis=1, kind="stable")[:, :count])
    return np.concatenate(rows)
