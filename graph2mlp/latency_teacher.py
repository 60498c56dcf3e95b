"""The other side of the bench: the teacher that would have to serve, and the student before export. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from graph2mlp.export.deploy import RunLike
from graph2mlp.export.graph_requests import node_requests
from graph2mlp.export.requests import Requests
from graph2mlp.latency_rows import FETCH, MLP, PYG, TORCH, WHOLE
from graph2mlp.measure import Call
from graph2mlp.structure.requests import neighbour_requests
from graph2mlp.students.base import Student, StudentInput
from graph2mlp.teachers.serving import TeacherServer

__all__ = ["Opponents", "TeacherRun"]


class TeacherRun(RunLike, Protocol):
    """A run whose teacher can be asked."""

    def teacher(self) -> Any: ...

    def control(self) -> Student | None: ...


class Opponents:
    """Teacher and torch student of a run, answering test nodes (unseen ones included, attached by their edges)."""

    def __init__(self, run: TeacherRun) -> None:
        self._run, self._graph = run, run.graph()
        teacher = run.teacher()
        self._server = TeacherServer(self._graph, teacher)
        self._student, self._control = run.student(), run.control()
        self._table = run.structure() if self._student.spec.structure else None
        split = self._graph.split
        self._ids = torch.cat([split.test, split.unseen])
        if not self._ids.numel():
            self._ids = torch.arange(self._graph.num_nodes)
        self.requests: Requests = node_requests(self._graph, self._ids, structure=self._table is not None)
        tables = [self._table.rows] if self._table is not None else []
        edges = self._server.adjacency
        stored = [self._graph.x, edges, *teacher.parameters()]
        self._size_kb = {
            FETCH: _kilobytes(stored),
            PYG: _kilobytes(stored),
            WHOLE: _kilobytes(stored),
            TORCH: _kilobytes([*self._student.state_dict().values(), *tables]),
        }
        if self._control is not None:
            self._size_kb[MLP] = _kilobytes(list(self._control.parameters()))

    def calls(self, pool: Sequence[np.ndarray], *, whole: bool) -> dict[str, Sequence[Call]]:
        """What to time for the batches in `pool`, positions among `requests`."""
        batches = [self._ids[torch.from_numpy(rows)] for rows in pool]
        ids = [batch.numpy() for batch in batches]
        calls: dict[str, Sequence[Call]] = {
            FETCH: [partial(self._server.logits, one) for one in ids],
            PYG: [partial(self._server.pyg_logits, one) for one in ids],
            TORCH: [self._torch_call(self._student, batch) for batch in batches],
        }
        if self._control is not None:
            calls[MLP] = [self._torch_call(self._control, batch) for batch in batches]
        if whole:
            calls[WHOLE] = [partial(self._server.whole_graph_logits, one) for one in ids]
        return calls

    def facts(self, what: str) -> dict[str, Any]:
        """Regime, size and reported accuracy of a row."""
        part, regime = {TORCH: ("student", self._student.regime), MLP: ("mlp", "features")}.get(
            what, ("teacher", "graph")
        )
        reported = self._run.result.get(part) or {}
        return {
            "regime": regime,
            "size_kb": self._size_kb[what],
            "accuracy": reported.get("test", reported.get("prod")),
        }

    def _torch_call(self, network: Student, ids: Tensor) -> Call:
        features, table = self._graph.features(ids), self._table if network.spec.structure else None
        neighbours = neighbour_requests(self._graph, ids)

        def call() -> object:
            with torch.inference_mode():
                structure = None if table is None else table.for_unseen(neighbours)
                return network(StudentInput(features, structure))

        return call


def _kilobytes(tensors: Sequence[Tensor | nn.Parameter]) -> float:
    total = 0
    for tensor in tensors:
        parts = [tensor]
        if tensor.layout == torch.sparse_csr:
            parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
        total += sum(part.numel() * part.element_size() for part in parts)
    return total / 1024
