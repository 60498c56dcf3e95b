"""The public function: checks and settings; then the opaque operator."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from graph2mlp.errors import KernelError
from graph2mlp.kernels.checks import check_pair, check_positive
from graph2mlp.kernels.dispatch import backend, select
from graph2mlp.kernels.lsp.chunked import chunked
from graph2mlp.kernels.lsp.reference import reference
from graph2mlp.kernels.lsp.similarity import Kernel, Similarity
from graph2mlp.kernels.neighbours import NeighbourIndex
from graph2mlp.kernels.operator import PairLoss, statistics_dtype

__all__ = ["lsp"]


def lsp(
    student: Tensor,
    teacher: Tensor,
    graph: NeighbourIndex | Tensor,
    *,
    kernel: Kernel = "cosine",
    sign: Literal[-1, 1] | None = None,
    tau: float = 1.0,
    gamma: float = 0.5,
    reduction: Literal["nodes", "edges", "sum", "none"] = "nodes",
) -> Tensor:
    """A node is as similar to each of its neighbours in the student as in the teacher (LSP, Yang et al. 2020).

    `L_i = KL(P_i || Q_i)`, where `P_i` and `Q_i` are the softmax over the in-neighbours j of node i of `e(t_i, t_j)`
    and `e(s_i, s_j)`; e is the cosine, its square (`poly`), the inner product (`dot`), the signed distance (`l2`),
    `exp(-gamma |a - b|^2)` (`rbf`) or `exp(-|a - b|_1 / 100)` (`laplace`), each divided by `tau`. A node with one
    in-neighbour has loss 0 and gradient 0; so has a graph without edges.

    Shapes: `student [N, a]`, `teacher [N, b]`, the widths may differ; float32 scalar (float64 if a side is), or `[N]`
    with `reduction="none"`. Gradients for both sides; no second derivative.

    Args:
        graph: a `NeighbourIndex` of the N nodes, or an `edge_index [2, E]` (source, target), which is then sorted at
            every call (and cannot be under torch.compile).
        sign: of `l2` only. -1, the default: near neighbours weigh more. +1: far ones do, as in the public benchmark
            code.
        tau: temperature; the published forms have none.
        gamma: of `rbf` only.
        reduction: `nodes` is the mean over nodes with an in-neighbour, `edges` the sum over all nodes divided by E,
            `none` the loss of every node, 0 without in-neighbours.

    Raises:
        KernelError: shapes, types or settings that do not fit.
    """
    check_pair("lsp", student, teacher)
    _check_settings(kernel, sign, tau, gamma, reduction)
    if isinstance(graph, Tensor):
        graph = NeighbourIndex.from_edge_index(graph, len(student))
    _check_graph(graph, student)
    signed = -1.0 if sign is None else float(sign)
    if backend() == "dense":
        return reference(student, teacher, graph, kernel=kernel, sign=signed, tau=tau, gamma=gamma, reduction=reduction)
    parts = (graph.pointer, graph.source, graph.target, graph.out_pointer, graph.out_edge)
    rest = (*parts, kernel, signed, float(tau), float(gamma))
    if reduction == "none":
        return _operator.rows(student, teacher, *rest)
    weight = torch.ones(len(student), dtype=statistics_dtype(student, teacher), device=student.device)
    if reduction == "nodes":
        weight /= (graph.degree > 0).sum().clamp(min=1)
    elif reduction == "edges":
        weight /= max(graph.num_edges, 1)
    return _operator.total(student, teacher, weight, *rest)


def _check_settings(kernel: str, sign: float | None, tau: float, gamma: float, reduction: str) -> None:
    if kernel not in get_args(Kernel):
        raise KernelError(f"lsp: kernel must be one of {', '.join(get_args(Kernel))}, got '{kernel}'.")
    if sign is not None and (kernel != "l2" or sign not in (-1, 1)):
        raise KernelError(f"lsp: sign is -1 or +1 and belongs to the kernel 'l2'; got {sign} with '{kernel}'.")
    check_positive("lsp", "tau", tau)
    check_positive("lsp", "gamma", gamma)
    if reduction not in ("nodes", "edges", "sum", "none"):
        raise KernelError(f"lsp: reduction must be nodes, edges, sum or none, got '{reduction}'.")


def _check_graph(graph: NeighbourIndex, student: Tensor) -> None:
    if graph.num_nodes != len(student):
        raise KernelError(
            f"lsp: the graph has {graph.num_nodes} nodes and student {len(student)} rows; row i belongs to node i."
        )
    if graph.pointer.device != student.device:
        raise KernelError(
            f"lsp: the graph is on {graph.pointer.device}, student on {student.device}; use graph.to(student.device)."
        )


def _core(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    pointer: Tensor,
    source: Tensor,
    target: Tensor,
    out_pointer: Tensor,
    out_edge: Tensor,
    kernel: str,
    sign: float,
    tau: float,
    gamma: float,
    need_student: bool,
    need_teacher: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    graph = NeighbourIndex(pointer, source, target, out_pointer, out_edge)
    similarity = Similarity(kernel, sign, tau, gamma)
    unsupported = None
    if torch.float64 in (student.dtype, teacher.dtype):
        unsupported = "float64 features (float32, float16 or bfloat16)"
    elif kernel == "laplace":
        unsupported = "the kernel 'laplace'"
    rest = (weight, graph, similarity, need_student, need_teacher)
    if select("lsp", student, teacher, unsupported=unsupported) == "triton":
        from graph2mlp.kernels.lsp.fused import fused  # triton has wheels for Linux only

        return fused(student, teacher, *rest)
    return chunked(student, teacher, *rest)


_operator = PairLoss("lsp", _core)
