"""Settings of a teacher."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from graph2mlp.errors import ConfigError, suggest

__all__ = ["MAX_MEMBERS", "TEACHER_NAMES", "TeacherConfig"]

TEACHER_NAMES = ("sage", "gcn", "gat", "appnp", "gcn_se")
MAX_MEMBERS = 8
"""Teachers in an ensemble at most."""


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """What the teacher is and how it is trained; part of its fingerprint."""

    name: str = "sage"
    """sage, gcn, gat, appnp or gcn_se; joined by `+` an ensemble, whose members share all other settings
    (appnp+gcn+sage)."""
    aggregator: Literal["auto", "mean", "gcn"] = "auto"
    """sage: mean gives the node itself weights of its own, gcn treats it like a neighbour; auto trains both and keeps
    the better on validation."""
    unit_rows: bool = True
    """Scale bag-of-words rows to length 1, so that long documents do not outweigh short ones (sparse features only)."""
    layers: int = 2
    """Layers of weights."""
    hidden: int = 128
    """Width of the hidden layers."""
    dropout: float = 0.5
    """Dropout after each activation."""
    input_dropout: float = 0.8
    """Dropout of the words of bag-of-words features; dense features, few and all needed, keep every number."""
    attention_dropout: float = 0.6
    """Dropout of attention weights (gat)."""
    heads: int = 8
    """Attention heads of the hidden layers (gat)."""
    steps: int = 10
    """Propagation steps (appnp)."""
    teleport: float = 0.1
    """Probability of staying at the node (appnp)."""
    se_reg: float = 10.0
    """Weight of the size of the structural embeddings, the sum of their Frobenius norms (gcn_se)."""
    se_layers: str = "first"
    """Layers with structural embeddings: first, middle (all between), last, or several joined by + (gcn_se)."""
    lr: float = 0.01
    """Adam step size."""
    weight_decay: float = 5e-3
    """L2 penalty."""
    epochs: int = 300
    """Passes over the graph at most."""
    patience: int = 50
    """Epochs without a better validation score before stopping."""
    burn_in: int = 20
    """Epochs at the start that are never kept: an untrained teacher may validate well by luck."""
    calibrate: bool = True
    """Ensembles: fit each member's weight, and of classes its temperature, on the validation nodes; false is the plain
    mean (which `frequencies=observed` scales and shifts)."""
    frequencies: Literal["labelled", "observed"] = "labelled"
    """Class frequencies the answers assume: as among the labelled nodes, or as estimated among all observed ones, which
    differ where labels were drawn class by class (built-in teachers; one class per node)."""
    module: str = ""
    """Your own teacher in place of a built-in one: MODULE:NAME of a module or of what builds it (--teacher-module)."""
    weights: str = ""
    """Its weights, or a program of torch.export without a module (--teacher-weights)."""
    hidden_layers: str = "auto"
    """Your own teacher: layers to keep the outputs of, joined by +; auto: the input of the last layer; or none."""
    hops: int = 0
    """Your own teacher: how far around a node it looks (0: found out); only `bench --against` asks for it."""
    force: bool = False
    """Take a teacher from outside although it is no better on validation than naming the largest class."""

    def __post_init__(self) -> None:
        _check_name(self.name)
        self.structural_layers()
        for name in ("layers", "hidden", "heads", "steps", "epochs", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"teacher.{name} must be at least 1 (got {getattr(self, name)})")
        for name in ("dropout", "input_dropout", "attention_dropout", "teleport"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"teacher.{name} must be in [0, 1) (got {getattr(self, name)})")
        if not 0 <= self.se_reg < math.inf:
            raise ConfigError(f"teacher.se_reg must be at least 0 and finite (got {self.se_reg})")
        if not 0 < self.lr < math.inf or not 0 <= self.weight_decay < math.inf:
            raise ConfigError(
                f"teacher.lr must be above 0 and teacher.weight_decay at least 0 (got {self.lr}, {self.weight_decay})"
            )
        if self.weights and not self.module and not self.weights.endswith(".pt2"):
            raise ConfigError(
                f"teacher.weights alone says nothing about the network (got '{self.weights}'). Add --teacher-module "
                "MODULE:NAME, or give a program of torch.export (.pt2)."
            )
        if self.module and self.weights.endswith(".pt2"):
            raise ConfigError("A program of torch.export (.pt2) is a whole network: leave --teacher-module out.")
        if self.hops < 0:
            raise ConfigError(f"teacher.hops must not be negative (got {self.hops})")
        if self.burn_in < 0:
            raise ConfigError(f"teacher.burn_in must not be negative (got {self.burn_in})")
        if "gat" in self.name.split("+") and self.hidden % self.heads:
            raise ConfigError(f"teacher.hidden ({self.hidden}) must be a multiple of teacher.heads ({self.heads})")

    @property
    def own(self) -> bool:
        """Whether the teacher is the user's own, which is not trained here."""
        return bool(self.module or self.weights)

    @property
    def code(self) -> str:
        """What of the user's is executed to ask the own teacher: a module's name, or a program's file."""
        return self.module or self.weights

    @property
    def label(self) -> str:
        """The teacher's name in results and files."""
        return self.module.split(":")[-1].split(".")[-1] or Path(self.weights).stem or self.name

    def training_settings(self) -> dict[str, Any]:
        """What a built-in teacher's weights depend on; so little that a teacher is not trained again without need."""
        others = {"module", "weights", "hidden_layers", "hops", "force", "calibrate", "frequencies"}
        others |= set() if self.name == "gcn_se" else {"se_reg", "se_layers"}
        return {name: value for name, value in asdict(self).items() if name not in others}

    def members(self) -> list[TeacherConfig]:
        """The teachers of an ensemble, in the order of its name; for a single name the teacher itself."""
        return [replace(self, name=name) for name in self.name.split("+")]

    def structural_layers(self) -> list[int]:
        """Positions of the layers with structural embeddings (gcn_se)."""
        places = {"first": [0], "middle": list(range(1, self.layers - 1)), "last": [self.layers - 1]}
        for name in (names := self.se_layers.split("+")):
            if name not in places:
                raise ConfigError(f"Unknown place '{name}' in teacher.se_layers. {suggest(name, places)}")
        return sorted({number for name in names for number in places[name]})

    def candidates(self) -> list[TeacherConfig]:
        """The forms of a single teacher to train, of which the best on validation is kept."""
        if self.name == "sage" and self.aggregator == "auto":
            return [replace(self, aggregator="mean"), replace(self, aggregator="gcn")]
        return [self]


def _check_name(name: str) -> None:
    names = name.split("+")
    for one in names:
        if one not in TEACHER_NAMES:
            where = f" in '{name}'" if len(names) > 1 else ""
            raise ConfigError(f"Unknown teacher '{one}'{where} (teacher.name). {suggest(one, TEACHER_NAMES)}")
    if len(names) > MAX_MEMBERS:
        raise ConfigError(
            f"teacher.name joins {len(names)} teachers, expected at most {MAX_MEMBERS} (got '{name}'). Name fewer."
        )
