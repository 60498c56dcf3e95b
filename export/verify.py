"""Proof that an exported file computes what the network computes; export fails without it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from graph2mlp.data.features import Features, SparseRows
from graph2mlp.errors import ParityError
from graph2mlp.export.bundle import EXTERNAL_DATA
from graph2mlp.export.engines import Engine
from graph2mlp.export.numpy_engine import NumpyEngine, UnsupportedModelError
from graph2mlp.export.ort_engine import OnnxruntimeEngine
from graph2mlp.export.parity import ATOL, Difference, compare_logits
from graph2mlp.export.requests import PAD, Floats, Requests
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student, StudentInput
from graph2mlp.tasks import REGRESSION, TASKS

__all__ = ["Parity", "check_parity", "output_unit", "student_logits", "student_undecided"]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What was compared, and how far the two were apart at worst."""

    requests: int
    batch_sizes: tuple[int, ...]
    max_abs: float
    ties: int
    engines: tuple[str, ...]
    """What ran the file: onnxruntime, and numpy where it knows every operator."""


def check_parity(
    student: Student,
    table: StructureTable | None,
    model: bytes | Path,
    requests: Requests,
    *,
    batch_sizes: Sequence[int] = (1, 7, 256),
    atol: float = ATOL,
) -> Parity:
    """Hold the file's logits and probabilities against the torch student's, at several batch sizes.

    Expected answers come from the student as trained and from the table's own rule, not from anything export built.
    The file is run by onnxruntime and, as a third opinion, by numpy; quantised models by onnxruntime alone.
    Each batch size runs over the requests from the start, up to 64 batches.

    Raises:
        ParityError: see `compare_logits`.
    """
    engines = _engines(model)
    inputs, kind, unit = set(engines[0].inputs), TASKS[student.spec.task], output_unit(student)
    worst = Difference(rows=0, max_abs=0.0, max_scaled=0.0, ties=0)
    ties = 0
    for size in batch_sizes:
        for start in range(0, min(len(requests), 64 * size), size):
            part = requests.take(slice(start, start + size))
            feeds = _feeds(part, inputs, student)
            expected = student_logits(student, table, part)
            for engine in engines:
                logits, *others = engine.run(feeds)
                what = f"At batch size {size} the exported file{' in numpy' if engine.name == 'numpy' else ''}"
                found = compare_logits(expected, logits, atol=atol, what=what, unit=unit)
                # Of quantities there is nothing else. The negation also refuses NaN.
                if others and not np.abs(kind.probabilities(expected) - others[0]).max() <= atol:
                    raise ParityError(f"{what} gives other probabilities than the student's logits stand for.")
                worst = max(worst, found, key=lambda d: d.max_scaled)
                ties += found.ties if engine is engines[0] else 0
    names = tuple(engine.name for engine in engines)
    return Parity(
        requests=len(requests), batch_sizes=tuple(batch_sizes), max_abs=worst.max_abs, ties=ties, engines=names
    )


def output_unit(student: Student) -> Floats | None:
    """What a difference is held against in each column `[C]`; None for logits, whose unit is 1.

    Of quantities the deviation on the training nodes, and a hundredth of their mean: float32 has no finer steps than
    that on a mean far from zero.
    """
    if student.spec.task != REGRESSION.name:
        return None
    spread, center = (student.outputs.get_buffer(name) for name in ("spread", "center"))
    unit: Floats = (spread + center.abs() / 100).numpy()
    return unit


def student_logits(student: Student, table: StructureTable | None, requests: Requests) -> Floats:
    """The torch student's answer to `requests`, `[B, C]`."""
    with torch.inference_mode():
        logits: Floats = student(_inputs(student, table, requests)).logits.numpy()
    return logits


def student_undecided(student: Student, table: StructureTable | None, requests: Requests) -> NDArray[np.bool_]:
    """Requests whose answer hangs on the last bits of a sum, `[B]`; see `Student.undecided`."""
    undecided: NDArray[np.bool_] = student.undecided(_inputs(student, table, requests)).numpy()
    return undecided


def _inputs(student: Student, table: StructureTable | None, requests: Requests) -> StudentInput:
    structure = None
    if table is not None:
        assert requests.neighbors is not None
        structure = table.for_unseen(torch.from_numpy(requests.neighbors))
    return StudentInput(_features(requests, student.spec.features), structure)


def _features(requests: Requests, width: int) -> Features:
    if requests.x is not None:
        return torch.from_numpy(requests.x)
    assert requests.indices is not None
    assert requests.values is not None
    kept = requests.indices != PAD
    offsets = np.concatenate([[0], kept.sum(1).cumsum()])
    indices, values = torch.from_numpy(requests.indices[kept]), torch.from_numpy(requests.values[kept])
    return SparseRows(indices, torch.from_numpy(offsets), values, width)


def _feeds(requests: Requests, inputs: set[str], student: Student) -> dict[str, np.ndarray]:
    feeds: dict[str, np.ndarray] = {}
    if "x" in inputs:
        feeds["x"] = requests.dense(student.spec.features)
    else:
        feeds["indices"], feeds["values"] = requests.sparse()
    if "neighbors" in inputs:
        assert requests.neighbors is not None
        feeds["neighbors"] = requests.neighbors
    return feeds


def _engines(model: bytes | Path) -> list[Engine]:
    where = "The exported file"
    engines: list[Engine] = [
        OnnxruntimeEngine(model if isinstance(model, bytes) else str(model), where=where, threads=1)
    ]
    content, data = (model, None) if isinstance(model, bytes) else (model.read_bytes(), model.with_name(EXTERNAL_DATA))
    with suppress(UnsupportedModelError):  # torch and onnxruntime are left
        engines.append(NumpyEngine(content, where=where, data=data))
    return engines
