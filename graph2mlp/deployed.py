"""Graphs that nothing was learned from: everyone answers them once, in the final report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graph2mlp.config import RunConfig
from graph2mlp.data.datasets import load_graph
from graph2mlp.data.graph import GraphData
from graph2mlp.data.targets import known_rows
from graph2mlp.errors import DataError
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student
from graph2mlp.tasks import CLASSIFICATION, REGRESSION
from graph2mlp.teachers.extract import answer_all
from graph2mlp.teachers.models import Teacher
from graph2mlp.training.student import answer

__all__ = ["answer_elsewhere", "check_varies", "read_deployed"]


def read_deployed(config: RunConfig, graph: GraphData) -> tuple[GraphData, ...]:
    """The graphs of `config.deploy`, each with the features and classes of `graph`.

    Raises:
        DataError: one cannot be read, or has other features or classes.
    """
    root = Path(config.root) if config.root else None
    found = []
    for name in config.deploy:
        other = load_graph(name, root=root, seed=config.seed, undirected=config.undirected, task=config.task)
        for what, mine, its in (
            ("the task", graph.task.name, other.task.name),
            ("features", graph.num_features, other.num_features),
            ("classes", graph.class_names, other.class_names),
        ):
            if mine != its:
                raise DataError(
                    f"--deploy {name}: it has {what} {_short(its)}, but '{graph.name}', which is learned from, has "
                    f"{_short(mine)}. Both graphs need the same, in the same order."
                )
        _check_feature_names(name, graph, other)
        if other.task is REGRESSION:
            check_varies(other, torch.arange(other.num_nodes), "its nodes")
        found.append(other)
    return tuple(found)


def _check_feature_names(name: str, graph: GraphData, other: GraphData) -> None:
    """Columns in another order would be answered all the same; of graphs without names nobody can tell."""
    mine, its = graph.feature_names, other.feature_names
    if mine is None or its is None or mine == its:
        return
    place = next(i for i, (one, another) in enumerate(zip(mine, its, strict=True)) if one != another)
    raise DataError(
        f"--deploy {name}: its feature {place} is called '{its[place]}', but that of '{graph.name}', which is learned "
        f"from, '{mine[place]}'. Both graphs need the same features, in the same order."
    )


def check_varies(graph: GraphData, ids: Tensor, which: str) -> None:
    """Refuse nodes `ids [n]` on which R2, a share of the variance of each quantity, cannot be measured.

    Raises:
        DataError: the labelled ones among them have fewer than two different values of a quantity.
    """
    y = graph.y[ids][known_rows(graph.y[ids])]
    for name, values in zip(graph.class_names, y.T, strict=True):
        if not bool((values != values[:1]).any()):
            raise DataError(
                f"Graph '{graph.name}': {which} have fewer than two different values of '{name}', so R2 cannot be "
                "measured there. Put more labelled nodes there, or leave that quantity out."
            )


@torch.no_grad()
def answer_elsewhere(
    other: GraphData, *, teacher: Teacher | None, student: Student, control: Student, table: StructureTable | None
) -> dict[str, Any]:
    """How `teacher`, `student` and plain MLP (`control`) do on the labelled nodes of a graph none has seen.

    The teacher reads the other graph's own edges. Its nodes have no row in the structure `table`, nor have their
    neighbours, so a student with structure is asked as without edges. Beside accuracies there is the share of the
    largest class (`majority`, the score of the best single answer), and, of two classes, the area under the ROC curve,
    which a shift of the class sizes leaves alone.
    """
    ids = torch.nonzero(known_rows(other.y)).squeeze(1)
    labels = other.y[ids]
    logits = {
        "student": answer(student, other, table, ids, cold=True),
        "mlp": answer(control, other, None, ids),
    }
    if teacher is not None:
        # No node is one of those it was trained on, whatever its number: a teacher that keeps rows of its own has none.
        unknown = torch.full((other.num_nodes,), -1)
        logits["teacher"] = answer_all(teacher, other, unknown)[0][ids]
    return {
        "graph": other.name,
        "fingerprint": other.fingerprint(),
        "nodes": len(ids),
        "edges": other.num_edges,
        "majority": other.task.baseline(labels.numpy()),
        **{who: _figures(other, one, labels) for who, one in logits.items()},
        "agreement": other.targets.agreement(logits["student"], logits["teacher"]) if "teacher" in logits else None,
    }


def _figures(other: GraphData, logits: Tensor, labels: Tensor) -> Mapping[str, float]:
    figures = {"accuracy": other.targets.score(logits, labels)}
    if other.task is CLASSIFICATION and logits.size(1) == 2 and 0 < int(labels.sum()) < len(labels):
        from sklearn.metrics import roc_auc_score

        figures["auc"] = float(roc_auc_score(labels.numpy(), (logits[:, 1] - logits[:, 0]).numpy()))
    return figures


def _short(value: int | str | tuple[str, ...]) -> str:
    if not isinstance(value, tuple):
        return str(value)
    return f"({', '.join(value[:5])}{', ...' if len(value) > 5 else ''})"
