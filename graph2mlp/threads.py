"""How many threads torch uses: one where more would only wait for each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from graph2mlp.data.graph import GraphData

__all__ = ["torch_threads", "training_threads"]

_SMALL = 2_000_000
"""Numbers in a graph's features and edges below which a step is too short to share."""


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Torch on so many threads, for the length of a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def training_threads(graph: GraphData) -> int:
    """One for a small graph, torch's own choice for a large one.

    A training step on a small graph takes about a millisecond, in dozens of operations; threads that meet after each of
    them gain nothing on an idle machine and made a run four times slower on a busy one.
    """
    stored = graph.x.values().numel() if graph.is_sparse else graph.x.numel()
    return 1 if stored + graph.num_edges < _SMALL else torch.get_num_threads()
