"""Objectives of one student: the weighted terms, and the same terms under an adversary's change of the input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graph2mlp.data.targets import Classes, Targets, unknown_like
from graph2mlp.errors import ConfigError, MethodError
from graph2mlp.kernels.pgd_perturb import kept_statistics, signed_step
from graph2mlp.losses.base import Batch, LossTerms, Partners, TeacherRows
from graph2mlp.methods.base import Stage, Team
from graph2mlp.students.base import Student, StudentOutput
from graph2mlp.training import parallel
from graph2mlp.training.batches import NodeBatches
from graph2mlp.training.players import Player, adam

__all__ = ["Adversary", "DistillObjective", "single_player"]


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """Feature noise that hurts most: `max_delta l(f(x + delta))`, every coordinate within `eps`.

    `steps` signed-gradient steps of `step_size * eps`, clipped to the box (Madry et al., ICLR 2018). One step of full
    size is the fast gradient sign method (Goodfellow et al., ICLR 2015). Only a random share `rows` of each batch is
    attacked, which costs that share of the time.
    """

    eps: float
    steps: int = 1
    step_size: float = 1.0
    rows: float = 1.0
    random_start: bool = False

    def __post_init__(self) -> None:
        positive = 0 < self.eps < math.inf and 0 < self.step_size < math.inf
        if not (positive and self.steps >= 1 and 0 < self.rows <= 1):
            raise ConfigError(
                "An adversary needs finite eps and step_size > 0, steps >= 1 and rows in (0, 1]; "
                f"got {self.eps}, {self.step_size}, {self.steps}, {self.rows}."
            )

    def perturb(self, student: Student, embedded: Tensor, loss: _LossOf) -> Tensor:
        """What the worst noise adds behind the first layer, `[B, D]`, with a gradient for that layer's weights.

        The first layer is affine, so the gradient for the input is the gradient behind it times the weights, and noise
        `delta` on the input is `delta W` behind it: neither needs another pass over the (sparse) features. Weights
        get no gradient from the search itself.
        """
        weight = student.feature_weight
        if student.structure_weight is not None:
            weight = torch.cat([weight, student.structure_weight])  # [F + P, D]
        fixed, start = weight.detach(), embedded.detach()
        delta = torch.zeros(len(start), len(weight), device=start.device)
        if self.random_start:
            delta.uniform_(-self.eps, self.eps)
        moved = start + delta @ fixed if self.random_start else start
        for step in range(self.steps):
            point = moved.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(parallel.head(student, point)), point)
            gradient = parallel.whole_gradient(gradient)
            signed_step(delta, gradient @ fixed.T, alpha=self.step_size * self.eps, eps=self.eps)
            if step + 1 < self.steps:
                moved = start + delta @ fixed
        return delta @ weight


class _LossOf:
    """The label terms on a fixed batch, as a function of the output."""

    def __init__(self, terms: LossTerms, batch: Batch) -> None:
        self.terms, self.batch = terms, batch

    def __call__(self, out: StudentOutput) -> Tensor:
        values: list[Tensor] = [weight * term(self.batch, out) for weight, term in self.terms.values()]
        return sum(values[1:], start=values[0])


class DistillObjective:
    """`sum_k w_k term_k(batch, student(batch))`, plus `weight` times the same under an adversary if there is one.

    Only terms on the logits are attacked: the others compare hidden layers, which has no worst case of its own.
    `mixing` is the weight of the soft labels between a node and a neighbour (see `_mixed`), mixed as `targets` say.
    """

    def __init__(
        self,
        student: Student,
        terms: LossTerms,
        *,
        adversary: Adversary | None = None,
        weight: float = 0.0,
        mixing: float = 0.0,
        targets: Targets | None = None,
    ) -> None:
        if not terms:
            raise MethodError("There is nothing to learn from: every loss term has weight 0.")
        self.student, self.terms = student, terms
        self.adversary, self.weight, self.mixing = adversary, weight, mixing
        self.targets = targets or Classes()
        self.heads = nn.ModuleDict({name: term for name, (_, term) in terms.items()})

    def __call__(self, batch: Batch) -> Mapping[str, Tensor]:
        embedded, out = self.answer(batch)
        own = (batch, out) if batch.own is None else (batch.first(batch.own), out.first(batch.own))
        values = {
            name: weight * (term(batch, out) if "edges" in term.needs else term(*own))
            for name, (weight, term) in self.terms.items()
        }
        if self.adversary is not None:
            values["adversarial"] = self.weight * self._attacked(batch, embedded, self.adversary)
        if batch.partners is not None and self.mixing:
            values["mixed"] = self.mixing * self._mixed(batch, embedded, batch.partners)
        return values

    def answer(self, batch: Batch) -> tuple[Tensor, StudentOutput]:
        """The first layer `[B, D]` of the batch's rows, and what the student makes of it."""
        embedded = parallel.embed(self.student, batch.inputs)
        return embedded, parallel.head(self.student, embedded)

    def _attacked(self, batch: Batch, embedded: Tensor, adversary: Adversary) -> Tensor:
        # Batches come in random order already, so the first rows are a random share.
        count = max(1, round((batch.own or len(batch.ids)) * adversary.rows))
        loss = _LossOf(self._label_terms(), batch.first(count))
        embedded = embedded[:count]
        with kept_statistics(self.student):
            return loss(parallel.head(self.student, embedded + adversary.perturb(self.student, embedded, loss)))

    def _mixed(self, batch: Batch, embedded: Tensor, partners: Partners) -> Tensor:
        """Soft labels of points between rows i and neighbours j: `l(f(a x_i + (1 - a) x_j), a p_i + (1 - a) p_j)`.

        The first layer is affine, so inputs are mixed behind it, where rows of any kind, sparse ones too, are `[B, D]`.
        """
        share = partners.share
        points = torch.lerp(parallel.embed(self.student, partners.inputs), embedded[: len(share)], share)
        pairs = zip(batch.teachers, partners.teachers, strict=True)
        teachers = tuple(
            TeacherRows(self.targets.mixed(one.logits[: len(share)], other.logits, share), None) for one, other in pairs
        )
        labels = unknown_like(batch.labels, len(share))
        between = Batch(batch.ids[: len(share)], partners.inputs, labels, teachers)
        terms = {name: pair for name, pair in self.terms.items() if pair[1].needs == {"teacher.logits"}}
        with kept_statistics(self.student):
            return _LossOf(terms, between)(parallel.head(self.student, points))

    def _label_terms(self) -> LossTerms:
        return {name: pair for name, pair in self.terms.items() if "teacher.hidden" not in pair[1].needs}


