"""`result.json`: what a finished run says of itself. Test labels are read here, when nothing is chosen any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from graph2mlp.advice import run_advice
from graph2mlp.breakdown import breakdown
from graph2mlp.config import RunConfig
from graph2mlp.data.graph import GraphData
from graph2mlp.deployed import answer_elsewhere
from graph2mlp.evaluation import evaluate_student, student_agreement
from graph2mlp.fcr import feature_contribution, label_propagation
from graph2mlp.measure import environment, peak_rss_mb
from graph2mlp.result_file import SCHEMA
from graph2mlp.run import versions
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student
from graph2mlp.tasks import CLASSIFICATION
from graph2mlp.teachers.extract import weights_fingerprint
from graph2mlp.teachers.knowledge import TeacherKnowledge
from graph2mlp.teachers.models import Teacher
from graph2mlp.training.loop import Fitted
from graph2mlp.training.student import answer

__all__ = ["Cost", "Finished", "run_result"]


@dataclass(frozen=True)
class Cost:
    """Seconds of wall clock, and of this process's CPU time (None where it was not noted)."""

    wall: float = 0.0
    cpu: float | None = 0.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Finished:
    """Everything a run has made."""

    graph: GraphData
    knowledge: tuple[TeacherKnowledge, ...]
    teacher: Mapping[str, Any] | None
    """What is known of the teacher; None without one."""
    model: Teacher | None
    """The teacher itself, where it can be asked."""
    table: StructureTable | None
    student: Student
    fitted: Fitted
    control: Student
    """The plain MLP."""
    costs: Mapping[str, Cost]
    """Of teacher and structure."""
    deployed: tuple[GraphData, ...] = ()
    """Other graphs to answer."""
    device: str = "cpu"
    """Where the networks learned."""

    @property
    def first(self) -> TeacherKnowledge | None:
        return self.knowledge[0] if self.knowledge else None

    def val(self, student: Student, table: StructureTable | None) -> float:
        """The metric on the validation nodes, asked as known nodes."""
        ids = self.graph.split.val
        return self.graph.targets.score(answer(student, self.graph, table, ids), self.graph.y[ids])


def run_result(config: RunConfig, made: Finished) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The content of `result.json`, and of `breakdown.json` (None for a task without right and wrong answers)."""
    graph, student, fitted = made.graph, made.student, made.fitted
    agree = student_agreement(student, made.first, graph, made.table) if made.first else None
    student_cost = Cost(fitted.seconds, fitted.cpu_seconds)
    costs = {**made.costs, "student": student_cost}
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "graph": {
            "name": graph.name,
            "nodes": graph.num_nodes,
            "edges": graph.num_edges,
            "features": graph.num_features,
            "classes": graph.num_classes,
        },
        "task": graph.task.name,
        "metric": graph.task.metric,
        "method": config.method,
        "setting": config.setting,
        "regime": student.regime,
        "seed": config.seed,
        "teacher": made.teacher,
        "student": {
            "layers": student.spec.layers,
            "hidden": student.spec.hidden,
            "parameters": student.num_parameters,
            # Once it has learned from validation nodes, what it answers there says nothing: what it said before does.
            "val": made.val(student, made.table) if fitted.val is None else fitted.val,
            **evaluate_student(student, graph, made.table),
            "agreement": agree,
            "epochs": fitted.epochs,
        },
        "mlp": {"parameters": made.control.num_parameters, **evaluate_student(made.control, graph, None)},
        "fcr": _fcr(made),
        "seconds": {name: cost.wall for name, cost in costs.items()},
        "cpu_seconds": {name: cost.cpu for name, cost in costs.items()},
        "threads": torch.get_num_threads(),
        "device": made.device,
        "peak_rss_mb": peak_rss_mb(),
        "fingerprint": weights_fingerprint(student),
        "graph_fingerprint": graph.fingerprint(),
        "versions": versions(),
        "machine": {name: value for name, value in environment().items() if name in ("cpu", "cores", "os")},
    }
    if made.deployed:
        result["deploy"] = [
            answer_elsewhere(other, teacher=made.model, student=student, control=made.control, table=made.table)
            for other in made.deployed
        ]
    if graph.task is not CLASSIFICATION:
        return result | {"advice": run_advice(result, {})}, None
    details = breakdown(graph, made.table, student, made.control, knowledge=made.first, teacher=made.model)
    return result | {"advice": run_advice(result, details["parts"])}, details


def _fcr(made: Finished) -> dict[str, Any] | None:
    """What features contribute to the teacher's accuracy, on validation nodes; None without a teacher, or classes."""
    if made.teacher is None or made.graph.task is not CLASSIFICATION:
        return None
    observed = made.graph.observed()
    val = observed.split.val
    compared = {  # all three with the class frequencies of the labelled nodes
        "gnn": float(made.teacher.get("val_as_labelled", made.teacher["val"])),
        "mlp": made.val(made.control, None),
        "propagation": observed.targets.score(label_propagation(observed)[val], observed.y[val]),
    }
    ratio = feature_contribution(**compared)
    return {"percent": ratio.percent if ratio.known else None, "reason": ratio.reason, **compared}
