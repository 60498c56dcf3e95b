"""One or several teachers that answer as one: a weighted mean of their answers, of classes calibrated ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph2mlp.data.features import Features
from graph2mlp.data.graph import GraphData
from graph2mlp.data.neighbours import csr_neighbours
from graph2mlp.data.targets import Quantities
from graph2mlp.tasks import CLASSIFICATION, MULTILABEL
from graph2mlp.teachers.frequencies import frequency_shift, sampled_nodes
from graph2mlp.teachers.models import Teacher
from graph2mlp.teachers.stacking import fit_shares, fit_sharpness, fit_weights

__all__ = ["Ensemble"]


class Ensemble(Teacher):
    """`logits = s log(sum_m w_m softmax(b_m logits_m)) + d`, without s and d a mean of the members' probabilities.

    The inverse temperatures `b_m` and weights `w_m` are 1 and 1 / M until `calibrate` fits them on validation nodes,
    the scale `s` and the shift `d [C]` are 1 and 0 until `fit_frequencies` does. Labels and quantities have weights
    alone: of the mean of probabilities, or of the quantities themselves.

    `hidden` is one layer: the members' last hidden layers, each row scaled to length 1, side by side. The cosine of two
    such rows is therefore the mean of the members' cosines, whatever the widths and scales of their layers, and the
    inner product is the sum. Teachers of one layer have no hidden layer, and then neither has their ensemble. A single
    member, there for the sake of `s` and `d`, keeps its hidden layers as they are.

    A request has to fetch as many hops as the member that sees farthest.
    """

    sharpness: Tensor
    weights: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, members: Sequence[Teacher]) -> None:
        first, joined = members[0], "+".join(member.config.name for member in members)
        super().__init__(first.widths[0], first.widths[-1], replace(first.config, name=joined))
        self.members = nn.ModuleList(members)
        self.register_buffer("sharpness", torch.ones(len(members)))
        self.register_buffer("weights", torch.full((len(members),), 1 / len(members)))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(first.widths[-1]))
        self.hops = max(member.hops for member in members)
        self.targets = first.targets  # the members' answers are in the user's units already

    def adjacency(self, graph: GraphData) -> Tensor:
        """All edges and a self-loop at every node, as one CSR matrix whose values are rows: a column for each member.

        One matrix for all, so that a server cuts out a node's surroundings once.
        """
        found = csr_neighbours(*graph.edges(), self_loops=True)
        values = torch.zeros(len(found.ids), len(self.members))
        for number, member in enumerate(self.teachers()):
            own = member.adjacency(graph).values()
            # A member without self-loops gets them with weight 0, which adds nothing to its sums; GAT takes them out.
            places = slice(None) if len(own) == len(found.ids) else found.ids != found.targets()
            values[places, number] = own
        size = (graph.num_nodes, graph.num_nodes, len(self.members))
        return torch.sparse_csr_tensor(found.pointer, found.ids, values, size, check_invariants=False)

    def forward(self, x: Features, adjacency: Tensor, ids: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        answers = [member(x, _own(number, adjacency), ids) for number, member in enumerate(self.teachers())]
        logits = self.combine([z for z, _hidden in answers])
        if len(answers) == 1:
            return logits, answers[0][1]
        last = [F.normalize(hidden[-1], dim=1) for _logits, hidden in answers if hidden]
        return logits, (torch.cat(last, dim=1),) if last else ()

    def logits(self, x: Features, adjacency: Tensor, ids: Tensor | None = None) -> Tensor:
        """Without the members' hidden layers side by side, which take longer than the rest."""
        members = enumerate(self.teachers())
        return self.combine([member.logits(x, _own(number, adjacency), ids) for number, member in members])

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        """The common logits `[n, C]` of the members' `logits`, each `[n, C]`."""
        return self.scale * self.targets.mean(self._sharpened(logits), self.weights) + self.shift

    @torch.no_grad()
    def calibrate(self, logits: Sequence[Tensor], y: Tensor) -> None:
        """Fit temperatures and weights to the members' `logits`, each `[n, C]`, at validation nodes with truth `y`."""
        if self.targets.task is CLASSIFICATION:
            self.sharpness.copy_(torch.tensor([fit_sharpness(one, y) for one in logits]))
            truth = F.softmax(self._sharpened(logits), dim=2).gather(2, y.expand(len(logits), -1).unsqueeze(2))
            self.weights.copy_(fit_weights(truth.squeeze(2)))
            return
        said = torch.stack(list(logits))
        if self.targets.task is MULTILABEL:
            self.weights.copy_(fit_weights(torch.where(y > 0, said, -said).sigmoid().flatten(1)))
        else:
            self.weights.copy_(fit_shares(((said - y) / cast(Quantities, self.targets).spread).flatten(1)))

    @torch.no_grad()
    def fit_frequencies(self, logits: Sequence[Tensor], y: Tensor, val: Tensor, labelled: Tensor) -> None:
        """Fit `s` and `d`, so that classes are taken to be as frequent as among all nodes (`frequency_shift`).

        The members' `logits`, each `[N, C]`, classes `y [N]` at the nodes `labelled`, and among them the nodes `val`.
        """
        asked, each = sampled_nodes(len(y), labelled)
        places = (torch.searchsorted(asked, ids) for ids in (val, labelled))
        scale, shift = frequency_shift(self.combine([one[asked] for one in logits]), y[asked], *places, each=each)
        self.scale.fill_(scale)
        self.shift.copy_(shift)

    def _sharpened(self, logits: Sequence[Tensor]) -> Tensor:
        return self.sharpness.view(-1, 1, 1) * torch.stack(list(logits))

    def teachers(self) -> list[Teacher]:
        """The members, in the order of the name."""
        return [cast(Teacher, member) for member in self.members]


def _own(number: int, adjacency: Tensor) -> Tensor:
    """The member's part of the common matrix, in the form its own `adjacency` has."""
    pointer, neighbours = adjacency.crow_indices(), adjacency.col_indices()
    weights = adjacency.values()[:, number].contiguous()
    return torch.sparse_csr_tensor(pointer, neighbours, weights, adjacency.shape[:2], check_invariants=False)
