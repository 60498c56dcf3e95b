"""Several processes train one student: each takes its share of every batch, and they average their gradients.

Started by `torchrun --nproc-per-node N -m graph2mlp distill ...`. All ranks hold the same weights and see the same
order of nodes, which rank 0 draws. A term that is a mean over rows is what one process computes, up to the order of
sums (and to the random numbers of dropout, which differ); a term over pairs of rows sees the pairs within a rank's
share, and true labels are averaged within it. Nothing here does anything outside `together()`.
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

from graph2mlp.errors import MethodError
from graph2mlp.training.metrics import Score

__all__ = [
    "agreed",
    "call_crew",
    "dismiss_crew",
    "gradient_average",
    "joined",
    "launched",
    "own_part",
    "shared_epoch",
    "together",
    "wait_for_call",
]

_PATIENCE = timedelta(days=7)
"""Ranks wait for rank 0 to train the teacher; should it die, torchrun ends them at once."""

_active = _called = False


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextmanager
def joined() -> Iterator[int]:
    """Meet the other processes; gives this one's rank."""
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield dist.get_rank()
    finally:
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
    """In here all ranks train one student; nothing changes for a process that is alone."""
    global _active
    _active = dist.is_initialized()
    try:
        yield
    finally:
        _active = False


def shared_epoch(order: Tensor, generator: torch.Generator) -> Tensor:
    """Rank 0's `order [n]` of an epoch, for all.

    The random numbers of the other ranks then follow from rank 0's `generator`, so that a run goes on from it alone.
    """
    if not _active:
        return order
    ahead = torch.Generator()  # a copy: rank 0 draws the orders that it would draw alone
    ahead.set_state(generator.get_state())
    seed, order = torch.randint(2**62, (1,), generator=ahead), order.contiguous()
    dist.broadcast(order, 0)
    dist.broadcast(seed, 0)
    if rank := dist.get_rank():
        torch.manual_seed(int(seed) + rank)
        generator.manual_seed(int(seed) + rank)
    return order


def own_part(ids: Tensor) -> Tensor:
    """This rank's share, about `[B / ranks]`, of a batch `ids [B]`.

    Raises:
        MethodError: there are fewer rows than ranks.
    """
    if not _active:
        return ids
    ranks = dist.get_world_size()
    if len(ids) < ranks:
        raise MethodError(f"A batch has {len(ids)} rows for {ranks} processes. Start fewer, or raise train.batch_size.")
    return ids.tensor_split(ranks)[dist.get_rank()]


def gradient_average(module: nn.Module) -> Callable[[Any], None] | None:
    """What a player does between backward pass and step: gradients become those of the whole batch; None if alone.

    Each rank's gradient is that of a mean over its n_r rows; the whole batch's is `sum_r n_r g_r / sum_r n_r`.
    """
    if not _active:
        return None

    def average(batch: Any) -> None:
        rows = float(batch.own or len(batch.ids))
        given = [parameter for parameter in module.parameters() if parameter.grad is not None]
        flat = torch.cat(
            [rows * one.grad.reshape(-1) for one in given if one.grad is not None] + [torch.tensor([rows])]
        )
        dist.all_reduce(flat)
        for parameter, mean in zip(given, (flat[:-1] / flat[-1]).split([one.numel() for one in given]), strict=True):
            parameter.grad = mean.view_as(parameter)

    return average


def agreed(evaluate: Callable[[], Score]) -> Callable[[], Score]:
    """Rank 0's score for all, so that all keep, and stop at, the same epoch."""
    if not _active:
        return evaluate

    def first() -> Score:
        mine = evaluate()
        told = torch.tensor([mine.value, mine.negative_loss], dtype=torch.double)
        dist.broadcast(told, 0)
        return Score(*told.tolist())

    return first
