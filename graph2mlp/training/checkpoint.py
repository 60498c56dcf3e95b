"""Checkpoints of the training loop: tensors in safetensors, the rest in its JSON header; nothing is pickled."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graph2mlp.errors import ConfigError, RunError
from graph2mlp.tensor_files import save_tensors
from graph2mlp.training.average import WeightAverage
from graph2mlp.training.metrics import Score
from graph2mlp.training.players import Player

__all__ = ["Checkpoint", "LoopState"]


_VARIABLE = "GRAPH2MLP_CHECKPOINT_SECONDS"


@dataclass(frozen=True, eq=False)
class LoopState:
    """Where a loop of `epochs` stood after `epoch`; `kept` are the best weights so far."""

    kept: dict[str, Tensor]
    best: Score
    best_epoch: int
    epoch: int
    epochs: int
    seconds: float
    cpu_seconds: float


class Checkpoint:
    """One file that follows a loop: weights, optimisers, random generators, best weights so far.

    It is written at most every `seconds` (`GRAPH2MLP_CHECKPOINT_SECONDS`, else 10), so that small runs pay nothing for
    it; and once more at the end of a loop that took longer, which then never runs again.
    """

    def __init__(self, path: Path, *, seconds: float | None = None) -> None:
        self.path, self.seconds = path, _interval() if seconds is None else seconds
        self._last = time.monotonic()

    def beside(self, name: str) -> Checkpoint:
        """The checkpoint of another loop, in a file beside this one."""
        path = self.path.with_name(f"{self.path.stem}-{name}{self.path.suffix}")
        return Checkpoint(path, seconds=self.seconds)

    def maybe_save(
        self,
        players: Sequence[Player[Any]],
        generators: Sequence[torch.Generator],
        state: LoopState,
        average: WeightAverage | None = None,
        *,
        last: bool,
    ) -> None:
        """Write the state after an epoch if it is time; after the `last` one if the loop took that long in all."""
        waited = state.seconds if last else time.monotonic() - self._last
        if waited < self.seconds:
            return
        tensors = {f"kept/{name}": tensor for name, tensor in state.kept.items()}
        tensors |= {f"random/{i}": g.get_state() for i, g in enumerate(_all(generators))}
        if average is not None:
            tensors |= {f"average/{name}": tensor for name, tensor in average.state().items()}
        for player in players:
            for module_name, module in player.modules.items():
                tensors |= {f"{player.name}/{module_name}/{k}": v for k, v in module.state_dict().items()}
            for number, optimizer in enumerate(player.optimizers):
                for index, moments in optimizer.state_dict()["state"].items():
                    where = f"{player.name}/adam{number}/{index}"
                    tensors |= {f"{where}/{k}": torch.as_tensor(v) for k, v in moments.items()}
        about: dict[str, Any] = {"epoch": state.epoch, "epochs": state.epochs, "best_epoch": state.best_epoch}
        about |= {"cost": [state.seconds, state.cpu_seconds], "best": [state.best.value, state.best.negative_loss]}
        # clone: safetensors refuses tensors that share memory
        save_tensors(self.path, {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, _json(about))
        self._last = time.monotonic()

    def restore(
        self,
        players: Sequence[Player[Any]],
        generators: Sequence[torch.Generator],
        average: WeightAverage | None = None,
        *,
        epochs: int,
    ) -> LoopState | None:
        """Put players, generators and average back where the file left them; None when there is no file.

        None, too, when it is of a loop with another number of `epochs`: the one before, which chose it, was made anew
        and chose another.

        Raises:
            RunError: the file is damaged or belongs to another method.
        """
        if not self.path.exists():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["loop"])
                if about.get("epochs", epochs) != epochs:
                    return None
                best, seconds, cpu = Score(*about["best"]), *map(float, about["cost"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
            for player in players:
                _restore_player(player, tensors)
            if average is not None:
                average.restore(_under("average/", tensors))
            for i, generator in enumerate(_all(generators)):
                generator.set_state(tensors[f"random/{i}"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(
                f"Checkpoint {self.path} does not fit this run ({reason}). Delete it to start over."
            ) from None
        return LoopState(_under("kept/", tensors), best, about["best_epoch"], about["epoch"], epochs, seconds, cpu)


def _interval() -> float:
    text = os.environ.get(_VARIABLE, "10")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise ConfigError(f"{_VARIABLE} must be a number of seconds, 0 or more (got '{text}')")
    return seconds


def _all(generators: Sequence[torch.Generator]) -> list[torch.Generator]:
    return [torch.default_generator, *generators]


def _json(about: dict[str, Any]) -> dict[str, str]:
    return {"loop": json.dumps(about)}


def _restore_player(player: Player[Any], tensors: dict[str, Tensor]) -> None:
    for module_name, module in player.modules.items():
        module.load_state_dict(_under(f"{player.name}/{module_name}/", tensors))
    for number, optimizer in enumerate(player.optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under(f"{player.name}/adam{number}/", tensors).items():
            index, key = name.split("/")
            state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
