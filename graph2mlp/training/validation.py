"""How well a student answers the validation nodes, asked in every form it is trained for."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

import torch
from torch import Tensor

from graph2mlp.methods.base import Stage
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student, StudentInput
from graph2mlp.training.batches import student_inputs
from graph2mlp.training.metrics import Score, score

__all__ = ["known_score", "validation_score"]

_NODES = 20_000


def validation_score(student: Student, stage: Stage) -> Callable[[], Score]:
    """The mean of the metric and of the loss over the forms of request that training practises:

    as a known node; by its neighbours alone (`train.as_unseen`); without edges (`student.structure_dropout`). Scored as
    known nodes only, the epoch would be chosen with no regard to the new nodes the student is also meant for.

    Of more than `_NODES` validation nodes so many are taken, the same at every call: a validation would otherwise take
    longer than the epoch before it, to know the accuracy to a third of a point.
    """
    val = _sample(stage.graph.split.val, stage.seed)
    labels, known = stage.graph.y[val].to(stage.device), student_inputs(stage, val).to(stage.device)
    asked = [known]
    if stage.structure is not None and known.structure is not None:
        if stage.train.as_unseen:
            asked.append(StudentInput(known.features, _as_unseen(stage, stage.structure, val).to(stage.device)))
        if student.spec.structure_dropout:
            asked.append(StudentInput(known.features, torch.zeros_like(known.structure)))

    def evaluate() -> Score:
        scores = [score(student(inputs).logits, labels, stage.graph.targets) for inputs in asked]
        return Score(fmean(one.value for one in scores), fmean(one.negative_loss for one in scores))

    return evaluate


@torch.no_grad()
def known_score(student: Student, stage: Stage) -> float:
    """The metric on all validation nodes, asked as known nodes."""
    val = stage.graph.split.val
    logits = [student(student_inputs(stage, part)).logits for part in val.split(_NODES)]
    return stage.graph.targets.score(torch.cat(logits), stage.graph.y[val])


def _sample(val: Tensor, seed: int) -> Tensor:
    if len(val) <= _NODES:
        return val
    generator = torch.Generator().manual_seed(seed)
    return val[torch.randperm(len(val), generator=generator)[:_NODES].sort().values]


def _as_unseen(stage: Stage, table: StructureTable, val: Tensor) -> Tensor:
    """As the batches do it, so that a small graph's score stays what it was to the last bit."""
    if stage.graph.num_nodes <= stage.train.epoch_rows:
        return table.neighbour_means(stage.graph)[val]
    return table.neighbour_means(stage.graph, val)
