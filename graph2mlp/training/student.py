"""Train one student by one method."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from graph2mlp.data.graph import GraphData
from graph2mlp.device import device_generators
from graph2mlp.memory import as_many_as_fit
from graph2mlp.methods.base import Method, Stage, Team
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student, StudentInput, StudentOutput, StudentSpec
from graph2mlp.training import parallel
from graph2mlp.training.ahead import one_ahead
from graph2mlp.training.average import WeightAverage
from graph2mlp.training.checkpoint import Checkpoint
from graph2mlp.training.loop import EpochLog, Fitted, fit, silent
from graph2mlp.training.objective import DistillObjective, single_player
from graph2mlp.training.seed import seeded
from graph2mlp.training.validation import known_score, validation_score

__all__ = ["answer", "train_student"]

_ROWS = 50_000
"""Nodes that are answered at once, at most."""


def train_student(
    method: Method,
    spec: StudentSpec,
    stage: Stage,
    *,
    log: EpochLog = silent,
    first_log: EpochLog = silent,
    refit_log: EpochLog = silent,
    checkpoint: Checkpoint | None = None,
) -> tuple[Student, Fitted]:
    """The student `method` makes of `stage`, with the weights of its best validation epoch.

    Where validation nodes are taught last (`train.teach_val=refit`), it is trained once more with them, for as many
    epochs as that; what is said of the training (but its cost) is then said of the first, which had not seen them.

    A method of two stages logs the first with `first_log`, a second training is logged with `refit_log`; each keeps a
    checkpoint of its own.
    """
    student, fitted = _train(method, spec, stage, log, first_log, checkpoint)
    if stage.refits:
        val = known_score(student, stage)
        again = checkpoint and checkpoint.beside("refit")
        student, refitted = _train(method, spec, stage.with_val(fitted.best_epoch), refit_log, first_log, again)
        fitted = replace(fitted.with_cost_of(refitted), val=val)
    return student, fitted


def _train(
    method: Method,
    spec: StudentSpec,
    stage: Stage,
    log: EpochLog,
    first_log: EpochLog,
    checkpoint: Checkpoint | None,
) -> tuple[Student, Fitted]:
    with seeded(stage.seed, "student", device=stage.device) as generator:
        stage = method.prepare(method.without_teacher(stage))
        spec = method.shape(spec, stage)
        student = method.student(spec).to(stage.device)
        student.outputs.load_state_dict(stage.graph.targets.output_scale().state_dict())
        spent = None
        if (first := method.first_stage(student, stage, generator)) is not None:
            spent = _fit(student, first, stage, generator, first_log, checkpoint and checkpoint.beside("first"))
        terms = {**method.loss_terms(spec, stage), **stage.loss.terms(spec, stage.teacher_widths)}
        team = method.team(student, stage, generator, terms)
        if team is None:
            team = single_player(student, stage, generator, DistillObjective(student, terms))
        if team.evaluate is None:
            team = replace(team, evaluate=parallel.agreed(validation_score(student, stage)))
        fitted = _fit(student, team, stage, generator, log, checkpoint, burn_in=stage.train.burn_in)
        if spent is not None:
            fitted = fitted.with_cost_of(spent)
        return method.finalize(student.cpu(), stage), fitted


def _fit(
    student: Student,
    team: Team,
    stage: Stage,
    generator: torch.Generator,
    log: EpochLog,
    checkpoint: Checkpoint | None,
    *,
    burn_in: int = 0,
) -> Fitted:
    assert team.evaluate is not None
    # A small graph lies in the cache: its batches are cut sooner than a thread could say so.
    large = stage.graph.num_nodes > stage.train.epoch_rows

    def batches() -> Iterator[Any]:
        for batch in one_ahead(team.batches()) if large else team.batches():
            yield batch.to(stage.device)

    return fit(
        student,
        team.players,
        batches,
        team.evaluate,
        epochs=stage.train.epochs,
        patience=stage.train.patience,
        burn_in=burn_in,
        generators=[generator, *device_generators(stage.device)],
        log=log,
        checkpoint=checkpoint,
        average=WeightAverage(student, stage.train.average) if stage.train.average else None,
    )


@torch.no_grad()
def answer(
    student: Student, graph: GraphData, table: StructureTable | None, ids: Tensor, *, cold: bool = False
) -> Tensor:
    """Logits `[B, C]` for nodes `ids [B]` of the full graph, asked as a device would ask.

    With `cold` the nodes arrive without any edge.
    """
    student.eval()
    logits = torch.empty(len(ids), student.spec.classes)
    widths = student.spec.features + student.spec.structure + 2 * student.spec.hidden
    rows = as_many_as_fit(_ROWS, bytes_each=8 * widths, least=512)
    for part, out in zip(torch.split(ids, rows), torch.split(logits, rows), strict=True):
        structure = None
        if student.regime == "structure" and table is not None:
            structure = table.for_nodes(graph, part, cold=cold)
        said: StudentOutput = student(StudentInput(graph.features(part), structure))
        out.copy_(said.logits)
    return logits
