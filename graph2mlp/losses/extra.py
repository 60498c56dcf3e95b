"""Terms that go with any method: the group `loss` of the settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from graph2mlp.errors import ConfigError
from graph2mlp.losses.base import LossTerm, LossTerms
from graph2mlp.losses.contrast import Contrast
from graph2mlp.losses.similarity import SimilarityDistillation
from graph2mlp.losses.structure import GlobalStructure, LocalStructure
from graph2mlp.students.base import StudentSpec

__all__ = ["LossConfig"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of terms added to a method's own: `--method nosmog --set loss.gcrd=0.1`. 0 leaves a term out."""

    similarity: float = 0.0
    """All pairs of a batch: cosines of a projection of the student's hidden layer and of the teacher's (NOSMOG)."""
    lsp: float = 0.0
    """Each node's softmax of cosines over its neighbours (LSP)."""
    gsp: float = 0.0
    """All pairs of a batch: cosines of the hidden layers themselves (GSP)."""
    gcrd: float = 0.0
    """Each node must find its own teacher row among those of the batch (G-CRD)."""
    tau: float = 0.075
    """Temperature of gcrd."""
    fanout: int = 10
    """Neighbours per node and step, at most, for terms that read edges (lsp)."""

    def __post_init__(self) -> None:
        for name in ("similarity", "lsp", "gsp", "gcrd"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"loss.{name} must be at least 0 and finite (got {getattr(self, name)})")
        if not 0 < self.tau < math.inf:
            raise ConfigError(f"loss.tau must be positive and finite (got {self.tau})")
        if self.fanout < 1:
            raise ConfigError(f"loss.fanout must be at least 1 (got {self.fanout})")

    @property
    def used(self) -> list[str]:
        """The terms with a weight, all of which read a teacher."""
        return [field.name for field in fields(self)[:4] if getattr(self, field.name)]

    def terms(self, spec: StudentSpec, teacher_widths: Sequence[int]) -> LossTerms:
        """The terms with a weight, by names no method uses for its own."""
        made: dict[str, LossTerm] = {}
        for name in self.used:
            if name == "similarity":
                made[name] = SimilarityDistillation(spec, cosine=True)
            elif name == "lsp":
                made[name] = LocalStructure()
            elif name == "gsp":
                made[name] = GlobalStructure()
            else:
                made[name] = Contrast(spec, teacher_widths, tau=self.tau)
        return {f"extra_{name}": (getattr(self, name), term) for name, term in made.items()}
