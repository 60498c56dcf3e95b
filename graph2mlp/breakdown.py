"""The final report in detail: where on the test nodes a run's networks are right, as counts.

Computed once, when the run ends, from the same answers as the accuracies of `result.json`; the page of the run is made
from these counts and never needs the graph again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graph2mlp.data.graph import HIDDEN_LABEL, GraphData
from graph2mlp.evaluation import teacher_answer
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student
from graph2mlp.teachers.knowledge import TeacherKnowledge
from graph2mlp.teachers.models import Teacher
from graph2mlp.training.student import answer

__all__ = ["breakdown"]

SCHEMA = 1

CONFUSION_CLASSES = 20
"""A matrix of more classes is not kept: nobody reads 400 cells, and its size grows with the square."""
_BINS = 10
_ROWS = 50_000
"""Rows whose probabilities are held at once."""

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class _Said:
    """A network's answers to n nodes: class and its probability, each `[n]`."""

    label: Ints
    confidence: NDArray[np.float64]
    """In float64: the mean confidence of a bin is then the same in whatever order it is summed."""


def breakdown(
    graph: GraphData,
    table: StructureTable | None,
    student: Student,
    control: Student,
    *,
    knowledge: TeacherKnowledge | None = None,
    teacher: Teacher | None = None,
) -> dict[str, Any]:
    """Counts of right answers for each part of the test nodes: `test`, or `tran`, `ind` and `cold`.

    `control` is the plain MLP; `knowledge` is what the teacher said about observed nodes, `teacher` the network that
    can be asked about unseen ones. Each part holds `nodes` (those with a label), `right` by network, `gained` and
    `lost` (nodes on which only the student, or only the teacher, is right), the same for groups of nodes (`groups`:
    quarters by degree, classes, quarters by the student's confidence), `calibration` in ten bins of equal width for
    each network, and the student's `confusion` (rows: true class), None above 20 classes.
    """
    split = graph.split
    parts = [("tran" if split.unseen.numel() else "test", split.test, False)]
    if split.unseen.numel():
        parts += [("ind", split.unseen, False), ("cold", split.unseen, True)]
    found = {}
    for name, ids, cold in parts:
        said = {
            "student": _said(answer(student, graph, table, ids, cold=cold)),
            "mlp": _said(answer(control, graph, None, ids)),
        }
        if ids is split.unseen and teacher is not None:
            said["teacher"] = _said(teacher_answer(teacher, graph, cold=cold)[ids])
        elif ids is split.test and knowledge is not None:
            said["teacher"] = _said(knowledge.logits[knowledge.rows(graph.node_ids[ids])])
        # A node that arrives without edges has no degree to sort it by.
        degree = None if cold else _degree(graph)[ids.numpy()]
        found[name] = _part(graph, graph.y[ids], said, degree)
    return {"schema": SCHEMA, "classes": list(graph.class_names), "parts": found}


def _degree(graph: GraphData) -> Ints:
    """Edges from observed nodes into each node `[N]`: what is there to be read when the node is asked about."""
    observed = torch.ones(graph.num_nodes, dtype=torch.bool)
    observed[graph.split.unseen] = False
    source, target = graph.edge_index
    counts: Ints = torch.bincount(target[observed[source]], minlength=graph.num_nodes).numpy()
    return counts


def _part(graph: GraphData, labels: Tensor, said: Mapping[str, _Said], degree: Ints | None) -> dict[str, Any]:
    known = (labels != HIDDEN_LABEL).numpy()
    truth: Ints = labels.numpy()[known]
    right: dict[str, Flags] = {who: one.label[known] == truth for who, one in said.items()}
    confidence = {who: one.confidence[known] for who, one in said.items()}
    groups: dict[str, list[dict[str, Any]]] = {}
    if degree is not None:
        groups["degree"] = [
            {"low": int(low), "high": int(high), **_counts(right, chosen)}
            for low, high, chosen in _quarters(degree[known])
        ]
    groups["class"] = [
        {"name": name, **_counts(right, truth == number)} for number, name in enumerate(graph.class_names)
    ]
    groups["confidence"] = [
        {"low": float(low), "high": float(high), **_counts(right, chosen)}
        for low, high, chosen in _quarters(confidence["student"])
    ]
    confusion = None
    if graph.num_classes <= CONFUSION_CLASSES:
        confusion = np.zeros((graph.num_classes, graph.num_classes), dtype=np.int64)
        np.add.at(confusion, (truth, said["student"].label[known]), 1)
    return {
        **_counts(right, np.ones(len(truth), dtype=bool)),
        "groups": groups,
        "calibration": {who: _bins(confidence[who], right[who]) for who in said},
        "confusion": None if confusion is None else confusion.tolist(),
    }


def _said(logits: Tensor) -> _Said:
    """What is counted of `logits [n, C]`, which may go then: of a large graph those of three networks are much."""
    largest = [torch.softmax(rows.double(), -1).amax(-1) for rows in logits.split(_ROWS)]
    return _Said(logits.numpy().argmax(-1), torch.cat(largest).numpy())


def _counts(right: Mapping[str, Flags], chosen: Flags) -> dict[str, Any]:
    """Of the chosen nodes: how many, how many each network has right, and what separates student and teacher."""
    counts: dict[str, Any] = {"nodes": int(chosen.sum())}
    counts["right"] = {who: int(one[chosen].sum()) for who, one in right.items()}
    if "teacher" in right:
        counts["gained"] = int((right["student"] & ~right["teacher"] & chosen).sum())
        counts["lost"] = int((right["teacher"] & ~right["student"] & chosen).sum())
    return counts


def _quarters(values: NDArray[Any]) -> Iterator[tuple[Any, Any, Flags]]:
    """Smallest value, largest value and members of up to four groups of about one size; equal values stay together."""
    if not len(values):
        return
    cuts = np.unique(np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf"))
    group = np.searchsorted(cuts, values)
    for number in np.unique(group):
        chosen = group == number
        yield values[chosen].min(), values[chosen].max(), chosen


def _bins(confidence: NDArray[np.float64], right: Flags) -> list[dict[str, Any]]:
    """The bins that hold a node: bounds of the confidence, nodes, their mean confidence, how many are right."""
    place = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    return [
        {
            "low": number / _BINS,
            "high": (number + 1) / _BINS,
            "nodes": int((place == number).sum()),
            "confidence": float(confidence[place == number].mean()),
            "right": int(right[place == number].sum()),
        }
        for number in np.unique(place).tolist()
    ]
