"""The public function: checks, sampling, scaling; then the closed form or the opaque operator."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from graph2mlp.errors import KernelError, suggest
from graph2mlp.kernels.checks import check_index, check_pair, check_positive, check_weight
from graph2mlp.kernels.dispatch import TILES_KIB, backend, select
from graph2mlp.kernels.gsp.chunked import chunked
from graph2mlp.kernels.gsp.pairs import centred
from graph2mlp.kernels.gsp.reference import reference
from graph2mlp.kernels.operator import PairLoss, statistics_dtype
from graph2mlp.kernels.rows import sampled, unit_rows
from graph2mlp.kernels.rsd import rsd

__all__ = ["Divergence", "Similarity", "gsp"]

Similarity = Literal["cosine", "poly", "l2", "rbf"]
Divergence = Literal["mse", "kl"]

_WIDEST = {2: 256, 4: 128}  # by bytes per feature: both sides lie in registers and shared memory at once


def gsp(
    student: Tensor,
    teacher: Tensor,
    *,
    kernel: Similarity = "cosine",
    divergence: Divergence = "mse",
    tau: float = 1.0,
    gamma: float = 0.5,
    sign: Literal[1, -1] = 1,
    diagonal: bool | None = None,
    max_samples: int | None = None,
    generator: torch.Generator | None = None,
    anchors: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """The student's similarities of all pairs of rows must equal the teacher's (GSP; Joshi et al. 2022).

    `L_i = mean_j (K(s_i, s_j) - K(t_i, t_j))^2`, or with `divergence="kl"`
    `L_i = KL( softmax_j K(t_i, t_j) / tau || softmax_j K(s_i, s_j) / tau )`. `K(x, y)` by `kernel`: `cosine`; `poly`,
    its square; `l2`, the distance `sign |x - y|`; `rbf`, `exp(-gamma |x - y|^2)`. Exact over all pairs in O(N d)
    memory; the default (cosine, mse) in O(N d^2) time.

    Shapes: `student [N, A]`, `teacher [N, B]`; float32 scalar (float64 for float64 rows), or `[N]` with
    `reduction="none"`. Gradients for both sides; no second derivative. The gradient of a distance is 0 where it is 0.
    KL of rows that nearly agree is a difference of larger numbers: it may come out as -1e-7.

    Args:
        tau: temperature of `kl`.
        gamma: of `rbf`.
        sign: of `l2`; -1 makes it a similarity, as `kl` would have it. The paper's code has +1.
        diagonal: whether j = i takes part; True for `mse` and False for `kl` if None. A row's similarity with itself
            is the largest, and takes nearly all the softmax of a small tau. A row without pairs has loss 0.
        max_samples: use at most so many rows, drawn with `generator`.
        anchors: `[M]`, compare every row with these rows only. They may repeat.
        weight: `[N]`, of each `L_i`; `mean` divides by their sum. A row of weight 0 remains a column of the others'
            losses. If it is not, because `anchors` leave it out, it has no gradient even if it holds NaN.

    Raises:
        KernelError: shapes, types or settings that do not fit.
    """
    _check(student, teacher, kernel, divergence, tau, gamma, sign, max_samples, anchors, weight, reduction)
    chosen = sampled("gsp", student, max_samples, generator)
    if chosen is not None:
        student, teacher, weight = student[chosen], teacher[chosen], None if weight is None else weight[chosen]
    diagonal = divergence == "mse" if diagonal is None else diagonal
    if backend() == "dense":
        return reference(
            student,
            teacher,
            kernel=kernel,
            divergence=divergence,
            tau=tau,
            gamma=gamma,
            sign=sign,
            diagonal=diagonal,
            anchors=anchors,
            weight=weight,
            reduction=reduction,
        )
    if weight is not None and anchors is not None:
        unused = (weight == 0) & ~torch.isin(torch.arange(len(weight), device=weight.device), anchors)
        student, teacher = (torch.where(unused[:, None], 0, side) for side in (student, teacher))
    plain = weight is None and anchors is None and reduction != "none"
    # Whoever asks for the sweeps by name gets them.
    if kernel == "cosine" and divergence == "mse" and diagonal and plain and backend() in ("auto", "chunked"):
        # Rows as they were given: rounding those of length 1 would undo what the closed form gains.
        return rsd(student, teacher, normalize=True) * (1 if reduction == "mean" else len(student))
    s, t = _features(student, teacher, kernel)
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    s, t = s.to(dtype), t.to(dtype)
    rest = (anchors, kernel, divergence, float(tau), float(gamma), sign, diagonal)
    return _operator.reduced(s, t, weight, reduction, *rest)


def _check(
    student: Tensor,
    teacher: Tensor,
    kernel: str,
    divergence: str,
    tau: float,
    gamma: float,
    sign: int,
    max_samples: int | None,
    anchors: Tensor | None,
    weight: Tensor | None,
    reduction: str,
) -> None:
    check_pair("gsp", student, teacher)
    for name, value, known in (
        ("kernel", kernel, get_args(Similarity)),
        ("divergence", divergence, get_args(Divergence)),
        ("reduction", reduction, ("mean", "sum", "none")),
    ):
        if value not in known:
            raise KernelError(f"gsp: there is no {name} '{value}'. {suggest(str(value), known)}")
    check_positive("gsp", "tau", tau)
    check_positive("gsp", "gamma", gamma)
    if sign not in (1, -1):
        raise KernelError(f"gsp: sign must be 1 or -1, got {sign}.")
    if max_samples is not None and anchors is not None:
        raise KernelError("gsp: anchors are rows of the whole set and max_samples draws a part of it; leave one out.")
    if weight is not None:
        check_weight("gsp", weight, len(student))
    if anchors is not None:
        if not anchors.numel():
            raise KernelError("gsp: anchors is empty; at least one row to compare with is needed.")
        check_index("gsp", "anchors", anchors, anchors.numel())


def _features(student: Tensor, teacher: Tensor, kernel: str) -> tuple[Tensor, Tensor]:
    """Rows for the plain products: of length 1 for `cosine` and `poly`. Autograd goes through here."""
    if kernel not in ("cosine", "poly"):
        return student, teacher
    dtype = statistics_dtype(student, teacher)
    return unit_rows(student.to(dtype)), unit_rows(teacher.to(dtype))


def _core(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    anchors: Tensor | None,
    kernel: str,
    divergence: str,
    tau: float,
    gamma: float,
    sign: int,
    diagonal: bool,
    need_student: bool,
    need_teacher: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if anchors is not None:
        check_index("gsp", "anchors", anchors, len(anchors), below=len(student))
        anchors = anchors.long()
    if kernel in ("l2", "rbf"):
        student, teacher = (centred(side, anchors, kernel) for side in (student, teacher))
    unsupported = None
    for side in (student, teacher):
        widest = _WIDEST.get(side.element_size(), 0)
        if side.size(1) > widest:
            unsupported = (
                f"{side.dtype} features {side.size(1)} wide (float16 or bfloat16 at most {_WIDEST[2]}, "
                f"float32 at most {_WIDEST[4]} wide)"
            )
    rest = (weight, anchors, kernel, divergence, tau, gamma, sign, diagonal, need_student, need_teacher)
    if select("gsp", student, teacher, unsupported=unsupported, shared_kib=TILES_KIB) == "triton":
        from graph2mlp.kernels.gsp.fused import fused  # triton has wheels for Linux only

        return fused(student, teacher, *rest)
    return chunked(student, teacher, *rest)


_operator = PairLoss("gsp", _core)
