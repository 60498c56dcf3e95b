"""LSP: each node's similarities to its neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from graph2mlp.errors import ConfigError
from graph2mlp.losses.base import LossTerms
from graph2mlp.losses.labels import SoftLabels
from graph2mlp.losses.structure import LocalStructure
from graph2mlp.methods.base import Method, Settings, Stage
from graph2mlp.methods.glnn import GLNN, label_terms
from graph2mlp.students.base import StudentSpec

__all__ = ["LSP"]


@dataclass(frozen=True, kw_only=True)
class LSP(Method):
    """The student spreads its similarity over a node's neighbours as the teacher does; plus GLNN's labels.

    `L = hard * CE + soft * KL + beta * mean_i KL( softmax_j K(h_i, h_j) || softmax_j K(s_i, s_j) )`, j over the
    in-neighbours of i (at most `loss.fanout` of them, drawn anew at every step), `h` and `s` the last hidden layers of
    teacher and student before the activation. Shapes: `x [B, F]`, logits `[B, C]`. The paper trains a GNN on labels and
    this term; beside labels alone it gives an MLP 0 to 1.6 points (docs/accuracy.md), so soft labels are on by
    default (`soft=0, hard=1` for the paper's objective). Left out: the paper's code stops the term after 30 epochs, and
    prints no weight; a later implementation softmaxes the positive distance (l2), so that far neighbours count most.
    The released code compares by laplace; cosine needs no scale.
    """

    paper: ClassVar[str] = (
        "Yang, Qiu, Song, Tao, Wang: Distilling Knowledge from Graph Convolutional Networks, CVPR 2020 (LSP)"
    )
    defaults: ClassVar[Settings] = GLNN.defaults

    hard: float = 0.0
    """Weight of the true labels."""
    soft: float = 1.0
    """Weight of the teacher's soft labels."""
    temperature: float = 1.0
    """Softens both sides of the soft labels; that term is scaled by its square."""
    beta: float = 1.0
    """Weight of the neighbourhood term."""
    kernel: Literal["cosine", "poly", "l2", "rbf", "laplace"] = "cosine"
    """Similarity of two nodes: cosine, its square, minus the distance, or an exponential of it."""

    def __post_init__(self) -> None:
        check_weights("lsp", self.hard, self.soft, self.beta, self.temperature)

    def loss_terms(self, spec: StudentSpec, stage: Stage) -> LossTerms:
        return {
            **label_terms(self.hard, self.soft, self.temperature, stage.graph.targets),
            "local": (self.beta, LocalStructure(self.kernel)),
        }


def check_weights(name: str, hard: float, soft: float, beta: float, temperature: float) -> None:
    """Label weights of at least 0, not both 0, a positive weight of the method's own term, a possible temperature.

    Raises:
        ConfigError: they are not.
    """
    if not (hard >= 0 and soft >= 0 and 0 < hard + soft < math.inf and 0 < beta < math.inf):
        raise ConfigError(
            f"{name} needs hard and soft of at least 0, not both 0, and beta above 0 (got {hard}, {soft}, {beta}). "
            "Without beta it is glnn."
        )
    SoftLabels(temperature)  # refuses an impossible one before a teacher is trained
