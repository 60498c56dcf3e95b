"""The stages of `distill` on a graph in memory, small and fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graph2mlp.config import RunConfig, resolve_config
from graph2mlp.data.graph import GraphData
from graph2mlp.distill import structure_table
from graph2mlp.methods.base import Stage
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student, StudentSpec
from graph2mlp.teachers.cache import obtain_teacher
from graph2mlp.training.loop import Fitted
from graph2mlp.training.student import train_student
from tests.graphs import community_graph

SMALL = (
    "train.epochs=4",
    "train.batch_size=16",
    "student.hidden=8",
    "structure.dim=4",
    "teacher.hidden=8",
    "teacher.epochs=6",
    "teacher.burn_in=0",
    "teacher.aggregator=mean",
)
"""Settings that make a run on the tiny graph take a fraction of a second."""


@dataclass(frozen=True)
class Trained:
    """What came out of one run."""

    student: Student
    table: StructureTable | None
    fitted: Fitted
    graph: GraphData

    def weights(self) -> dict[str, Tensor]:
        return self.student.state_dict()


def small_config(method: str, *, seed: int = 0, overrides: Sequence[str] = ()) -> RunConfig:
    """The settings of a small run of `method`."""
    return resolve_config(graph="tiny.npz", method=method, seed=seed, overrides=[*SMALL, *overrides])


def make_stage(config: RunConfig, graph: GraphData) -> tuple[Stage, StudentSpec]:
    """Teacher and structure of the observed part of `graph`, as `distill` makes them."""
    observed = graph.observed()
    teachers: tuple[Any, ...] = ()
    if config.hyper.needs_teacher:
        teachers = (obtain_teacher(observed, config.teacher, seed=config.seed).knowledge.aligned(observed),)
    table = None
    if config.hyper.reads_structure:
        table = structure_table(config, observed, teachers, num_nodes=graph.num_nodes)
    stage = Stage(
        graph=observed, teachers=teachers, structure=table, train=config.train, seed=config.seed, loss=config.loss
    )
    spec = StudentSpec(
        features=graph.num_features,
        structure=table.width if table else 0,
        classes=graph.num_classes,
        task=graph.task.name,
        **{name: getattr(config.student, name) for name in config.student.__dataclass_fields__},
    )
    return stage, spec


def run_method(method: str, graph: GraphData, *, seed: int = 0, overrides: Sequence[str] = (), **train: Any) -> Trained:
    """Train a student of `method` on `graph`; `train` goes to `train_student` (log, checkpoint)."""
    config = small_config(method, seed=seed, overrides=overrides)
    stage, spec = make_stage(config, graph)
    student, fitted = train_student(config.hyper, spec, stage, **train)
    return Trained(student, stage.structure, fitted, graph)


def same_weights(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two networks agree in every bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def bare_stage(**changed: Any) -> Stage:
    """A stage without teacher and structure, for what only looks at shapes."""
    config = small_config("mlp")
    graph = changed.pop("graph", None) or community_graph()
    return Stage(graph=graph, **{"teachers": (), "structure": None, "train": config.train, "seed": 0} | changed)
