"""A loss with a hand-written gradient, which torch.compile takes as one operator.

The gradients of a scalar loss are finished in the forward pass, where everything they need is at hand, and only scaled
in the backward pass. A loss per row is differentiated by computing it again with the upstream gradient as row weights.
Either way nothing of size N x N is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from graph2mlp.errors import KernelError
from graph2mlp.kernels.dispatch import backend, chosen

__all__ = ["Core", "PairLoss", "shares", "statistics_dtype"]

Core: TypeAlias = Callable[..., tuple[Tensor, Tensor, Tensor]]
"""`(student, teacher, weight, *rest, need_student, need_teacher) -> (losses, d_student, d_teacher)`.

`losses` has the shape of `weight`: `[N]`, or a scalar for a loss that has no rows. The gradients are those of
`sum_i weight_i losses_i`, in the type of the losses; one that is not needed is an empty tensor."""


def statistics_dtype(*sides: Tensor) -> torch.dtype:
    """The type that sums and losses have: float64 if any side has it, else float32."""
    return torch.float64 if any(side.dtype == torch.float64 for side in sides) else torch.float32


class PairLoss:
    """Registers `core` as `graph2mlp::<name>` with its gradient. The annotations of `core` are its schema."""

    def __init__(self, name: str, core: Core) -> None:
        schema = torch.library.infer_schema(core, mutates_args=())

        def rows(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
            with torch.no_grad(), torch.autocast(inputs[0].device.type, enabled=False):
                losses, d_student, d_teacher = core(*inputs)
            # Features may be column-major, and gradients made like them; a compiler plans for rows.
            return losses, d_student.contiguous(), d_teacher.contiguous()

        def total(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
            losses, d_student, d_teacher = rows(*inputs)
            weight = inputs[2]
            # A row of weight 0 is left out, even if its loss is NaN.
            value = torch.where(weight == 0, 0, weight * losses).sum()
            return value, d_student, d_teacher

        self.name = name
        self._forms = {"rows": rows, "total": total}
        self._rows = torch.library.custom_op(f"graph2mlp::{name}_rows", rows, mutates_args=(), schema=schema)
        self._total = torch.library.custom_op(f"graph2mlp::{name}", total, mutates_args=(), schema=schema)
        self._rows.register_fake(_like(lambda weight: weight.shape))
        self._total.register_fake(_like(lambda weight: torch.Size()))
        self._rows.register_autograd(self._again, setup_context=_keep_inputs)
        self._total.register_autograd(self._scale, setup_context=_keep_gradients)

    def total(self, student: Tensor, teacher: Tensor, weight: Tensor, *rest: object) -> Tensor:
        """`sum_i weight_i L_i`, a scalar. Rows of weight 0 are left out even if they hold NaN."""
        return self._call("total", student, teacher, weight, *rest)

    def rows(self, student: Tensor, teacher: Tensor, *rest: object) -> Tensor:
        """`L_i`, `[N]`."""
        weight = torch.ones(len(student), dtype=statistics_dtype(student, teacher), device=student.device)
        return self._call("rows", student, teacher, weight, *rest)

    def reduced(self, student: Tensor, teacher: Tensor, weight: Tensor | None, reduction: str, *rest: object) -> Tensor:
        """`w_i L_i` for "none", their sum for "sum", and for "mean" that divided by the sum of the weights."""
        if reduction == "none":
            losses = self.rows(student, teacher, *rest)
            return losses if weight is None else torch.where(weight == 0, 0, weight * losses)
        weight = torch.ones(len(student), device=student.device) if weight is None else weight
        weight = weight.to(statistics_dtype(student, teacher))
        return self.total(student, teacher, shares(weight) if reduction == "mean" else weight, *rest)

    def _call(self, form: str, student: Tensor, teacher: Tensor, weight: Tensor, *rest: object) -> Tensor:
        if weight.requires_grad:
            raise KernelError(f"{self.name}: weights get no gradient; detach them.")
        graph = torch.is_grad_enabled()
        needs = graph and student.requires_grad, graph and teacher.requires_grad
        inputs = (student, teacher, weight, *rest, *needs)
        value: Tensor
        if torch.compiler.is_compiling():
            value, _, _ = (self._total if form == "total" else self._rows)(*inputs)
        elif any(needs):
            # The same without the dispatcher, which takes as long as a small batch does.
            value = _Eager.apply(self, form, *inputs)  # type: ignore[no-untyped-call]
        else:
            value, _, _ = self._forms[form](*inputs)
        return value

    def _scale(self, ctx: Any, upstream: Tensor, *unused: object) -> tuple[Tensor | None, ...]:
        self._no_second_derivative()
        # Scaled first, rounded then: a loss scale exists to lift small gradients into the range of half precision.
        scaled = [gradient * upstream for gradient in ctx.saved_tensors]
        return (*_rounded(ctx, scaled), *[None] * ctx.others)

    def _again(self, ctx: Any, upstream: Tensor, *unused: object) -> tuple[Tensor | None, ...]:
        self._no_second_derivative()
        saved = iter(ctx.saved_tensors)
        student, teacher, weight, *rest = (next(saved) if tensor else one for tensor, one in ctx.inputs)
        again = self._rows if torch.compiler.is_compiling() else self._forms["rows"]
        with chosen(ctx.backend):  # autograd runs this in a thread of its own, or after the block that chose
            _, *gradients = again(student, teacher, upstream.to(weight.dtype), *rest)
        return (*_rounded(ctx, gradients), *[None] * ctx.others)

    def _no_second_derivative(self) -> None:
        if torch.is_grad_enabled():
            # torch's own once_differentiable says nothing when the upstream gradient is a constant.
            raise RuntimeError(f"{self.name} has no second derivative; call it without create_graph=True")


class _Eager(torch.autograd.Function):
    """`PairLoss` outside torch.compile: the same two functions, called directly."""

    @staticmethod
    def forward(ctx: Any, loss: PairLoss, form: str, *inputs: Any) -> Tensor:
        output = loss._forms[form](*inputs)
        keep, ctx.backward_of = (_keep_gradients, loss._scale) if form == "total" else (_keep_inputs, loss._again)
        keep(ctx, inputs, output)
        return output[0]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *ctx.backward_of(ctx, upstream))


def _rounded(ctx: Any, gradients: Sequence[Tensor]) -> list[Tensor | None]:
    """Each gradient in the type of its side, None where none is needed."""
    given = zip(ctx.needs, ctx.dtypes, gradients, strict=True)
    return [gradient.to(dtype) if needed else None for needed, dtype, gradient in given]


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output[1:])
    _keep_types(ctx, inputs)


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    # Tensors are saved by autograd, which notices if one is changed in place before the backward pass.
    ctx.save_for_backward(*(one for one in inputs if isinstance(one, Tensor)))
    ctx.backend = backend()
    ctx.inputs = [(True, None) if isinstance(one, Tensor) else (False, one) for one in inputs]
    _keep_types(ctx, inputs)


def _keep_types(ctx: Any, inputs: tuple[Any, ...]) -> None:
    ctx.needs, ctx.dtypes, ctx.others = inputs[-2:], [side.dtype for side in inputs[:2]], len(inputs) - 2


def shares(weight: Tensor) -> Tensor:
    """Weights that sum to 1; those that sum to 0 stay as they are, so that a mean of nothing is 0."""
    total = weight.sum()
    return weight / torch.where(total == 0, 1, total)


def _like(shape: Callable[[Tensor], torch.Size]) -> Core:
    """What the operator returns, without computing it."""

    def fake(student: Tensor, teacher: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        dtype = statistics_dtype(student, teacher)
        sides = [side.shape if needed else (0,) for side, needed in zip((student, teacher), rest[-2:], strict=True)]
        losses, d_student, d_teacher = (student.new_empty(size, dtype=dtype) for size in (shape(weight), *sides))
        return losses, d_student, d_teacher

    return fake
