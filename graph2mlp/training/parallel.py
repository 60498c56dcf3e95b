"""Several processes train one student: each runs it on its share of a batch's rows.

Started by `torchrun --nproc-per-node N -m graph2mlp distill ...`. All ranks hold the same weights and draw the same
random numbers, so all have the same batches. Each runs the student on its rows only; the outputs are gathered, and
every rank evaluates the loss terms on the whole batch, pairs of rows included. What comes out is what one process
computes, up to the order of sums.

Gradients: with R ranks that all evaluate the same loss L, the sum of their losses is R L. Backward through a gathered
tensor sums over the ranks, so what reaches a weight on all ranks together is R times its gradient: `gradient_sum`
divides it out. Nothing here does anything outside `together()`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from graph2mlp.data.features import SparseRows, num_rows, row_slice
from graph2mlp.device import CPU
from graph2mlp.errors import MethodError
from graph2mlp.noise import Part, part_of_batch
from graph2mlp.students.base import Student, StudentInput, StudentOutput
from graph2mlp.training.metrics import Score

__all__ = [
    "agreed",
    "call_crew",
    "dismiss_crew",
    "embed",
    "gradient_sum",
    "head",
    "joined",
    "launched",
    "together",
    "wait_for_call",
    "whole_gradient",
]

_PATIENCE = timedelta(days=7)
"""Ranks wait for rank 0 to train the teacher; should it die, torchrun ends them at once."""

_active = _called = False


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextmanager
def joined(device: torch.device = CPU) -> Iterator[int]:
    """Meet the other processes, each of which trains on its own `device`; gives this one's rank."""
    if device == CPU:
        dist.init_process_group("gloo", timeout=_PATIENCE)
    else:  # scores and calls are numbers of the CPU, outputs and gradients lie on the GPU
        torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=_PATIENCE)
    try:
        yield dist.get_rank()
    except BaseException:
        # NCCL takes its communicator down together with the others, who may wait for this process in a sum: torchrun
        # ends them once this one has gone.
        if device == CPU:
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def call_crew() -> None:
    """Rank 0 tells the others that the student is to be trained now."""
    global _called
    if dist.is_initialized():
        dist.broadcast(torch.ones(1, dtype=torch.long), 0)
        _called = True


def dismiss_crew() -> None:
    """Rank 0 tells the others that it needed no help, unless it had called them."""
    if not _called:
        dist.broadcast(torch.zeros(1, dtype=torch.long), 0)


def wait_for_call() -> bool:
    """Whether rank 0 called; False when it needed no help."""
    told = torch.zeros(1, dtype=torch.long)
    dist.broadcast(told, 0)
    return bool(told)


@contextmanager
def together() -> Iterator[None]:
    """In here all ranks train one student; nothing changes for a process that is alone.

    Nobody leaves before all are done: a training that goes on at its end has no step in which ranks would meet, and
    rank 0 then removes the checkpoint that others are still to read.
    """
    global _active
    _active = dist.is_initialized()
    try:
        yield
        if _active:
            dist.all_reduce(torch.zeros(1))
    finally:
        _active = False


def embed(student: Student, inputs: StudentInput) -> Tensor:
    """`student.embed(inputs)`, `[B, D]`, each rank for its rows.

    Raises:
        MethodError: there are fewer rows than ranks.
    """
    if not _active:
        return student.embed(inputs)
    part = _own_part(num_rows(inputs.features))
    if part.total < dist.get_world_size():
        raise MethodError(
            f"A batch has {part.total} rows for {dist.get_world_size()} processes. Start fewer, or raise "
            "train.batch_size."
        )
    features, entries = inputs.features, None
    if isinstance(features, SparseRows):
        ends = features.offsets[[part.start, part.stop, part.total]].tolist()
        entries = Part(*ends)
    structure = None if inputs.structure is None else inputs.structure[part.start : part.stop]
    with part_of_batch(part, entries):
        return _gathered(student.embed(StudentInput(row_slice(features, part.start, part.stop), structure)), part)


def head(student: Student, embedded: Tensor) -> StudentOutput:
    """`student.head(embedded)` of `embedded [B, D]`, which all ranks hold, each rank for its rows."""
    if not _active:
        return student.head(embedded)
    part = _own_part(len(embedded))
    with part_of_batch(part):
        out = student.head(embedded[part.start : part.stop])
    # The first hidden layer is `embedded` itself.
    hidden = (embedded, *(_gathered(layer, part) for layer in out.hidden[1:]))
    return StudentOutput(_gathered(out.logits, part), hidden)


def whole_gradient(gradient: Tensor) -> Tensor:
    """The gradient of a tensor that all ranks hold, from what reached it on each rank."""
    if not _active:
        return gradient
    total = gradient.contiguous().clone()
    dist.all_reduce(total)
    return total.div_(dist.get_world_size())


def gradient_sum(module: nn.Module) -> Callable[[Any], None] | None:
    """What a player does between backward pass and step: gradients become those of one process; None if alone."""
    if not _active:
        return None

    def summed(_batch: Any) -> None:
        given = [parameter for parameter in module.parameters() if parameter.grad is not None]
        flat = whole_gradient(torch.cat([one.grad.reshape(-1) for one in given if one.grad is not None]))
        for parameter, part in zip(given, flat.split([one.numel() for one in given]), strict=True):
            parameter.grad = part.view_as(parameter)

    return summed


def agreed(evaluate: Callable[[], Score]) -> Callable[[], Score]:
    """Rank 0's score for all, so that all keep, and stop at, the same epoch."""
    if not _active:
        return evaluate

    def first() -> Score:
        # Only rank 0 looks; what it draws nobody else would draw.
        mine = evaluate() if not dist.get_rank() else Score(0.0, 0.0)
        told = torch.tensor([mine.value, mine.negative_loss], dtype=torch.double)
        dist.broadcast(told, 0)
        return Score(*told.tolist())

    return first


class _Gather(torch.autograd.Function):
    """Own rows -> all rows; backward, what reached them on any rank."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, part: Part) -> Tensor:
        ctx.part = part
        rows = own.new_zeros(part.total, *own.shape[1:])
        rows[part.start : part.stop] = own
        dist.all_reduce(rows)  # all others are zero: exact, whatever the sizes of the parts
        return rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.part.start : ctx.part.stop], None


def _gathered(own: Tensor, part: Part) -> Tensor:
    rows: Tensor = _Gather.apply(own, part)  # type: ignore[no-untyped-call]
    return rows


def _own_part(total: int) -> Part:
    """This rank's rows of `total`: parts of about one size, in the order of the ranks."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    each, more = divmod(total, ranks)
    start = rank * each + min(rank, more)
    return Part(start, start + each + (rank < more), total)
