"""GSDN: no teacher at all; a node and its neighbourhood teach each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph2mlp.data.features import FeatureLinear
from graph2mlp.errors import ConfigError
from graph2mlp.kernels.pgd_perturb import kept_statistics
from graph2mlp.losses.base import LossTerms
from graph2mlp.methods.base import Method, Settings, Stage, Team
from graph2mlp.students.base import Student, StudentSpec
from graph2mlp.students.norm import BatchNorm
from graph2mlp.tasks import CLASSIFICATION
from graph2mlp.training.batches import EdgeBatch, EdgeBatches
from graph2mlp.training.players import Player, adam

__all__ = ["GSDN", "pull", "push"]


@dataclass(frozen=True, kw_only=True)
class GSDN(Method):
    """An MLP with two heads, y (deployed) and z (training only), without any teacher.

    For an edge (s, t) and a random node n, with `m_t = b x_t + (1 - b) x_s`, `b = rho + (1 - rho) r(x_t, x_s)`, r a
    small trained network, and m_s likewise:

    `L = pull - push + alpha * CE`, `pull = MSE(y(x_s), z(m_t)) + MSE(y(x_t), z(m_s))` on logits,
    `push = MSE(softmax y(x_s), softmax z(x_n)) + MSE(softmax y(x_t), softmax z(x_n))`, and
    `CE = CE(y(x_s), y_s) + CE(z(m_t), y_s)` over labelled s: labels spread one hop.

    Shapes: `x [E, F]`, logits `[E, C]`. Mixing happens behind the first layer, which is exact because it is affine.
    The reference walks all edges in every epoch and weighs classes by how often they occur at their ends; here each
    node meets one random neighbour per epoch, and every batch holds the labelled nodes: a third of the time. Its
    networks have another block of norm, LeakyReLU and layer, 1,024 hidden units, and a mixer as wide.
    """

    paper: ClassVar[str] = (
        "Wu et al.: Teaching Yourself: Graph Self-Distillation on Neighborhood for Node Classification, "
        "arXiv 2210.02097; A Teacher-Free Graph Knowledge Distillation Framework with Dual Self-Distillation, TKDE 2024"
    )
    needs_teacher: ClassVar[bool] = False
    soft_labels: ClassVar[bool] = False
    divisible: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = (CLASSIFICATION.name,)
    defaults: ClassVar[Settings] = {"student": {"hidden": 512, "dropout": 0.5, "norm": "batch"}}

    rho: float = 0.7
    """Least share of the node itself in a mix; 1 means no mixing."""
    alpha: float = 0.8
    """Weight of the labels."""
    mixer_lr: float = 1e-4
    """Adam step size of the mixing network."""
    mixer_hidden: int = 64
    """Width of the mixing network."""

    def __post_init__(self) -> None:
        if not 0 < self.rho <= 1 or not 0 <= self.alpha < math.inf:
            raise ConfigError(f"gsdn needs rho in (0, 1] and alpha >= 0; got {self.rho}, {self.alpha}")
        if self.mixer_hidden < 1 or not 0 < self.mixer_lr < math.inf:
            raise ConfigError(
                f"gsdn needs mixer_hidden >= 1 and a finite mixer_lr > 0; got {self.mixer_hidden}, {self.mixer_lr}"
            )

    def team(self, student: Student, stage: Stage, generator: torch.Generator, terms: LossTerms) -> Team:
        spec = student.spec
        z_head, mixer = _Head(spec).to(stage.device), _Mixer(spec.features, self.mixer_hidden).to(stage.device)
        objective = _SelfDistillation(self, student, z_head, mixer)
        trained = nn.ModuleDict({"student": student, "z": z_head})
        optimizers = [
            adam(trained, lr=stage.train.lr, weight_decay=stage.train.weight_decay),
            adam(mixer, lr=self.mixer_lr, weight_decay=stage.train.weight_decay),
        ]
        trained_modules = {"student": student, "z": z_head, "mixer": mixer}
        player: Player[EdgeBatch] = Player("student", objective, optimizers, trained_modules)
        return Team([player], EdgeBatches(stage, generator))


def pull(y_source: Tensor, z_target_mix: Tensor, y_target: Tensor, z_source_mix: Tensor) -> Tensor:
    """`MSE(y(x_s), z(m_t)) + MSE(y(x_t), z(m_s))` on logits, each `[E, C]`, mean over rows and classes."""
    return F.mse_loss(y_source, z_target_mix) + F.mse_loss(y_target, z_source_mix)


def push(y_source: Tensor, y_target: Tensor, z_negative: Tensor) -> Tensor:
    """Mean squared distance of both ends' probabilities to a random node's; at most 4 / C."""
    negative = z_negative.softmax(-1)
    return F.mse_loss(y_source.softmax(-1), negative) + F.mse_loss(y_target.softmax(-1), negative)


class _Head(nn.Module):
    """The z-head: the same form as the student's last block, on the same hidden layer."""

    def __init__(self, spec: StudentSpec) -> None:
        super().__init__()
        self.norm = BatchNorm(spec.hidden) if spec.norm == "batch" else nn.Identity()
        self.out = nn.Linear(spec.hidden, spec.classes)
        self.dropout = spec.dropout

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.out(F.dropout(F.relu(self.norm(hidden)), self.dropout, self.training))
        return out


class _Mixer(nn.Module):
    """`r(a, b) = sigmoid(w . [BN(W a) || BN(W b)])` for rows that are given once and paired by index."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.encode = FeatureLinear(features, hidden)
        self.norm = BatchNorm(hidden)
        self.score = nn.Linear(2 * hidden, 1)

    def forward(self, encoded: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return torch.sigmoid(self.score(torch.cat([encoded[first], encoded[second]], -1)))


class _SelfDistillation:
    """The objective of one batch of edges."""

    def __init__(self, method: GSDN, student: Student, z_head: _Head, mixer: _Mixer) -> None:
        self.method, self.student, self.z_head, self.mixer = method, student, z_head, mixer

    def __call__(self, batch: EdgeBatch) -> Mapping[str, Tensor]:
        embedded = self.student.embed(batch.nodes.inputs)
        encoded = self.mixer.norm(self.mixer.encode(batch.nodes.inputs.features))
        source, target = batch.source, batch.target
        # One pass for the plain rows and one for the mixes: the statistics that y is deployed with never see a mix.
        plain = torch.cat([embedded[source], embedded[target]])
        mixes = [self._mix(embedded, encoded, target, source), self._mix(embedded, encoded, source, target)]
        y_s, y_t = self.student.classify(self.student.trunk(plain)[-1]).chunk(2)
        with kept_statistics(self.student):
            mixed = self.student.trunk(torch.cat([*mixes, embedded[batch.negative]]))[-1]
        z = self.z_head(mixed)
        z_t, z_s, z_n = z.chunk(3)
        last = slice(len(y_s) - batch.labelled, None)
        labels = batch.nodes.labels[batch.source[last]]
        return {
            "pull": pull(y_s, z_t, y_t, z_s),
            "push": -push(y_s, y_t, z_n),
            "labels": self.method.alpha * (F.cross_entropy(y_s[last], labels) + F.cross_entropy(z_t[last], labels)),
        }

    def _mix(self, embedded: Tensor, encoded: Tensor, own: Tensor, other: Tensor) -> Tensor:
        share: Tensor = self.method.rho + (1 - self.method.rho) * self.mixer(encoded, own, other)
        return share * embedded[own] + (1 - share) * embedded[other]
