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
    neighbours = require("sklearn.neighbors", extra="distill", purpose="The built-in graph 'digits'")
    bunch = datasets.load_digits()
    images = (bunch.images / 16.0).astype(np.float32)
    left, right = images[:, :, :4].reshape(-1, 32), images[:, :, 4:].reshape(-1, 32)
    near = neighbours.NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(right).kneighbors_graph().tocoo()
    pairs = np.stack([near.row, near.col])
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
