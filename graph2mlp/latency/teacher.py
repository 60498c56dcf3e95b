"""The other side of the bench: the teacher that would have to serve, and the student before export. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graph2mlp.data.features import SparseRows
from graph2mlp.export.deploy import RunLike
from graph2mlp.export.graph_requests import node_requests
from graph2mlp.export.requests import Ints, Requests
from graph2mlp.latency.contender import Contender
from graph2mlp.latency.rows import FETCH, MLP, PYG, SAMPLED, TORCH, WHOLE, About
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
        self._student, self._control = run.student(), run.control()
        self._table = run.structure() if self._student.spec.structure else None
        split = self._graph.split
        self._ids = torch.cat([split.test, split.unseen])
        if not self._ids.numel():
            self._ids = torch.arange(self._graph.num_nodes)
        self.requests: Requests = node_requests(self._graph, self._ids, structure=self._table is not None)
        self.y: NDArray[Any] = self._graph.y[self._ids].numpy()
        self.kind = self._graph.task
        neighbors = self.requests.neighbors
        self._neighbors = None if neighbors is None else torch.from_numpy(neighbors)

    def teachers(self) -> list[Contender]:
        """The teacher's ways of answering; the first fetches every neighbour it needs, and no more.

        Raises:
            RunError: the run holds no teacher.
        """
        teacher = self._run.teacher()
        server = TeacherServer(self._graph, teacher)
        stored = _kilobytes([self._graph.x, server.adjacency, *teacher.parameters()])
        ways: dict[str, Callable[[Ints], Tensor]] = {
            FETCH: server.logits,
            SAMPLED: server.sampled_logits,
            PYG: server.pyg_logits,
            WHOLE: server.whole_graph_logits,
        }
        return [self._teacher(what, answer, stored) for what, answer in ways.items()]

    def students(self) -> list[Contender]:
        """The student before export, and the plain MLP if the run kept it."""
        tables = [self._table.rows] if self._table is not None else []
        stored = [*self._student.state_dict().values(), *tables]
        found = [self._torch(TORCH, "student", self._student, stored)]
        if self._control is not None:
            found.append(self._torch(MLP, "mlp", self._control, list(self._control.parameters())))
        return found

    def _teacher(self, what: str, answer: Callable[[Ints], Tensor], stored: float) -> Contender:
        ids = self._ids.numpy()
        return Contender(
            about=self._about(what, "teacher", "graph", stored),
            prepare=lambda rows: partial(answer, ids[rows]),
            labels=lambda rows: self.kind.labels(answer(ids[rows]).numpy()),
            serve=lambda rows: answer(ids[rows]),
            any_batch=what == WHOLE,
        )

    def _torch(self, what: str, kind: str, network: Student, stored: Sequence[Tensor]) -> Contender:
        table = self._table if network.spec.structure else None

        def ask(rows: Ints) -> tuple[Tensor | SparseRows, Tensor | None]:
            positions = torch.from_numpy(rows)
            return self._graph.features(self._ids[positions]), self._neighbours_of(positions)

        def answer(features: Tensor | SparseRows, neighbours: Tensor | None) -> Tensor:
            with torch.inference_mode():
                structure = None if table is None or neighbours is None else table.for_unseen(neighbours)
                logits: Tensor = network(StudentInput(features, structure)).logits
            return logits

        return Contender(
            about=self._about(what, kind, network.regime, _kilobytes(stored)),
            prepare=lambda rows: partial(answer, *ask(rows)),
            labels=lambda rows: self.kind.labels(answer(*ask(rows)).numpy()),
            serve=lambda rows: answer(*ask(rows)),
        )

    def _neighbours_of(self, positions: Tensor) -> Tensor | None:
        if self._neighbors is None:
            return None
        part = self._neighbors[positions]
        used = (part >= 0).any(0).nonzero()
        return part[:, : int(used[-1]) + 1 if len(used) else 1]

    def _about(self, what: str, kind: str, regime: str, size_kb: float) -> About:
        reported = self._run.result.get(kind) or {}
        return About(
            what=what,
            kind=kind,
            regime=regime,
            size_kb=size_kb,
            reported_accuracy=reported.get("test", reported.get("prod")),
            task=self.kind.name,
        )


def _kilobytes(tensors: Sequence[Tensor | nn.Parameter]) -> float:
    total = 0
    for tensor in tensors:
        parts = [tensor]
        if tensor.layout == torch.sparse_csr:
            parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
        total += sum(part.numel() * part.element_size() for part in parts)
    return total / 1024
