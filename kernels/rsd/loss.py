"""The public function: checks, centring and scaling in plain autograd; then the opaque operator."""

from __future__ import annotations

import torch
from torch import Tensor

from graph2mlp.errors import KernelError
from graph2mlp.kernels.checks import check_index, check_pair, check_weight
from graph2mlp.kernels.dispatch import TILES_KIB, backend, select
from graph2mlp.kernels.operator import PairLoss, statistics_dtype
from graph2mlp.kernels.rows import unit_rows
from graph2mlp.kernels.rsd.chunked import chunked
from graph2mlp.kernels.rsd.reference import reference

__all__ = ["rsd"]

_WIDEST = 128  # features of one tile of the fused kernels
_MANY = 100_000  # rows; below, matrix products are as fast as the fused kernels


def rsd(
    student: Tensor,
    teacher: Tensor,
    *,
    center: bool = False,
    normalize: bool = False,
    weight: Tensor | None = None,
    diagonal: bool = True,
    anchors: Tensor | None = None,
    precise: bool = True,
) -> Tensor:
    """Rows must be as similar to each other in the student as in the teacher (NOSMOG, Tian et al. 2023).

    `L = (1/N^2) sum_ij (t_i . t_j - s_i . s_j)^2`. Exact over all pairs in O(N d^2) time and O(d^2) memory, also when
    the loss is close to 0.

    Shapes: `student [N, A]`, `teacher [N, B]`; float32 scalar (float64 for float64 rows). Gradients for both sides; no
    second derivative.

    Args:
        center: subtract the mean row of each side first.
        normalize: scale all rows to length 1 first, after `center`. Rows of zeros stay zeros and get no gradient.
        weight: `[N]`; the pair (i, j) weighs `w_i w_j` in the mean, and row i weighs `w_i` in the mean row. A row of
            weight 0 is left out, even if it holds NaN. Weights that leave no pair give NaN.
        diagonal: False leaves out the pairs (i, i), which only compare lengths.
        anchors: `[M]`, row indices: the pairs of all N rows with these M rows only, each as often as it is named. With
            `weight` an anchor keeps the weight of its row.
        precise: accumulate in float64. False computes in float32 where that is safe (one width, `diagonal`): right to
            1e-6 unless the sides differ by little more than a rotation, or by less than 1e-3 after `center` or
            `normalize`, which round the rows anew.

    Raises:
        KernelError: shapes, types or settings that do not fit.
    """
    _check(student, teacher, weight, diagonal, anchors)
    if backend() == "dense":
        if anchors is not None:
            _check_range(anchors, len(student))
        return reference(
            student, teacher, center=center, normalize=normalize, weight=weight, diagonal=diagonal, anchors=anchors
        )
    statistics = statistics_dtype(student, teacher)
    if weight is not None:
        weight = weight.to(statistics)
        # Before any product: 0 x NaN is NaN.
        student, teacher = (torch.where((weight == 0)[:, None], 0, side) for side in (student, teacher))
    if center or normalize:
        # Rounding the new rows to float32 would undo what float64 sums gain. The kernels take nothing wider.
        dtype = torch.float64 if precise and backend() not in ("triton", "interpret") else statistics
        student, teacher = (_prepared(side.to(dtype), weight, center, normalize) for side in (student, teacher))
    one = torch.ones((), dtype=statistics_dtype(student, teacher), device=student.device)
    return _operator.total(student, teacher, one, weight, anchors, diagonal, precise).to(statistics)


def _check(student: Tensor, teacher: Tensor, weight: Tensor | None, diagonal: bool, anchors: Tensor | None) -> None:
    check_pair("rsd", student, teacher)
    if weight is not None:
        check_weight("rsd", weight, len(student))
        if weight.requires_grad:
            raise KernelError("rsd: weights get no gradient; detach them.")
    if anchors is not None:
        if anchors.dim() != 1 or not len(anchors) or anchors.is_floating_point() or anchors.dtype == torch.bool:
            raise KernelError(
                "rsd: anchors must be a vector of row indices, at least one; "
                f"got {str(anchors.dtype).removeprefix('torch.')} {list(anchors.shape)}."
            )
        if not diagonal:
            raise KernelError("rsd: anchors and diagonal=False do not go together; leave one of them out.")
    if not diagonal and len(student) == 1:
        raise KernelError("rsd: diagonal=False leaves no pair of a single row; pass at least two rows.")


def _check_range(anchors: Tensor, rows: int) -> None:
    check_index("rsd", "anchors", anchors, len(anchors), below=rows)


def _prepared(side: Tensor, weight: Tensor | None, center: bool, normalize: bool) -> Tensor:
    if center:
        if weight is None:
            side = side - side.mean(0)
        else:
            # Not a matrix product: autocast would round it.
            side = side - (weight[:, None] * side).sum(0) / weight.sum()
    return unit_rows(side) if normalize else side


def _core(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    node_weight: Tensor | None,
    anchors: Tensor | None,
    diagonal: bool,
    precise: bool,
    need_student: bool,
    need_teacher: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if anchors is not None:
        _check_range(anchors, len(student))
    rest = (weight, node_weight, anchors, diagonal, precise, need_student, need_teacher)
    # Float64 sums are a promise of `precise`: only whoever asks for the kernels by name trades them for speed.
    if backend() == "auto" and (precise or len(student) < _MANY):
        return chunked(student, teacher, *rest)
    unsupported = _unsupported(student, teacher)
    if select("rsd", student, teacher, unsupported=unsupported, shared_kib=TILES_KIB) == "triton":
        from graph2mlp.kernels.rsd.fused import fused  # triton has wheels for Linux only

        return fused(student, teacher, *rest)
    return chunked(student, teacher, *rest)


def _unsupported(student: Tensor, teacher: Tensor) -> str | None:
    if student.size(1) != teacher.size(1):
        return f"widths {student.size(1)} and {teacher.size(1)} (it needs one width)"
    for side in (student, teacher):
        if side.dtype == torch.float64 or side.size(1) > _WIDEST or side.dtype != student.dtype:
            return f"{side.dtype} features {side.size(1)} wide (float32, float16 or bfloat16, at most {_WIDEST})"
    return None


_operator = PairLoss("rsd", _core)
