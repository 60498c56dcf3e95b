"""LSP on a GPU: one number per edge forward, and each node's gradient gathered from its edges in both directions.

Rows of very different length are dealt with by size: short ones share a program, and one of more than a chunk of edges
(a hub) is cut where the chunks of the edge list end; its parts are added up in order. Each program owns what it
writes, so nothing is atomic and two runs agree bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from graph2mlp.kernels import launch
from graph2mlp.kernels.launch import Tiles
from graph2mlp.kernels.lsp.edges import edge_pull, edge_similarity, hub_sum, neighbour_sum
from graph2mlp.kernels.lsp.rows import hub_kl, hub_lse, row_statistics
from graph2mlp.kernels.lsp.similarity import Similarity
from graph2mlp.kernels.neighbours import NeighbourIndex, Segments

__all__ = ["Tables", "fused"]


# By padded width: rows of edges x features in registers, read as whole rows.
_EDGE_TILES = {16: Tiles(128, 16, 4, 1), 32: Tiles(64, 32, 4, 1), 64: Tiles(64, 64, 4, 1), 128: Tiles(32, 128, 4, 1)}
_SUM_TILES = {
    16: Tiles(32, 16, 1, 1),
    32: Tiles(32, 32, 1, 1),
    64: Tiles(16, 64, 1, 1),
    128: Tiles(8, 128, 1, 1),
    256: Tiles(8, 256, 2, 1),
}
_PULL_TILES = Tiles(512, 1, 4, 1)
_ROW_TILES = Tiles(32, 16, 4, 1)
_PART_TILES = Tiles(1, 1024, 4, 1)


@dataclass(frozen=True)
class Tables:
    """How the kernels are cut: `rows` of edges or nodes by `columns` of features or edges."""

    chunk: int = 1024
    """Edges of one row that one program may work through; a longer row is cut."""
    rows: Tiles = _ROW_TILES
    """Whole rows: nodes by edges."""
    parts: Tiles = _PART_TILES
    """Parts of cut rows: parts by edges."""
    edge: Tiles | None = None
    """Products of edges: edges by features; by width if None."""
    sum: Tiles | None = None
    """Gradients: edges by features; by width if None."""


_TABLES = Tables()


def fused(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    graph: NeighbourIndex,
    similarity: Similarity,
    need_student: bool,
    need_teacher: bool,
    tables: Tables = _TABLES,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `Core`: losses `[N]`, the KL of each node's neighbours, and the gradients of `sum_i weight_i L_i`."""
    launcher = _Launcher(graph, similarity, tables)
    s, t = _Side(student, launcher), _Side(teacher, launcher)
    if not graph.num_edges:
        d_student, d_teacher = (
            torch.zeros_like(side.x if needed else weight[:0], dtype=torch.float32)
            for side, needed in ((s, need_student), (t, need_teacher))
        )
        return torch.zeros_like(weight, dtype=torch.float32), d_student, d_teacher
    lse_a, lse_b, losses = (torch.empty_like(weight, dtype=torch.float32) for _ in range(3))
    known = {"raw_a": t.raw, "raw_b": s.raw, "lse_a": lse_a, "lse_b": lse_b, "losses": losses}
    known |= {"pointer": graph.pointer, "owner": graph.target}
    launcher.statistics(known)
    d_student, d_teacher = losses.new_empty(0), losses.new_empty(0)
    if need_student or need_teacher:
        pull_a, pull_b = torch.empty_like(t.raw), torch.empty_like(s.raw)
        known |= {"weight": weight.float(), "pull_a": pull_a, "pull_b": pull_b}
        launcher(edge_pull, graph.num_edges, _PULL_TILES, known, {"A": need_teacher, "B": need_student})
        if need_student:
            d_student = s.gradient(pull_b)
        if need_teacher:
            d_teacher = t.gradient(pull_a)
    return losses, d_student, d_teacher


