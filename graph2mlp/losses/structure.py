"""Losses that compare how similar nodes are: to their neighbours (LSP), or to all others (GSP)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from graph2mlp.kernels.functional import gsp, lsp
from graph2mlp.losses.base import Batch, LossTerm, mean_over_teachers
from graph2mlp.students.base import StudentOutput

__all__ = ["GlobalStructure", "LocalStructure"]


class LocalStructure(LossTerm):
    """`mean_i KL( softmax_j K(h_i, h_j) || softmax_j K(s_i, s_j) )`, j over the sampled in-neighbours of i (LSP).

    `h` and `s` are the last hidden layers of teacher and student, before the activation; widths may differ. Nodes
    without neighbours do not count. See `graph2mlp.kernels.functional.lsp`.
    """

    needs = frozenset({"teacher.hidden", "edges"})

    def __init__(self, kernel: Literal["cosine", "poly", "l2", "rbf", "laplace"] = "cosine") -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, batch: Batch, out: StudentOutput) -> Tensor:
        edges = batch.edges
        assert edges is not None  # promised by `needs`
        return mean_over_teachers(batch, lambda hidden: lsp(out.hidden[-1], hidden, edges, kernel=self.kernel))


class GlobalStructure(LossTerm):
    """`mean_ij (K(h_i, h_j) - K(s_i, s_j))^2` over all pairs of the batch (GSP), hidden layers as in `LocalStructure`.

    The paper projects both sides by trained heads, which agree perfectly when both are constant; here the similarities
    of the hidden layers themselves are compared, which needs no heads and cannot collapse.
    """

    needs = frozenset({"teacher.hidden"})

    def __init__(self, kernel: Literal["cosine", "poly", "l2", "rbf"] = "cosine") -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, batch: Batch, out: StudentOutput) -> Tensor:
        return mean_over_teachers(batch, lambda hidden: gsp(out.hidden[-1], hidden, kernel=self.kernel))
