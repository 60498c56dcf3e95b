"""NOSMOG: soft labels, positions, similarity between nodes, and robustness to feature noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from graph2mlp.errors import ConfigError
from graph2mlp.losses.base import LossTerms
from graph2mlp.losses.labels import SoftLabels
from graph2mlp.losses.similarity import SimilarityDistillation
from graph2mlp.methods.base import Method, Settings, Stage, Team
from graph2mlp.methods.glnn import label_terms
from graph2mlp.students.base import Student, StudentSpec
from graph2mlp.training.objective import Adversary, DistillObjective, single_player

__all__ = ["NOSMOG"]


@dataclass(frozen=True, kw_only=True)
class NOSMOG(Method):
    """GLNN plus structure: the student reads `[x || q]`, with q a position vector of the node.

    `L = hard * CE + soft * KL + adversarial * l(f([x || q] + delta*)) + similarity * L_rsd`, where `l` is the label
    part, `L_rsd = mean_{i,j} (<h_i, h_j> - <u_i, u_j>)^2` over all pairs of a batch (`h` the teacher's last hidden
    layer, `u` a projection of the student's), and `delta*` the worst noise with `|delta| <= eps` per coordinate.

    Shapes: `x [B, F]`, `q [B, P]`, logits `[B, C]`. The paper searches `delta*` in five projected steps on dense
    inputs (`steps=5, step_size=0.25, rows=1, random_start=true`), takes DeepWalk positions and raw inner products
    (`cosine=false`). The defaults, one full signed step on a quarter of the rows, eigenvectors and rows of length 1,
    measured the same accuracy at a fraction of the cost. A share of the rows is described as an unseen node would be,
    by its neighbours or by nothing, so that the student has met such requests before it is asked one.
    """

    paper: ClassVar[str] = (
        "Tian, Zhang, Guo, Zhang, Chawla: Learning MLPs on Graphs: A Unified View of Effectiveness, Robustness, and "
        "Efficiency, ICLR 2023 (NOSMOG)"
    )
    inference: ClassVar[str] = (
        "The node's own features and its id, or its neighbours' ids when it is new: a table of N x P numbers inside "
        "the bundle. A new node takes the mean of its known neighbours' rows, zeros when it has none."
    )
    reads_structure: ClassVar[bool] = True
    defaults: ClassVar[Settings] = {
        "student": {"input_dropout": 0.1, "structure_dropout": 0.1},
        "train": {"as_unseen": 0.3, "burn_in": 20},
    }

    hard: float = 0.0
    """Weight of the true labels."""
    soft: float = 1.0
    """Weight of the teacher's soft labels."""
    temperature: float = 1.0
    """Softens both sides; the loss is scaled by its square."""
    similarity: float = 0.1
    """Weight of the similarity term."""
    cosine: bool = True
    """Scale rows to length 1 in the similarity term, which makes its weight fit every graph."""
    adversarial: float = 0.1
    """Weight of the label terms under the worst noise; 0 leaves the attack out."""
    eps: float = 0.04
    """Largest noise per coordinate."""
    steps: int = 1
    """Steps of the search for the worst noise."""
    step_size: float = 1.0
    """Size of a step, in units of eps."""
    rows: float = 0.25
    """Share of each batch that is attacked."""
    random_start: bool = False
    """Start the search at random noise."""

    def __post_init__(self) -> None:
        method = self.name()  # others build on this one
        for name in ("hard", "soft", "similarity", "adversarial"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigError(f"{method}.{name} must be at least 0 and finite (got {value})")
        if self.adversarial and not (self.hard or self.soft):
            raise ConfigError(
                f"{method}.adversarial puts the label terms under attack, but {method}.hard and {method}.soft are 0. "
                f"Give one of them a weight, or set {method}.adversarial=0."
            )
        # Both refuse impossible settings; better here than after the teacher has been trained.
        SoftLabels(self.temperature)
        self.adversary()

    def loss_terms(self, spec: StudentSpec, stage: Stage) -> LossTerms:
        terms = dict(label_terms(self.hard, self.soft, self.temperature, stage.graph.targets))
        if self.similarity:
            terms["similarity"] = (self.similarity, SimilarityDistillation(spec, cosine=self.cosine))
        return terms

    def team(self, student: Student, stage: Stage, generator: torch.Generator, terms: LossTerms) -> Team:
        objective = DistillObjective(student, terms, adversary=self.adversary(), weight=self.adversarial)
        return single_player(student, stage, generator, objective)

    def adversary(self) -> Adversary | None:
        """The search for the worst noise; None when it has no weight."""
        if not self.adversarial:
            return None
        return Adversary(
            eps=self.eps,
            steps=self.steps,
            step_size=self.step_size,
            rows=self.rows,
            random_start=self.random_start,
        )
