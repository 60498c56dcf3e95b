"""Train one student by one method."""

from __future__ import annotations

import torch
from torch import Tensor

from graph2mlp.data.graph import GraphData
from graph2mlp.methods.base import Method, Stage
from graph2mlp.structure.requests import neighbour_requests
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student, StudentInput, StudentOutput, StudentSpec
from graph2mlp.training.batches import student_inputs
from graph2mlp.training.checkpoint import Checkpoint
from graph2mlp.training.loop import EpochLog, Fitted, fit, silent
from graph2mlp.training.metrics import Score, score
from graph2mlp.training.objective import DistillObjective, single_player
from graph2mlp.training.seed import seeded

__all__ = ["answer", "train_student"]


def train_student(
    method: Method,
    spec: StudentSpec,
    stage: Stage,
    *,
    log: EpochLog = silent,
    checkpoint: Checkpoint | None = None,
) -> tuple[Student, Fitted]:
    """The student `method` makes of `stage`, with the weights of its best validation epoch."""
    with seeded(stage.seed, "student") as generator:
        stage = method.prepare(method.without_teacher(stage))
        student = method.student(spec)
        terms = {**method.loss_terms(spec, stage), **stage.loss.terms(spec, stage.teacher_width)}
        team = method.team(student, stage, generator, terms)
        if team is None:
            team = single_player(student, stage, generator, DistillObjective(student, terms))
        val = stage.graph.split.val
        inputs, labels = student_inputs(stage, val), stage.graph.y[val]

        def evaluate() -> Score:
            return score(student(inputs).logits, labels)

        fitted = fit(
            student,
            team.players,
            team.batches,
            evaluate,
            epochs=stage.train.epochs,
            patience=stage.train.patience,
            burn_in=stage.train.burn_in,
            generators=[generator],
            log=log,
            checkpoint=checkpoint,
        )
        return method.finalize(student, stage), fitted


@torch.no_grad()
def answer(
    student: Student, graph: GraphData, table: StructureTable | None, ids: Tensor, *, cold: bool = False
) -> Tensor:
    """Logits `[B, C]` for nodes `ids [B]` of the full graph, asked as a device would ask.

    With `cold` the nodes arrive without any edge.
    """
    student.eval()
    structure = None
    if student.regime == "structure" and table is not None:
        structure = table.for_unseen(neighbour_requests(graph, ids, cold=cold))
    out: StudentOutput = student(StudentInput(graph.features(ids), structure))
    return out.logits
