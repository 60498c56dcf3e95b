"""The only training loop: teachers and students, one player or many."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from graph2mlp.errors import MethodError
from graph2mlp.training.average import WeightAverage
from graph2mlp.training.checkpoint import Checkpoint, LoopState
from graph2mlp.training.metrics import Score
from graph2mlp.training.players import Player

__all__ = ["EpochLog", "Fitted", "fit", "silent"]

B = TypeVar("B")

EpochLog = Callable[[int, Mapping[str, float]], None]
"""Called after each epoch with its number (from 1) and its figures."""


@dataclass(frozen=True)
class Fitted:
    """What training did: epochs run, the one whose weights were kept, its validation score, what it cost."""

    epochs: int
    best_epoch: int
    best: Score
    seconds: float
    """Wall clock."""
    cpu_seconds: float
    """Of this process, all threads: comparable on a shared machine."""
    val: float | None = None
    """The metric on validation nodes, asked as known ones, before the student learned from them, too; None where it has
    not, or did so from the start: then its answers can still be asked for."""

    def with_cost_of(self, other: Fitted) -> Fitted:
        """The same training, where `other` had to run, too."""
        seconds, cpu = self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds
        return replace(self, seconds=seconds, cpu_seconds=cpu)


def silent(epoch: int, figures: Mapping[str, float]) -> None:
    """An `EpochLog` that says nothing."""


def fit(
    model: nn.Module,
    players: Sequence[Player[B]],
    batches: Callable[[], Iterable[B]],
    evaluate: Callable[[], Score],
    *,
    epochs: int,
    patience: int,
    burn_in: int = 0,
    generators: Sequence[torch.Generator] = (),
    log: EpochLog = silent,
    checkpoint: Checkpoint | None = None,
    average: WeightAverage | None = None,
) -> Fitted:
    """Train until `epochs`, or `patience` epochs without a better validation score; leave the best weights in `model`.

    The first `burn_in` epochs are never kept: with few validation nodes a nearly untrained model can score best by
    luck, and a teacher that is sure of nothing teaches nothing.

    `batches()` gives one epoch. `evaluate()` scores `model` in evaluation mode, on validation nodes only. A
    `checkpoint` makes the loop go on, exactly, where an interrupted one stopped. With an `average` of `model`, that is
    what is scored and kept, while its own weights go on learning.

    Raises:
        MethodError: a loss is not finite.
    """
    burn_in = min(burn_in, epochs - 1)  # the last epoch may always be kept
    started, cpu_started = time.perf_counter(), time.process_time()
    kept, best, best_epoch, first = copy.deepcopy(model.state_dict()), Score(-math.inf, -math.inf), 0, 1
    if (
        checkpoint is not None
        and (state := checkpoint.restore(players, generators, average, epochs=epochs)) is not None
    ):
        kept, best, best_epoch, first = state.kept, state.best, state.best_epoch, state.epoch + 1
        started, cpu_started = started - state.seconds, cpu_started - state.cpu_seconds
    epoch = first - 1

    def over() -> bool:
        return epoch >= epochs or epoch - max(best_epoch, burn_in) >= patience

    while not over():
        epoch += 1
        model.train()
        figures = _run_epoch(players, batches(), epoch, average)
        model.eval()
        with torch.no_grad(), average.in_place() if average else nullcontext():
            now = evaluate()
            if now > best and epoch > burn_in:
                # A deep copy: state_dict() alone is a live view that would follow the training.
                kept, best, best_epoch = copy.deepcopy(model.state_dict()), now, epoch
        log(epoch, {**figures, "val": now.value, "val_loss": -now.negative_loss, "kept": best_epoch})
        if checkpoint is not None:
            cost = (time.perf_counter() - started, time.process_time() - cpu_started)
            about = LoopState(kept, best, best_epoch, epoch, epochs, *cost)
            checkpoint.maybe_save(players, generators, about, average, last=over())
    model.load_state_dict(kept)
    model.eval()
    return Fitted(epoch, best_epoch, best, time.perf_counter() - started, time.process_time() - cpu_started)


def _run_epoch(
    players: Sequence[Player[B]], batches: Iterable[B], epoch: int, average: WeightAverage | None
) -> dict[str, float]:
    """Every player on every batch; mean of each term over the epoch."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for number, batch in enumerate(batches):
        for player in players:
            if number % player.every:
                continue
            for name, value in player.step(batch).items():
                key = name if len(players) == 1 else f"{player.name}.{name}"
                sums[key] = sums[key] + value if key in sums else value
                counts[key] = counts.get(key, 0) + 1
        if average is not None:
            average.update()
    means = {name: float(total) / counts[name] for name, total in sums.items()}
    for name, mean in means.items():
        if not math.isfinite(mean):
            raise MethodError(
                f"The loss '{name}' became {mean} in epoch {epoch}. Lower the learning rate (train.lr), or the "
                "weight of that term."
            )
    return means
