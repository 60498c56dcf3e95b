"""`Student`: a network that cannot see edges, by construction: its input has no place for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from graph2mlp.data.features import Features, num_rows
from graph2mlp.data.targets import OutputScale
from graph2mlp.errors import ConfigError
from graph2mlp.tasks import CLASSIFICATION, REGRESSION, TASKS

__all__ = ["Regime", "Student", "StudentConfig", "StudentInput", "StudentOutput", "StudentSpec"]

Regime = Literal["features", "structure"]
"""What a request must carry: the node's own features, or also its id (or its neighbours' ids)."""


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """The shape of a student, whatever the graph."""

    layers: int = 2
    """Linear layers."""
    hidden: int = 128
    """Width of the hidden layers."""
    dropout: float = 0.5
    """Dropout after each activation."""
    input_dropout: float = 0.0
    """Dropout of single features (training only)."""
    structure_dropout: float = 0.0
    """Probability that a node's whole structure vector is zeroed (training only); teaches the cold start."""
    norm: Literal["none", "batch"] = "none"
    """Normalisation before each activation; batch normalisation is folded away at export."""

    def __post_init__(self) -> None:
        for name in ("layers", "hidden"):
            least = 2 if name == "layers" else 1
            if getattr(self, name) < least:
                raise ConfigError(f"student.{name} must be at least {least} (got {getattr(self, name)})")
        if self.hidden > 65_536 or self.layers > 64:
            raise ConfigError(f"student: at most 65536 wide and 64 layers deep (got {self.hidden}, {self.layers})")
        for name in ("dropout", "input_dropout", "structure_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"student.{name} must be in [0, 1) (got {getattr(self, name)})")


@dataclass(frozen=True, kw_only=True)
class StudentSpec(StudentConfig):
    """Everything that fixes a student; written beside its weights and enough to rebuild it."""

    features: int
    """F, width of the node features."""
    structure: int = 0
    """P, width of the structure vector; 0 for a student that reads features only."""
    classes: int
    """C, columns of an answer."""
    task: str = CLASSIFICATION.name
    """What they mean, by the names of `graph2mlp.tasks`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task not in TASKS:
            raise ConfigError(f"student: unknown task '{self.task}', expected one of {', '.join(TASKS)}")


@dataclass(frozen=True, eq=False)
class StudentInput:
    """One batch of requests: `features [B, F]`, and `structure [B, P]` for a student that reads structure."""

    features: Features
    structure: Tensor | None = None

    def to(self, device: torch.device) -> StudentInput:
        """The same on `device`."""
        return StudentInput(self.features.to(device), None if self.structure is None else self.structure.to(device))


@dataclass(frozen=True, eq=False)
class StudentOutput:
    """`logits [B, C]` and the pre-activation outputs of the hidden layers, each `[B, D]`, first to last."""

    logits: Tensor
    hidden: tuple[Tensor, ...]

    def first(self, count: int) -> StudentOutput:
        """What it says of the first `count` rows."""
        return StudentOutput(self.logits[:count], tuple(layer[:count] for layer in self.hidden))


class Student(nn.Module, ABC):
    """`logits = head(embed(features, structure))`, where `embed` is affine in its inputs.

    The split is a contract: because the first layer is affine, a structure table can be stored already multiplied by
    its weights, sparse features never become dense, and perturbed or mixed inputs cost one addition behind it.

    What a request must carry is the `regime`; what ships beside the weights are the `constants`. `kind` names the class
    in a weights file, and the fields of its `spec` are enough to build it.
    """

    kind: ClassVar[str]
    spec_type: ClassVar[type[StudentSpec]] = StudentSpec
    spec: StudentSpec

    def __init__(self, spec: StudentSpec) -> None:
        super().__init__()
        self.spec = spec
        self.outputs: nn.Module = OutputScale(spec.classes) if spec.task == REGRESSION.name else nn.Identity()
        """What the answer passes through; part of the last layer once it is exported."""

    @property
    def regime(self) -> Regime:
        return "structure" if self.spec.structure else "features"

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def constants(self) -> Mapping[str, Tensor]:
        """Arrays that were not trained and are part of the network, by name; none for most."""
        return {}

    @property
    @abstractmethod
    def feature_weight(self) -> Tensor:
        """`[F, D]`: `embed` adds `features @ feature_weight`."""

    @property
    @abstractmethod
    def structure_weight(self) -> Tensor | None:
        """`[P, D]`: `embed` adds `structure @ structure_weight`; None without structure."""

    @abstractmethod
    def embed(self, inputs: StudentInput) -> Tensor:
        """The affine first layer: `[B, D]`."""

    @abstractmethod
    def trunk(self, embedded: Tensor) -> tuple[Tensor, ...]:
        """Pre-activation outputs of the hidden layers, first to last, from `embedded [B, D]`."""

    @abstractmethod
    def classify(self, last: Tensor) -> Tensor:
        """The last block: the last hidden layer `[B, D]` -> `[B, C]`, logits but for `outputs`."""

    def head(self, embedded: Tensor) -> StudentOutput:
        """Everything behind the first layer: `[B, D]` -> logits and hidden layers."""
        hidden = self.trunk(embedded)
        return StudentOutput(self.outputs(self.classify(hidden[-1])), hidden)

    def undecided(self, inputs: StudentInput) -> Tensor:
        """Rows whose answer hangs on the last bits of a sum, `[B]` bool: no two machines need agree on them."""
        return torch.zeros(num_rows(inputs.features), dtype=torch.bool)

    def forward(self, inputs: StudentInput) -> StudentOutput:
        return self.head(self.embed(inputs))
