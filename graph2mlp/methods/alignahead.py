"""Alignahead: a group of networks without a teacher; each layer copies a layer of another depth of its peers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph2mlp.errors import ConfigError
from graph2mlp.kernels import NeighbourIndex
from graph2mlp.kernels.functional import lsp, soft_label_kd
from graph2mlp.losses.base import Batch, LossTerms
from graph2mlp.losses.labels import HardLabels
from graph2mlp.methods.base import Method, Settings, Stage, Team
from graph2mlp.students.base import Student, StudentOutput, StudentSpec
from graph2mlp.tasks import CLASSIFICATION
from graph2mlp.training.batches import NodeBatches
from graph2mlp.training.players import Player, adam

__all__ = ["Alignahead", "align_features", "align_structure"]

Kernel: TypeAlias = Literal["cosine", "poly", "l2", "rbf", "laplace"]
Layers: TypeAlias = Sequence[Tensor]
"""Hidden layers of one peer, before the activation, first to last, each `[B, D]`."""


@dataclass(frozen=True, kw_only=True)
class Alignahead(Method):
    """An MLP in a group of networks that learn together and teach one another, without a trained teacher.

    For each peer k, over the other peers k' as they are now (no gradient), with H hidden layers `h_0 .. h_{H-1}`:

    `L = CE(z, y) + structure * S + feature * F + auxiliary * A + soft * mean_k' KL(p^k' || p^k)`,
    `S = mean_k' sum_l mean_i KL( LS_i(h^k'_{(l + offset) mod H}) || LS_i(h^k_l) )`,
    `F = mean_k' sum_l mean_i ( 1 - cos(h^k_{l,i}, h^k'_{(l + offset) mod H,i}) )` and `A = sum_l CE(W_l relu(h_l), y)`,

    where `LS_i` is the softmax of node i's similarities to its in-neighbours (at most `loss.fanout` of them, drawn anew
    at every step), and the heads W exist in training only. Shapes: `x [B, F]`, hidden layers `[B, D]`, logits `[B, C]`.

    S alone is Alignahead (its released code has offset -1 and kernel laplace), with F and A it is Alignahead++, rebuilt
    from its abstract. Soft labels are our addition: an
    MLP that never meets a GNN's predictions gained nothing from layers alone. The first MLP is deployed. The reference
    gives each peer a pass over all data in turn; here they take turns at every batch, and each batch also holds
    labelled nodes. Where those are few (200 of 13,752 on Amazon Computers), a batch of 512 would else have seven,
    drowned by soft labels of networks that know nothing yet, and the group would agree on one class.

    Each GNN runs over the whole observed graph K times per batch of a group of K, so an epoch costs O(K N (N + E) / B)
    for N nodes and E edges: batches are large. Beside 512 rows the 2,048 of the default cost half the time on Cora and
    CiteSeer, for 0.4 and 0.7 points on validation (six seeds, no more than chance).
    """

    whole_graph_steps: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "Guo, Chen, Wang: Alignahead: Online Cross-Layer Knowledge Extraction on Graph Neural Networks, IJCNN 2022; "
        "Online Cross-Layer Knowledge Distillation on Graph Neural Networks with Deep Supervision, arXiv 2210.13743"
    )
    needs_teacher: ClassVar[bool] = False
    divisible: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = (CLASSIFICATION.name,)
    # Three hidden layers: with fewer, the two offsets are the same.
    defaults: ClassVar[Settings] = {"student": {"layers": 4}, "train": {"batch_size": 2048}}

    peers: int = 2
    """Networks in the group, GNNs included."""
    gnn_peers: int = 1
    """How many of them are GNNs, which learn along and are then dropped."""
    gnn: Literal["gcn", "sage"] = "gcn"
    """What the GNN peers are: as deep and wide as the student, and at its step size; weight decay and dropout of the
    input are those of the package's own teachers."""
    offset: Literal[-1, 0, 1] = 1
    """A layer copies the peer's next layer (1), the one before (-1, the released code) or the same (0), cyclically."""
    structure: float = 1.0
    """Weight of the neighbourhood term."""
    feature: float = 1.0
    """Weight of the cosine of the layers themselves; 0 in Alignahead without ++."""
    auxiliary: float = 0.3
    """Weight of a classifier on each hidden layer; 0 in Alignahead without ++."""
    soft: float = 1.0
    """Weight of the peers' soft labels; 0 in both papers."""
    kernel: Kernel = "cosine"
    """Similarity of two nodes: cosine, its square, minus the distance, or an exponential of it."""

    def __post_init__(self) -> None:
        if self.peers < 2 or not 0 <= self.gnn_peers < self.peers:
            raise ConfigError(
                "alignahead needs peers of at least 2, and gnn_peers of at least 0 that leave one MLP to deploy "
                f"(got {self.peers}, {self.gnn_peers})"
            )
        for name in ("structure", "feature", "auxiliary", "soft"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"alignahead.{name} must be at least 0 and finite (got {getattr(self, name)})")
        if not self.structure + self.feature + self.soft:
            raise ConfigError("alignahead needs a weight above 0 for structure, feature or soft; without it is mlp.")

    def team(self, student: Student, stage: Stage, generator: torch.Generator, terms: LossTerms) -> Team:
        more = [self.student(student.spec) for _ in range(self.peers - self.gnn_peers - 1)]
        group = [_Peer(mlp, stage.train.weight_decay) for mlp in (student, *more)]
        group += [_GNNPeer(self.gnn, student.spec, stage) for _ in range(self.gnn_peers)]
        players: list[Player[Batch]] = []
        for number, peer in enumerate(group):
            others = [other for other in group if other is not peer]
            heads = _auxiliary_heads(student.spec) if self.auxiliary else nn.ModuleList()
            modules = {"model": peer.model, "heads": heads}
            optimizer = adam(nn.ModuleDict(modules).to(stage.device), lr=stage.train.lr, weight_decay=peer.weight_decay)
            players.append(Player(f"peer{number}", _Learning(self, peer, others, heads), [optimizer], modules))
        fanout = stage.loss.fanout if self.structure else 0
        return Team(players, NodeBatches(stage, generator, every=True, labelled=True, fanout=fanout))