class _Launcher:
    """Starts the kernels for one graph and one similarity, giving each what it asks for by name."""

    def __init__(self, graph: NeighbourIndex, similarity: Similarity, tables: Tables) -> None:
        self.graph, self.tables = graph, tables
        # Two for each chunk of the edge list; none if no row can be a hub.
        self.slots = 2 * triton.cdiv(graph.num_edges, tables.chunk) if graph.num_edges > tables.chunk else 0
        self.numbers = {"n_rows": graph.num_nodes, "n_edges": graph.num_edges}
        self.factors = {"scale": similarity.scale, "gamma": similarity.gamma}
        self.constants = {"KERNEL": similarity.kernel, "CHUNK": tables.chunk}
        self.constants |= {"DISTANCE": similarity.distance, "NORMALIZED": similarity.normalized}

    def __call__(
        self, kernel: Any, rows: int, tiles: Tiles, tensors: dict[str, Tensor], flags: dict[str, Any], columns: int = 1
    ) -> None:
        """One program for `tiles.rows` of `rows`, and for `tiles.columns` of `columns`."""
        every = {**tensors, **self.numbers, **self.factors}
        constants = {"ROWS": tiles.rows, "COLUMNS": tiles.columns, **self.constants, **flags}
        launch.run(
            kernel,
            (triton.cdiv(rows, tiles.rows), columns),
            {name: value for name, value in every.items() if name in kernel.arg_names},
            {name: value for name, value in constants.items() if name in kernel.arg_names},
            tiles,
        )

    def statistics(self, known: dict[str, Tensor]) -> None:
        """Fill `lse_a`, `lse_b` and `losses` of all rows, whole and cut."""
        parts, loss_parts = (known["losses"].new_empty(max(self.slots, 1), width) for width in (4, 1))
        known = {**known, "parts": parts}
        self(row_statistics, self.graph.num_nodes, self.tables.rows, known, {"HUBS": False})
        if self.slots:
            self(row_statistics, self.slots, self.tables.parts, known, {"HUBS": True})
            self(hub_lse, self.slots, self.tables.rows, known, {})
            self(hub_kl, self.slots, self.tables.parts, {**known, "parts": loss_parts}, {})
            known = {**known, "parts": loss_parts, "out": known["losses"]}
            self(hub_sum, self.slots, Tiles(1, 1, 1, 1), known, {"D": 1, "ADD": False})


class _Side:
    """The features of one side, the raw number of each edge, and the way back from a pull on edges to a gradient."""

    def __init__(self, x: Tensor, launcher: _Launcher) -> None:
        self.x, self.launcher, graph = x.contiguous(), launcher, launcher.graph
        length = torch.linalg.vector_norm(x, dim=1, dtype=torch.float32)
        self.inverse = torch.where(length == 0, 0, length.reciprocal())
        self.raw = self.inverse.new_empty(graph.num_edges)
        width = max(16, triton.next_power_of_2(x.size(1)))
        self.tiles = launcher.tables.sum or _SUM_TILES[min(width, 256)]
        tiles = launcher.tables.edge or _EDGE_TILES[min(width, 128)]
        known = {"features": self.x, "inverse": self.inverse, "out": self.raw}
        known |= {"owner": graph.target, "other": graph.source}
        launcher(edge_similarity, graph.num_edges, tiles, known, {"D": x.size(1)})

    def gradient(self, pull: Tensor) -> Tensor:
        """`[N, d]`, float32: first the edges into each row, then those out of it."""
        out = torch.empty_like(self.x, dtype=torch.float32)
        self._gather(self.launcher.graph.incoming, pull, out, add=False)
        self._gather(self.launcher.graph.outgoing, pull, out, add=True)
        return out

    def _gather(self, rows: Segments, pull: Tensor, out: Tensor, *, add: bool) -> None:
        graph, slots, width = self.launcher.graph, self.launcher.slots, self.x.size(1)
        parts = out.new_empty(slots, width)
        known = {"features": self.x, "inverse": self.inverse, "raw": self.raw, "pull": pull, "out": out}
        known |= {"pointer": rows.pointer, "owner": rows.own, "other": rows.other, "order": graph.out_edge}
        # Whole rows, and parts of hubs, have a program of their own: `edges` of it are looked at together.
        tiles = Tiles(1, self.tiles.columns, self.tiles.warps, self.tiles.stages)
        columns, constants = triton.cdiv(width, tiles.columns), {"D": width, "EDGES": self.tiles.rows, "ORDERED": add}
        self.launcher(neighbour_sum, len(out), tiles, known, {**constants, "HUBS": False, "ADD": add}, columns)
        if slots:
            hubs = {**constants, "HUBS": True, "ADD": False}
            self.launcher(neighbour_sum, slots, tiles, {**known, "out": parts}, hubs, columns)
            self.launcher(hub_sum, slots, tiles, {**known, "parts": parts}, {"D": width, "ADD": add}, columns)