def single_player(student: Student, stage: Stage, generator: torch.Generator, objective: DistillObjective) -> Team:
    """Ordinary training: one optimiser for the student and the heads of its loss terms, over batches of nodes."""
    needs = frozenset[str]().union(*(term.needs for _, term in objective.terms.values()))
    _check_needs(needs, stage)
    everything = nn.ModuleDict({"student": student, "heads": objective.heads}).to(stage.device)
    optimizer = adam(everything, lr=stage.train.lr, weight_decay=stage.train.weight_decay)
    modules: dict[str, nn.Module] = {"student": student, "heads": objective.heads}
    summed = parallel.gradient_sum(everything)
    player: Player[Batch] = Player("student", objective, [optimizer], modules, after_backward=summed)
    fanout = stage.loss.fanout if "edges" in needs else 0
    every, partners = needs != {"labels"}, objective.mixing > 0
    return Team([player], NodeBatches(stage, generator, every=every, fanout=fanout, partners=partners))


def _check_needs(needs: frozenset[str], stage: Stage) -> None:
    if any(need.startswith("teacher") for need in needs) and not stage.teachers:
        raise MethodError("This method learns from a teacher, but there is none. Name one with --teacher.")
    if "teacher.hidden" in needs and not all(teacher.hidden for teacher in stage.teachers):
        name = next(teacher.name for teacher in stage.teachers if not teacher.hidden)
        raise MethodError(
            f"This method compares hidden layers, but the knowledge of teacher '{name}' holds logits only. "
            "Extract it again with hidden layers, or use a method that needs logits only, such as glnn."
        )
