"""The final report of a run. Here and in `breakdown`, which details it, test labels are read; nowhere before."""

from __future__ import annotations

import torch
from torch import Tensor

from graph2mlp.data.graph import GraphData
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student
from graph2mlp.teachers.extract import answer_all
from graph2mlp.teachers.knowledge import TeacherKnowledge
from graph2mlp.teachers.models import Teacher
from graph2mlp.training.student import answer

__all__ = [
    "PRODUCTION_SHARES",
    "evaluate_knowledge",
    "evaluate_student",
    "evaluate_teacher",
    "student_agreement",
    "teacher_answer",
]

PRODUCTION_SHARES = {"tran": 0.8, "ind": 0.2}
"""The production mix: four requests in five are for observed nodes."""


def evaluate_student(student: Student, graph: GraphData, table: StructureTable | None) -> dict[str, float]:
    """The task's metric per setting: `test`, or `tran`, `ind`, `prod`, `cold` when the split has unseen nodes."""
    split = graph.split
    score = graph.targets.score
    seen = score(answer(student, graph, table, split.test), graph.y[split.test])
    if not split.unseen.numel():
        return {"test": seen}
    labels = graph.y[split.unseen]
    ind, cold = (score(answer(student, graph, table, split.unseen, cold=cold), labels) for cold in (False, True))
    return _production(seen, ind, cold)


def evaluate_knowledge(knowledge: TeacherKnowledge, graph: GraphData) -> dict[str, float]:
    """The metric of a teacher's recorded logits on the observed test nodes; unseen nodes need the network itself."""
    test = graph.split.test
    seen = graph.targets.score(knowledge.logits[knowledge.rows(graph.node_ids[test])], graph.y[test])
    return {"tran" if graph.split.unseen.numel() else "test": seen}


@torch.no_grad()
def evaluate_teacher(teacher: Teacher, knowledge: TeacherKnowledge, graph: GraphData) -> dict[str, float]:
    """The metric per setting. Unseen nodes come with their edges to observed nodes (`ind`), or with none (`cold`)."""
    seen = evaluate_knowledge(knowledge, graph)
    unseen = graph.split.unseen
    if not unseen.numel():
        return seen

    def ask(cold: bool) -> float:
        logits = teacher_answer(teacher, graph, cold=cold)
        return graph.targets.score(logits[unseen], graph.y[unseen])

    return _production(seen["tran"], ask(False), ask(True))


@torch.no_grad()
def teacher_answer(teacher: Teacher, graph: GraphData, *, cold: bool = False) -> Tensor:
    """Logits `[N, C]` for every node of the full graph; unseen nodes keep their edges to observed nodes only.

    With `cold` they have none. Where there are unseen nodes only their rows count: observed ones hear of them here.
    """
    hidden = torch.zeros(graph.num_nodes, dtype=torch.bool)
    hidden[graph.split.unseen] = True
    ends = hidden[graph.edge_index]
    kept = ~(ends.any(0) if cold else ends.all(0))
    return answer_all(teacher, graph.with_edges(kept))[0]


def student_agreement(
    student: Student, knowledge: TeacherKnowledge, graph: GraphData, table: StructureTable | None
) -> float:
    """How far student and teacher give the same answers on the observed test nodes (classes: the share of them)."""
    test = graph.split.test
    said = knowledge.logits[knowledge.rows(graph.node_ids[test])]
    return graph.targets.agreement(answer(student, graph, table, test), said)


def _production(tran: float, ind: float, cold: float) -> dict[str, float]:
    mix = PRODUCTION_SHARES["tran"] * tran + PRODUCTION_SHARES["ind"] * ind
    return {"tran": tran, "ind": ind, "prod": mix, "cold": cold}
