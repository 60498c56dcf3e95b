"""What the teacher says of a node's surroundings, as further columns of the structure table."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graph2mlp.data.graph import GraphData
from graph2mlp.structure.adjacency import normalised_adjacency
from graph2mlp.structure.table import StructureTable
from graph2mlp.structure.tall import column_blocks

__all__ = ["with_answers"]

_COLUMNS = 20
"""Columns that are averaged at once."""
_EXTRA = 10
"""Further directions of the search where there are more answers than columns."""


def with_answers(
    table: StructureTable, graph: GraphData, logits: Sequence[Tensor], *, most: int, seed: int
) -> StructureTable:
    """`table [N, P]` with the teachers' answers about the surroundings of each node beside it, `[N, P + min(C, most)]`.

    `q_i = sum_j a_ij p_j / sum_j a_ij` over node i and its neighbours, `a_ij = w_ij / sqrt(d_i d_j)` as in a GCN, and
    p the mean of the teachers' answers: probabilities of classes and labels, quantities in deviations of the training
    nodes. Ours; what it gives and takes is measured in `docs/accuracy.md`. A new node gets the mean of its
    neighbours' rows, as ever, and so hears of what is two hops away.

    `logits`, each `[N_observed, C]`, speak of the nodes of the observed `graph`. More than `most` answers are turned
    onto their leading `most` directions (randomised singular value decomposition). A node the table does not know stays
    unknown, and its row zero.

    Raises:
        DataError: fewer than 3 nodes have edges.
    """
    said = _around(graph, logits)
    if said.size(1) > most:
        said = said @ _leading_directions(said, most, seed)
    rows = torch.zeros(len(table.rows), table.width + said.size(1))
    rows[:, : table.width] = table.rows
    rows[graph.node_ids, table.width :] = said
    rows[~table.known] = 0
    return StructureTable(f"{table.encoder}+answers", rows, table.known)


def _around(graph: GraphData, logits: Sequence[Tensor]) -> Tensor:
    """The mean answer of the teachers, averaged over each node and its neighbours, `[N_observed, C]`."""
    joined = logits[0]
    if len(logits) > 1:
        joined = graph.targets.mean(torch.stack(list(logits)), torch.full((len(logits),), 1 / len(logits)))
    said = graph.targets.answers(joined)
    adjacency, _connected = normalised_adjacency(graph, self_loops=True)
    total = (adjacency @ torch.ones(graph.num_nodes, 1)).clamp(min=torch.finfo().tiny)  # no edges, no weight
    for columns in column_blocks(said, _COLUMNS):
        said[:, columns] = (adjacency @ said[:, columns]) / total
    return said


def _leading_directions(rows: Tensor, count: int, seed: int) -> Tensor:
    """The leading right singular vectors of `rows [N, C]` as columns `[C, count]`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, _, directions = torch.svd_lowrank(rows, q=min(count + _EXTRA, *rows.shape))
    return directions[:, :count]
