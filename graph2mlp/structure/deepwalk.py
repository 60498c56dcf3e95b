"""Positions from random walks: DeepWalk, the choice of the NOSMOG paper."""

from __future__ import annotations

import numpy as np
import torch

from graph2mlp.data.graph import GraphData
from graph2mlp.data.neighbours import Neighbours, csr_neighbours
from graph2mlp.errors import DataError, require

__all__ = ["deepwalk", "random_walks"]


def random_walks(targets: Neighbours, *, length: int, per_node: int, state: np.random.RandomState) -> np.ndarray:
    """Walks over out-edges, each as likely as its weight -> `[per_node * connected nodes, length]` node positions.

    A dead end of a directed graph ends the walk there: it stays.
    """
    start = np.tile(np.nonzero(targets.count.numpy())[0], per_node)
    state.shuffle(start)
    walks = np.empty((len(start), length), dtype=np.int64)
    walks[:, 0] = start
    for step in range(1, length):
        here = torch.from_numpy(walks[:, step - 1].copy())
        walks[:, step] = targets.sample(here, torch.from_numpy(state.rand(len(here)))).numpy()
    return walks


def deepwalk(
    graph: GraphData,
    *,
    dim: int,
    seed: int,
    length: int = 50,
    per_node: int = 5,
    window: int = 5,
    epochs: int = 3,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Skip-gram with hierarchical softmax over random walks -> (`[N, dim]` float32, `known [N]` bool).

    Perozzi, Al-Rfou, Skiena, "DeepWalk: Online Learning of Social Representations", KDD 2014; trained by gensim in one
    thread, so equal seeds give equal vectors. Nodes without edges are not known.
    """
    word2vec = require("gensim.models", extra="distill", purpose="The structure encoder 'deepwalk'")
    targets = csr_neighbours(graph.edge_index.flip(0), graph.num_nodes, graph.edge_weight)
    if not len(targets.ids):
        raise DataError(
            f"Graph '{graph.name}' has 0 nodes with edges, so there is nowhere to walk. "
            "Use a method that reads features only, such as blend_features."
        )
    walks = random_walks(targets, length=length, per_node=per_node, state=np.random.RandomState(seed))
    model = word2vec.Word2Vec(
        [[str(node) for node in walk] for walk in walks],
        vector_size=dim,
        window=window,
        min_count=0,
        sg=1,
        hs=1,
        negative=0,
        workers=1,
        epochs=epochs,
        seed=seed,
        hashfxn=_stable_hash,
    )
    rows = np.zeros((graph.num_nodes, dim), dtype=np.float32)
    names = model.wv.index_to_key
    rows[[int(name) for name in names]] = model.wv.vectors
    known = np.zeros(graph.num_nodes, dtype=bool)
    known[[int(name) for name in names]] = True
    return torch.from_numpy(rows), torch.from_numpy(known)


def _stable_hash(text: str) -> int:
    """gensim seeds each vector with a hash of its word; Python's own changes from process to process."""
    value = 5381
    for character in text:
        value = (value * 33 + ord(character)) & 0xFFFFFFFF
    return value
