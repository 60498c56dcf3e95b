"""`Method`: a paper's hyper-parameters and the hooks it changes. The next method is one file and one line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import torch

from graph2mlp.data.graph import GraphData
from graph2mlp.device import CPU
from graph2mlp.errors import ConfigError
from graph2mlp.losses.base import LossTerms
from graph2mlp.losses.extra import LossConfig
from graph2mlp.methods import METHODS
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student, StudentSpec
from graph2mlp.students.mlp import MLPStudent
from graph2mlp.tasks import TASKS
from graph2mlp.teachers.knowledge import TeacherKnowledge

if TYPE_CHECKING:
    from graph2mlp.training.metrics import Score

__all__ = ["Method", "Settings", "Stage", "Team", "TrainConfig"]

Settings: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Settings by group: `{"train": {"lr": 0.01}}`."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how fast a student learns."""

    lr: float = 0.01
    """Adam step size."""
    weight_decay: float = 5e-4
    """L2 penalty."""
    batch_size: int = 512
    """Rows per step at most; an epoch is cut into batches of about one size, and no row is dropped."""
    epoch_rows: int = 50_000
    """Rows of an epoch at most; of a larger graph each epoch takes so many at random, so that an epoch, and with it the
    time to validate and to stop, costs the same for graphs of any size."""
    epochs: int = 500
    """Passes over the training rows at most (see epoch_rows)."""
    patience: int = 50
    """Epochs without a better validation score before stopping."""
    burn_in: int = 0
    """Epochs at the start that are never kept: with few validation nodes an early one can score best by luck."""
    as_unseen: float = 0.0
    """Share of training rows whose structure is that of an unseen node: the mean of its neighbours, not its own."""
    teach_val: Literal["always", "known", "refit", "never"] = "always"
    """Whether the soft labels of validation nodes are learned, like those of all observed nodes. The epoch is chosen on
    these nodes, so they should be met as those that will be asked: known means learned in the transductive setting,
    where all nodes are known, and not in the production setting, where new ones come. refit is known, and in the
    production setting the student is then trained anew with them, for as many epochs as were best without them."""
    average: float = 0.0
    """Keep an average of the weights over the last 1 / (average + 1) of the steps so far (see `WeightAverage`); 0 keeps
    the weights themselves."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "epoch_rows", "epochs", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} must be at least 1 (got {getattr(self, name)})")
        if self.burn_in < 0:
            raise ConfigError(f"train.burn_in must not be negative (got {self.burn_in})")
        if not 0 <= self.as_unseen < 1:
            raise ConfigError(f"train.as_unseen must be in [0, 1) (got {self.as_unseen})")
        if not 0 <= self.average < math.inf:
            raise ConfigError(f"train.average must not be negative (got {self.average})")
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"train.lr must be positive (got {self.lr})")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(f"train.weight_decay must not be negative (got {self.weight_decay})")


@dataclass(frozen=True, eq=False, kw_only=True)
class Stage:
    """What a student may see while it learns: the observed graph, and everything aligned with its rows.

    `graph` has no unseen node and no label outside train and val. `teachers` speak of its rows in order; `structure`
    covers the ids of the full graph, or is None for students that read features only.
    """

    graph: GraphData
    teachers: tuple[TeacherKnowledge, ...]
    structure: StructureTable | None
    train: TrainConfig
    seed: int
    loss: LossConfig = field(default_factory=LossConfig)
    new_nodes: bool = False
    """Whether the student is also meant for nodes that are not in the graph yet (the production setting)."""
    device: torch.device = CPU
    """Where the student learns; everything above stays on the CPU."""

    @property
    def teaches_val(self) -> bool:
        """Whether validation nodes are among those whose soft labels are learned."""
        known_only = self.train.teach_val in ("known", "refit")
        return self.train.teach_val == "always" or (known_only and not self.new_nodes)

    @property
    def refits(self) -> bool:
        """Whether validation nodes are to be learned after all, once the epoch is chosen without them."""
        return self.train.teach_val == "refit" and self.new_nodes

    def with_val(self, epochs: int) -> Stage:
        """The same with validation nodes taught, for just `epochs` epochs: nothing is left to be chosen by them."""
        return replace(self, train=replace(self.train, teach_val="always", epochs=epochs, burn_in=epochs))

    @property
    def teacher_widths(self) -> tuple[int, ...]:
        """Widths of the last hidden layers of those teachers that have one."""
        return tuple(list(teacher.hidden.values())[-1].size(1) for teacher in self.teachers if teacher.hidden)


@dataclass(frozen=True, eq=False)
class Team:
    """Who trains, and on what: the players of the loop, and one epoch of batches at each call.

    `evaluate` scores the student for the choice of the epoch; None stands for its answers on validation nodes.
    """

    players: list[Any]
    batches: Callable[[], Iterable[Any]]
    evaluate: Callable[[], Score] | None = None


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of every method. Fields are the paper's hyper-parameters; hooks have defaults that fit most papers.

    Class variables: `paper`, `needs_teacher`, `reads_structure` (the student's regime), and `defaults`, the settings of
    other groups (teacher, student, train, structure) that the method prefers to the general ones.
    """

    paper: ClassVar[str] = ""
    inference: ClassVar[str] = "The node's own features. No edges, no stored arrays."
    needs_teacher: ClassVar[bool] = True
    reads_structure: ClassVar[bool] = False
    soft_labels: ClassVar[bool] = True
    """Whether nodes without a label are taught somebody's soft ones, which `train.teach_val` is about."""
    defaults: ClassVar[Settings] = {}
    whole_graph_steps: ClassVar[bool] = False
    """Whether a step passes over the whole graph, so that a large one is worth several threads."""

    @classmethod
    def name(cls) -> str:
        """The method's name on the command line, which is also the group of its settings."""
        return next(name for name, path in METHODS.items() if path == f"{cls.__module__}:{cls.__name__}")

    tasks: ClassVar[tuple[str, ...]] = tuple(TASKS)
    """What the method can be asked for, by the names of `graph2mlp.tasks`."""
    divisible: ClassVar[bool] = True
    """Whether several processes can share each batch (see `training.parallel`): one player, over batches of nodes."""

    def prepare(self, stage: Stage) -> Stage:
        """Change what the student learns from, before it is built (positions, generated graphs, assistants)."""
        return stage

    def shape(self, spec: StudentSpec, stage: Stage) -> StudentSpec:
        """What fixes the student beside the settings, such as the size of an array it carries."""
        return spec

    def student(self, spec: StudentSpec) -> Student:
        """The network to train and export."""
        return MLPStudent(spec)

    def loss_terms(self, spec: StudentSpec, stage: Stage) -> LossTerms:
        """Weighted terms of the ordinary objective; leave out a term of weight 0."""
        return {}

    def first_stage(self, student: Student, stage: Stage, generator: torch.Generator) -> Team | None:
        """What is trained before the rest, and kept by its own score; None when there is one stage only."""
        return None

    def team(self, student: Student, stage: Stage, generator: torch.Generator, terms: LossTerms) -> Team | None:
        """Players and batches; None for ordinary training: one player that minimises `terms` over nodes.

        `terms` are the method's own and those the user added (group `loss` of the settings).
        """
        return None

    def finalize(self, student: Student, stage: Stage) -> Student:
        """The network that is deployed, made from the one that was trained."""
        return student

    def without_teacher(self, stage: Stage) -> Stage:
        """The stage of a method that must not look at a teacher, even when one is there."""
        return stage if self.needs_teacher else replace(stage, teachers=())
