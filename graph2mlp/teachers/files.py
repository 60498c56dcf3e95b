"""Knowledge in files made anywhere: our safetensors, `.npy` (row i is node i), csv or parquet with node ids."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graph2mlp.data.columns import Columns, positions_of, read_columns
from graph2mlp.data.graph import GraphData
from graph2mlp.data.mapped import UNREADABLE
from graph2mlp.errors import DataError, KnowledgeError
from graph2mlp.teachers.knowledge import TeacherKnowledge

__all__ = ["check_teaches", "read_knowledge"]

_NUMBERED = re.compile(r"(.*?)\[?(0|[1-9][0-9]*)\]?")


def read_knowledge(path: Path, graph: GraphData) -> TeacherKnowledge:
    """What a teacher said of nodes of the full `graph`, from a file of any known kind.

    `.npy`: `[N, C]`, one row for each node in the graph's order. csv and parquet: a column `id` with the graph's names
    of nodes (row numbers where it has none), and a column per class, called like the classes or `logit0`, `logit1`, ...
    Rows of probabilities are turned into their logarithms.

    Raises:
        KnowledgeError: the file is missing, damaged, of another kind, or speaks of other nodes or classes.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise KnowledgeError(f"No such knowledge file: {path}.")
    if suffix == ".safetensors":
        return TeacherKnowledge.load(path)
    if suffix == ".npy":
        return _made(path, graph, torch.arange(graph.num_nodes), _read_npy(path, graph))
    if suffix in (".csv", ".parquet"):
        return _from_table(path, graph)
    raise KnowledgeError(f"Cannot read knowledge from {path}: expected .safetensors, .npy, .csv or .parquet.")


def check_teaches(
    knowledge: TeacherKnowledge,
    observed: GraphData,
    *,
    force: bool,
    suspect: str = "Are rows, columns or weights mixed up?",
) -> float:
    """The score on the validation nodes of `observed`, whose rows `knowledge` is aligned with; `suspect` is what may
    be wrong with it.

    Raises:
        KnowledgeError: it is no better than one answer for all nodes, and not `force`.
    """
    val, task = observed.split.val, observed.task
    labels = observed.y[val]
    found, constant = observed.targets.score(knowledge.logits[val], labels), task.baseline(labels.numpy())
    if not found > constant + 1e-6 and not force:
        raise KnowledgeError(
            f"Teacher '{knowledge.name}' reaches {found:.1%} ({task.metric}) on {len(labels)} validation nodes, one "
            f"answer for all of them {constant:.1%}. {suspect} Take it anyway with --set teacher.force=true"
        )
    return found


def _made(path: Path, graph: GraphData, ids: Tensor, values: Tensor) -> TeacherKnowledge:
    # No fingerprint: nobody knows which split and which edges this teacher saw.
    return TeacherKnowledge(
        name=path.stem, node_ids=ids, logits=graph.targets.as_logits(values), hidden={}, graph="", weights=""
    )


def _read_npy(path: Path, graph: GraphData) -> Tensor:
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError("it holds several arrays")
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise KnowledgeError(f"{path} is not a readable .npy file ({reason}). Save it with numpy.save.") from None
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise KnowledgeError(f"{path}: expected numbers [nodes, classes], got {array.dtype} {list(array.shape)}.")
    if len(array) != graph.num_nodes:
        raise KnowledgeError(
            f"{path} has {len(array)} rows, but graph '{graph.name}' has {graph.num_nodes} nodes: row i must be about "
            "node i. Use csv or parquet with a column 'id' to speak of some nodes only."
        )
    return torch.from_numpy(np.asarray(array).astype(np.float32, copy=False))


def _from_table(path: Path, graph: GraphData) -> TeacherKnowledge:
    try:
        table = read_columns(path, ("id",), needs=[("id",)])
    except DataError as error:
        raise KnowledgeError(str(error)) from None
    names = graph.names if graph.names is not None else np.arange(graph.num_nodes)
    found = positions_of(table.words["id"], names)
    if not len(table) or bool((found < 0).any()):
        wrong = f"'{table.words['id'][found < 0][0]}' is no node" if len(table) else "there are no rows"
        raise KnowledgeError(f"{path}: {wrong} of graph '{graph.name}', whose ids look like '{names[0]}'.")
    if len(np.unique(found)) < len(found):
        raise KnowledgeError(f"{path}: an id comes twice. Keep one row for each node.")
    order = np.argsort(found)
    columns = _class_columns(table, graph)
    return _made(path, graph, torch.from_numpy(found[order]), torch.from_numpy(table.numbers[order][:, columns]))


def _class_columns(table: Columns, graph: GraphData) -> list[int]:
    """Positions of the classes' columns, in the order of the classes."""
    names = list(table.number_names)
    if sorted(names) == sorted(graph.class_names):
        return [names.index(name) for name in graph.class_names]
    matches = [_NUMBERED.fullmatch(name) for name in names]
    if matches and all(matches) and len({one[1] for one in matches if one}) == 1:
        numbers = [int(one[2]) for one in matches if one]
        if sorted(numbers) == list(range(graph.num_classes)):
            return [numbers.index(c) for c in range(graph.num_classes)]
    raise KnowledgeError(
        f"{table.path} has columns {', '.join(names[:8]) or 'none'} beside 'id', but graph '{graph.name}' has "
        f"{graph.num_classes} {graph.task.units}. Call them {', '.join(graph.class_names[:3])}, ... or logit0 to "
        f"logit{graph.num_classes - 1}."
    )
