"""What is known of a file before anyone may deploy it: its accuracy, what it loses to the network, and a sample."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from graph2mlp.data.graph import GraphData
from graph2mlp.data.targets import known_rows
from graph2mlp.errors import BundleError
from graph2mlp.export.graph_requests import node_requests
from graph2mlp.export.manifest import GateInfo
from graph2mlp.export.parity import compare_answers
from graph2mlp.export.requests import Floats, Requests
from graph2mlp.export.runtime import Predictor
from graph2mlp.export.verify import student_logits
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student

__all__ = [
    "calibration_requests",
    "check_gate",
    "file_accuracy",
    "measure_gate",
    "names_file",
    "sample_file",
    "sample_nodes",
]

SAMPLE_SIZE = 500
SAMPLE_SEED = 0
CHUNK = 4096
"""Requests that are made, and answered, at once."""


def measure_gate(
    predictor: Predictor, student: Student, table: StructureTable | None, graph: GraphData, max_drop: float
) -> GateInfo:
    """The file against the network on the validation nodes, of which every graph has some. Reads no test label."""
    ids = graph.split.val
    parts = [node_requests(graph, chunk, structure=table is not None) for chunk in torch.split(ids, CHUNK)]
    network = np.concatenate([student_logits(student, table, part) for part in parts])
    answers = np.concatenate([predictor.predict(part).logits for part in parts])
    kind, y = graph.task, graph.y[ids].numpy()
    alike = compare_answers(network, answers, what="The exported file", kind=kind)
    return GateInfo(
        requests=len(ids),
        accuracy=kind.score(kind.labels(answers), y),
        network=kind.score(kind.labels(network), y),
        metric=kind.metric,
        agreement=alike.agreement,
        total_variation=alike.total_variation,
        max_drop=max_drop,
    )


def check_gate(gate: GateInfo, preset: str) -> None:
    """Refuse a file that loses more than it may.

    Raises:
        BundleError: it does.
    """
    # Both are counts over the same number of requests: what is left of a difference of 0 is rounding.
    if gate.drop > gate.max_drop + 1e-9:
        raise BundleError(
            f"Preset '{preset}' loses {100 * gate.drop:.2f} points of validation {gate.metric} ({gate.accuracy:.2%}, "
            f"the network {gate.network:.2%}, {gate.requests} requests), more than the {100 * gate.max_drop:.2f} "
            "allowed. Nothing was written; choose another preset, or allow more with --max-drop."
        )


def file_accuracy(
    predictor: Predictor, student: Student, table: StructureTable | None, graph: GraphData, setting: str
) -> tuple[dict[str, float], dict[str, float]]:
    """The metric of the file and of the torch student, by part, on the same test requests."""
    split, kind = graph.split, graph.task
    parts = {"test": (split.test, False)}
    if setting == "production":
        parts = {"tran": (split.test, False), "ind": (split.unseen, False), "cold": (split.unseen, True)}
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    for part, (ids, cold) in parts.items():
        ids = ids[known_rows(graph.y[ids])]
        if not len(ids):
            continue
        answers = []
        for chunk in torch.split(ids, CHUNK):
            requests = node_requests(graph, chunk, structure=table is not None, cold=cold)
            said = predictor.predict(requests).labels, kind.labels(student_logits(student, table, requests))
            answers.append(said)
        y = graph.y[ids].numpy()
        ours[part], theirs[part] = (kind.score(np.concatenate(side), y) for side in zip(*answers, strict=True))
    for metrics in (ours, theirs):
        if "tran" in metrics and "ind" in metrics:
            metrics["prod"] = 0.8 * metrics["tran"] + 0.2 * metrics["ind"]
    return ours, theirs


def calibration_requests(graph: GraphData, *, structure: bool) -> Iterator[Requests]:
    """Training and validation nodes as a device would ask for them; with structure also as if they had no edges.

    The mean over neighbours lies between their own rows, so these are the ends of what a request can be.
    """
    ids = torch.cat([graph.split.train, graph.split.val])
    for cold in (False, True) if structure else (False,):
        for chunk in torch.split(ids, CHUNK):
            yield node_requests(graph, chunk, structure=structure, cold=cold)


def sample_nodes(graph: GraphData) -> Tensor:
    """Up to 500 test nodes, unseen ones included, drawn with a fixed seed."""
    pool = torch.cat([graph.split.test, graph.split.unseen])
    if not pool.numel():
        pool = torch.cat([graph.split.val, graph.split.train])
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    return pool[torch.randperm(len(pool), generator=generator)[:SAMPLE_SIZE]].sort().values


def sample_file(
    graph: GraphData,
    ids: Tensor,
    inputs: dict[str, np.ndarray],
    network: Floats,
    answers: Floats | None,
    unit: Floats | None,
) -> bytes:
    """`sample.npz`: the model's inputs, the expected answers, and what is true (`y`, unknown as in the graph).

    Of quantities also their `unit [C]`, which differences are held against.

    The expected answers are torch's when the file must agree with them to float32's precision (`answers` is None);
    else they are the file's own, and torch's are kept beside them as `network_logits`.
    """
    kind, logits = graph.task, network if answers is None else answers
    arrays: dict[str, np.ndarray] = {
        "ids": ids.numpy(),
        "logits": logits,
        "labels": kind.labels(logits),
        "y": graph.y[ids].numpy(),
        **inputs,
    }
    if "probabilities" in kind.outputs:
        arrays["probabilities"] = kind.probabilities(logits).astype(np.float32)
    if unit is not None:
        arrays["unit"] = unit
    if answers is not None:
        arrays["network_logits"] = network
    return _npz(**arrays)


def names_file(names: np.ndarray) -> bytes:
    """`nodes.npz`, so that a request can name a node's neighbours as the user does."""
    return _npz(names=names)


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
