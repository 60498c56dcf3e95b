"""The public function: checks, then the opaque operator."""

from __future__ import annotations

import torch
from torch import Tensor

from graph2mlp.errors import KernelError
from graph2mlp.kernels.checks import check_pair
from graph2mlp.kernels.cka.chunked import chunked
from graph2mlp.kernels.cka.reference import reference
from graph2mlp.kernels.dispatch import backend, select
from graph2mlp.kernels.operator import PairLoss, statistics_dtype

__all__ = ["cka"]


def cka(student: Tensor, teacher: Tensor, *, precise: bool = True) -> Tensor:
    """How alike two sets of features are: linear centred kernel alignment (Kornblith et al. 2019).

    `|Tc^T Sc|^2 / (|Tc^T Tc| |Sc^T Sc|)` in Frobenius norms, `Sc` and `Tc` less their mean rows. A similarity in
    [0, 1], not a loss: 1 if the sides are the same up to a rotation, a factor and an offset. Minimise `1 - cka(s, t)`.
    If all rows of a side are equal it is 0, with gradient 0. Exact in O(N d^2) time and O(d^2) memory.

    Shapes: `student [N, A]`, `teacher [N, B]`; float32 scalar (float64 for float64 rows). Gradients for both sides; no
    second derivative.

    Args:
        precise: accumulate in float64. float32 is about twice as fast; its gradient loses digits as the value nears 1.

    Raises:
        KernelError: shapes or types that do not fit; a single row, which is its own mean.
    """
    check_pair("cka", student, teacher)
    if len(student) == 1:
        raise KernelError("cka: a single row less its mean is 0, so nothing can be compared; pass at least two rows.")
    if backend() == "dense":
        return reference(student, teacher)
    one = torch.ones((), dtype=statistics_dtype(student, teacher), device=student.device)
    return _operator.total(student, teacher, one, precise)


def _core(
    student: Tensor, teacher: Tensor, weight: Tensor, precise: bool, need_student: bool, need_teacher: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if backend() != "auto":
        select("cka", student, teacher, unsupported="it has none, a few matrix products are all there is to do")
    return chunked(student, teacher, weight, precise, need_student, need_teacher)


_operator = PairLoss("cka", _core)
