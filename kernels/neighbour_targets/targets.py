"""The teacher's distributions summed over each node's in-neighbours, once; then a loss that needs no edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from graph2mlp.errors import KernelError
from graph2mlp.kernels.checks import check_positive
from graph2mlp.kernels.neighbours import NeighbourIndex
from graph2mlp.kernels.operator import statistics_dtype

__all__ = ["NeighbourTargets", "neighbour_kl", "neighbour_targets"]


@dataclass(frozen=True, eq=False)
class NeighbourTargets:
    """What `neighbour_kl` needs of teacher and graph: N x C numbers, whatever the number of edges."""

    total: Tensor
    """`[N, C]`: the teacher's distributions, summed over the in-neighbours of each node."""
    degree: Tensor
    """`[N]`: how many in-neighbours each node has."""
    constant: Tensor
    """Scalar, float64: the sum over all edges of `sum_c p_c log p_c`, which makes the loss a KL; no gradient."""

    def to(self, device: torch.device | str) -> NeighbourTargets:
        """The same targets on another device."""
        return NeighbourTargets(self.total.to(device), self.degree.to(device), self.constant.to(device))


def neighbour_targets(teacher_logits: Tensor, graph: NeighbourIndex | Tensor, tau: float = 1.0) -> NeighbourTargets:
    """Sum `softmax(teacher_logits / tau)` over the in-neighbours of every node. Run it once, before training.

    Shapes: `teacher_logits [N, C]`; `graph` a `NeighbourIndex` of N nodes or an `edge_index [2, E]`. Targets are
    constants: the teacher gets no gradient.

    Raises:
        KernelError: shapes, types or `tau` that do not fit.
    """
    _check_logits("neighbour_targets", "teacher_logits", teacher_logits)
    check_positive("neighbour_targets", "tau", tau)
    if isinstance(graph, Tensor):
        graph = NeighbourIndex.from_edge_index(graph, len(teacher_logits))
    if graph.num_nodes != len(teacher_logits) or graph.pointer.device != teacher_logits.device:
        raise KernelError(
            f"neighbour_targets: the graph has {graph.num_nodes} nodes on {graph.pointer.device}, teacher_logits "
            f"{len(teacher_logits)} rows on {teacher_logits.device}; row i belongs to node i, on the same device."
        )
    with torch.no_grad(), torch.autocast(teacher_logits.device.type, enabled=False):
        p = torch.softmax(teacher_logits.to(statistics_dtype(teacher_logits)) / tau, -1)
        total = graph.incoming.sum(p, p.new_ones(graph.num_edges))
        edges_out = graph.out_pointer.diff()
        # 0 log 0 is 0. A node that is nobody's neighbour plays no part, even if its logits are NaN.
        entropy = torch.where(edges_out == 0, 0, torch.special.entr(p).sum(-1, dtype=torch.float64))
        return NeighbourTargets(total, graph.degree, -(edges_out * entropy).sum())


def neighbour_kl(
    student_logits: Tensor,
    targets: NeighbourTargets,
    *,
    tau: float = 1.0,
    reduction: Literal["edges", "nodes", "sum"] = "edges",
) -> Tensor:
    """The student must say at a node what the teacher says at its in-neighbours: a KL over edges, without the edges.

    `sum over edges j -> i of KL(p_j || q_i) = constant - sum_i total_i . log q_i`, `q = softmax(student_logits / tau)`.
    `edges` divides by the number of edges, `nodes` by the number of nodes with an in-neighbour. A graph without edges
    has loss 0. No factor tau^2 is applied.

    Shapes: `student_logits [N, C]`, rows as in `targets`; float32 scalar (float64 for float64 logits or targets).

    The value is a constant less a sum: it has an absolute error of about 1e-8 in float32, and may be that much below 0.

    Args:
        tau: temperature of the student; take that of the targets.

    Raises:
        KernelError: shapes, types or settings that do not fit.
    """
    _check_logits("neighbour_kl", "student_logits", student_logits)
    check_positive("neighbour_kl", "tau", tau)
    if reduction not in ("edges", "nodes", "sum"):
        raise KernelError(f"neighbour_kl: reduction must be edges, nodes or sum, got '{reduction}'.")
    total, degree = targets.total, targets.degree
    if student_logits.shape != total.shape or student_logits.device != total.device:
        raise KernelError(
            f"neighbour_kl: student_logits are {list(student_logits.shape)} on {student_logits.device}, the targets "
            f"{list(total.shape)} on {total.device}; both must be [nodes, classes] of one graph on one device."
        )
    dtype = statistics_dtype(student_logits, total)
    # Nodes without in-neighbours are masked before use: 0 times NaN is NaN.
    logits = torch.where((degree == 0)[:, None], 0, student_logits.to(dtype))
    log_q = F.log_softmax(logits / tau, -1)
    # The constant and the sum nearly cancel when the student is good, so the sum has float64 too.
    loss = targets.constant - (total * log_q).sum(dtype=torch.float64)
    if reduction != "sum":
        count = degree.sum() if reduction == "edges" else (degree > 0).sum()
        loss = loss / count.clamp(min=1)
    return loss.to(dtype)


def _check_logits(loss: str, name: str, logits: Tensor) -> None:
    if logits.dim() != 2 or not logits.is_floating_point() or not logits.numel():
        raise KernelError(
            f"{loss}: {name} must be a floating-point matrix [nodes, classes] that is not empty, "
            f"got {str(logits.dtype).removeprefix('torch.')} {list(logits.shape)}."
        )
