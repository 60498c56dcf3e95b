"""Everything a run reads before it writes a byte: the graph, and what teachers from outside say of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from graph2mlp.atomic import write_json
from graph2mlp.config import RunConfig
from graph2mlp.config_rules import unread
from graph2mlp.data.datasets import dataset_names
from graph2mlp.data.graph import GraphData
from graph2mlp.data.targets import known_rows
from graph2mlp.deployed import check_varies, read_deployed
from graph2mlp.errors import ConfigError, DataError, KnowledgeError, RunError
from graph2mlp.methods import METHODS, method_class
from graph2mlp.run import run_graph
from graph2mlp.tasks import CLASSIFICATION, REGRESSION
from graph2mlp.teachers.extract import extract_knowledge
from graph2mlp.teachers.files import check_teaches, read_knowledge
from graph2mlp.teachers.knowledge import TeacherKnowledge
from graph2mlp.teachers.load_own import load_own_teacher
from graph2mlp.teachers.own import OwnTeacher

__all__ = ["Inputs", "check_same_inputs", "read_inputs"]


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a run reads before it writes: the full graph, what training may see of it, what outsiders say."""

    graph: GraphData
    observed: GraphData
    knowledge: tuple[TeacherKnowledge, ...]
    """From files, or what a teacher of the user's own said of the observed graph; row i about its node i."""
    teacher: OwnTeacher | None = None
    deployed: tuple[GraphData, ...] = ()
    """Graphs that are answered at the end, and nothing else."""


def read_inputs(config: RunConfig, files: Sequence[Path] = ()) -> Inputs:
    """Read and check everything a run depends on, so that a mistake costs nothing.

    Raises:
        Graph2MLPError: the graph, a knowledge file or the user's own teacher is missing, damaged, or does not fit.
    """
    if files and config.teacher.own:
        raise ConfigError("Give --knowledge or a teacher of your own (--teacher-module, --teacher-weights), not both.")
    graph = _noted(run_graph(config), config, files)
    observed, deployed = graph.observed(), read_deployed(config, graph)
    _check_task(config, graph)
    _check_reported(graph)
    if graph.task is REGRESSION:
        for part, ids in graph.split.parts().items():
            if len(ids):
                check_varies(graph, ids, f"the nodes in '{part}'")
    elif graph.task is CLASSIFICATION and config.graph not in dataset_names():
        _check_classes(graph)  # a published split is taken as it is: Texas has a class of one node
    if config.teacher.own and config.hyper.needs_teacher:
        return replace(_own_inputs(config, graph, observed), deployed=deployed)
    knowledge = tuple(read_knowledge(file, graph) for file in files)
    for file, one in zip(files, knowledge, strict=True):
        if bool(torch.isin(one.node_ids, graph.split.unseen).any()):
            raise KnowledgeError(
                f"{file} speaks of nodes that are unseen in the production setting with seed {config.seed}. "
                "Extract it from the observed graph only."
            )
        check_teaches(one.aligned(observed), observed, force=config.teacher.force)
        if one.graph and one.graph != observed.fingerprint():
            raise KnowledgeError(
                f"{file} was extracted from another graph, or from this one with another split, whose training labels "
                "may be test labels here. Use the same graph, seed and setting, or extract it again."
            )
    return Inputs(graph, observed, knowledge, deployed=deployed)


def check_same_inputs(inputs: Inputs, record: Path, device: str = "cpu") -> None:
    """Note what a run depends on in the file `record`; when the run goes on, it must still be the same.

    Raises:
        RunError: the graph, its split, the knowledge or the kind of device is another one now.
    """
    said = [hashlib.blake2b(one.logits.numpy().tobytes(), digest_size=16).hexdigest() for one in inputs.knowledge]
    now = {"graph": inputs.graph.fingerprint(), "knowledge": said, "device": device}
    if not record.exists():
        write_json(record, now)
        return
    run = record.parent.parent
    before = {"device": "cpu"} | json.loads(record.read_text(encoding="utf-8"))
    if before.pop("device") != now.pop("device"):
        raise RunError(f"{run} was begun on another device than {device}: resume it with the --device of that time.")
    if before != now:
        raise RunError(
            f"The graph '{inputs.graph.name}', its split or the teacher's knowledge changed since {run} was begun. "
            "Start it again with --force."
        )


def _check_task(config: RunConfig, graph: GraphData) -> None:
    if graph.task.name not in config.hyper.tasks:
        able = [name for name in METHODS if graph.task.name in method_class(name).tasks]
        raise ConfigError(
            f"Method '{config.method}' is for {', '.join(config.hyper.tasks)}, but graph '{graph.name}' asks for "
            f"{graph.task.name}. Methods that can do it: {', '.join(able)}."
        )


def _noted(graph: GraphData, config: RunConfig, files: Sequence[Path]) -> GraphData:
    """The graph with a note where a setting, perhaps one that the user has not made, does not do what it says."""
    outside = bool(files) or config.teacher.own
    notes = []
    if outside and config.teacher.frequencies == "observed" and graph.task is CLASSIFICATION:
        notes.append("teacher.frequencies=observed is for built-in teachers; what yours says is taken as it is")
    names = unread(config.hyper, vars(config))
    of_teacher = [name for name in names if name.startswith("teacher.")]
    of_table = [name for name in names if name not in of_teacher]
    for those, why in ((of_teacher, "has no teacher"), (of_table, "reads no structure table")):
        if those:
            notes.append(f"{', '.join(those)} not used: method '{config.method}' {why}")
    return replace(graph, notes=(*graph.notes, *notes)) if notes else graph


def _check_reported(graph: GraphData) -> None:
    """Every part that accuracy is reported on needs a label; a test set that is to be predicted has none."""
    for part, ids in graph.split.parts().items():
        if len(ids) and not bool(known_rows(graph.y[ids]).any()):
            where = "the unseen share of 'test'" if part == "unseen" else f"'{part}'"
            raise DataError(
                f"Graph '{graph.name}': no node in {where} has a label, so nothing can be measured there. Put labelled "
                "nodes into that part; nodes to be predicted belong to none, and are learned from and answered all "
                "the same."
            )


def _check_classes(graph: GraphData) -> None:
    sizes = torch.bincount(graph.y[graph.split.train], minlength=graph.num_classes)
    if bool((sizes == 0).any()):
        names = ", ".join(f"'{graph.class_names[int(c)]}'" for c in torch.nonzero(sizes == 0)[:3])
        raise DataError(
            f"Graph '{graph.name}': {int((sizes == 0).sum())} of {graph.num_classes} classes ({names}) have no "
            "training node, so nothing can learn them. Put nodes of each class into train, or label them -1 (unknown)."
        )


def _own_inputs(config: RunConfig, graph: GraphData, observed: GraphData) -> Inputs:
    """The user's teacher, asked about the observed graph only, as in training."""
    teacher = load_own_teacher(config.teacher, observed)
    if graph.edge_weight is not None and not teacher.takes_weights:
        unread = f"its teacher '{config.teacher.label}' has no argument edge_weight, so it is asked without weights"
        graph = replace(graph, notes=(*graph.notes, unread))
    teacher.examine(observed)
    said = extract_knowledge(teacher, observed, name=config.teacher.label)
    suspect = {} if config.teacher.weights else {"suspect": "It has no --teacher-weights: was it trained at all?"}
    check_teaches(said, observed, force=config.teacher.force, **suspect)
    return Inputs(graph, observed, (said,), teacher)
