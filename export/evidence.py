"""What is known of a file before anyone may deploy it: its accuracy, what it loses to the network, and a sample."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from graph2mlp.data.graph import HIDDEN_LABEL, GraphData
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
    alike = compare_answers(network, answers, what="The exported file")
    y = graph.y[ids].numpy()
    return GateInfo(
        requests=len(ids),
        accuracy=float((answers.argmax(1) == y).mean()),
        network=float((network.argmax(1) == y).mean()),
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
            f"Preset '{preset}' loses {100 * gate.drop:.2f} points of validation accuracy ({gate.accuracy:.2%}, the "
            f"network {gate.network:.2%}, {gate.requests} requests), more than the {100 * gate.max_drop:.2f} allowed. "
            "Nothing was written; choose another preset, or allow more with --max-drop."
        )


def file_accuracy(
    predictor: Predictor, student: Student, table: StructureTable | None, graph: GraphData, setting: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Accuracy of the file and of the torch student, by part, on the same test requests."""
    split = graph.split
    parts = {"test": (split.test, False)}
    if setting == "production":
        parts = {"tran": (split.test, False), "ind": (split.unseen, False), "cold": (split.unseen, True)}
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    for part, (ids, cold) in parts.items():
        ids = ids[graph.y[ids] != HIDDEN_LABEL]
        right = np.zeros(2, dtype=np.int64)
        for chunk in torch.split(ids, CHUNK):
            requests = node_requests(graph, chunk, structure=table is not None, cold=cold)
            y = graph.y[chunk].numpy()
            right += (
                (predictor.predict(requests).labels == y).sum(),
                (student_logits(student, table, requests).argmax(1) == y).sum(),
            )
        if len(ids):
            ours[part], theirs[part] = (float(count) / len(ids) for count in right)
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
    graph: GraphData, ids: Tensor, inputs: dict[str, np.ndarray], network: Floats, answers: Floats | None
) -> bytes:
    """`sample.npz`: the model's inputs, the expected answers, and what is true (`y`, -1 where unknown).

    The expected answers are torch's when the file must agree with them to float32's precision (`answers` is None);
    else they are the file's own, and torch's are kept beside them as `network_logits`.
    """
    logits = network if answers is None else answers
    arrays: dict[str, np.ndarray] = {
        "ids": ids.numpy(),
        "logits": logits,
        "probabilities": torch.from_numpy(logits).softmax(-1).numpy(),
        "labels": logits.argmax(1),
        "y": graph.y[ids].numpy(),
        **inputs,
    }
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