def align_structure(
    own: Layers, peers: Sequence[Layers], edges: NeighbourIndex, *, offset: int, kernel: Kernel = "cosine"
) -> Tensor:
    """`mean_k' sum_l mean_i KL( LS_i(h^k'_src(l)) || LS_i(h_l) )`, `src(l) = (l + offset) mod H`; see `Alignahead`."""
    losses = [lsp(mine, target, edges, kernel=kernel) for mine, target in _pairs(own, peers, offset)]
    return sum(losses[1:], losses[0]) / len(peers)


def align_features(own: Layers, peers: Sequence[Layers], *, offset: int) -> Tensor:
    """`mean_k' sum_l mean_i ( 1 - cos(h_{l,i}, h^k'_{src(l),i}) )`; peers are as wide as the learner."""
    losses = [1 - F.cosine_similarity(mine, target, dim=-1).mean() for mine, target in _pairs(own, peers, offset)]
    return sum(losses[1:], losses[0]) / len(peers)


def _pairs(own: Layers, peers: Sequence[Layers], offset: int) -> list[tuple[Tensor, Tensor]]:
    """Each layer with the layer it copies, for every peer; the peer's side has no gradient."""
    return [
        (mine, layers[(number + offset) % len(layers)].detach()) for layers in peers for number, mine in enumerate(own)
    ]


class _Peer:
    """A network of the group: the rows of a batch in, logits and hidden layers out."""

    def __init__(self, model: nn.Module, weight_decay: float) -> None:
        self.model, self.weight_decay = model, weight_decay

    def __call__(self, batch: Batch) -> StudentOutput:
        out: StudentOutput = self.model(batch.inputs)
        return out

    @torch.no_grad()
    def teach(self, batch: Batch) -> StudentOutput:
        """What the others learn from: without noise, and leaving the statistics of batch normalisation alone."""
        self.model.eval()
        out = self(batch)
        self.model.train()
        return out


class _GNNPeer(_Peer):
    """A GNN as deep and wide as the student; it runs over the whole observed graph and reads out the batch."""

    def __init__(self, name: str, spec: StudentSpec, stage: Stage) -> None:
        from graph2mlp.teachers.config import TeacherConfig
        from graph2mlp.teachers.models import build_teacher  # loads PyG, which a group of MLPs does without

        config = TeacherConfig(
            name=name, aggregator="mean", layers=spec.layers, hidden=spec.hidden, dropout=spec.dropout
        )
        model = build_teacher(spec.features, spec.classes, config)
        super().__init__(model, config.weight_decay)
        self.features = stage.graph.features().to(stage.device)
        self.adjacency = model.adjacency(stage.graph).to(stage.device)

    def __call__(self, batch: Batch) -> StudentOutput:
        logits, hidden = self.model(self.features, self.adjacency)
        return StudentOutput(logits[batch.ids], tuple(layer[batch.ids] for layer in hidden))


class _Learning:
    """The objective of one peer."""

    def __init__(self, method: Alignahead, peer: _Peer, others: list[_Peer], heads: nn.ModuleList) -> None:
        self.method, self.peer, self.others, self.heads = method, peer, others, heads
        self.labels = HardLabels()

    def __call__(self, batch: Batch) -> Mapping[str, Tensor]:
        method, out, taught = self.method, self.peer(batch), [other.teach(batch) for other in self.others]
        terms: dict[str, Tensor] = {}
        if batch.edges is not None:
            hidden = [each.hidden for each in taught]
            loss = align_structure(out.hidden, hidden, batch.edges, offset=method.offset, kernel=method.kernel)
            terms["structure"] = method.structure * loss
        own = batch.own
        if own is not None:  # the sampled neighbours are there for the structure only
            batch, out, taught = batch.first(own), out.first(own), [each.first(own) for each in taught]
        terms["labels"] = self.labels(batch, out)
        if method.auxiliary:
            logits = [head(F.relu(layer)) for head, layer in zip(self.heads, out.hidden, strict=True)]
            losses = [self.labels(batch, StudentOutput(each, ())) for each in logits]
            terms["auxiliary"] = method.auxiliary * sum(losses[1:], losses[0])
        if method.feature:
            loss = align_features(out.hidden, [each.hidden for each in taught], offset=method.offset)
            terms["feature"] = method.feature * loss
        if method.soft:
            losses = [soft_label_kd(out.logits, each.logits, tau=1.0) for each in taught]
            terms["soft"] = method.soft * sum(losses[1:], losses[0]) / len(losses)
        return terms


def _auxiliary_heads(spec: StudentSpec) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(spec.hidden, spec.classes) for _ in range(spec.layers - 1))
