"""Checkpoints of the training loop: tensors in safetensors, the rest in its JSON header; nothing is pickled."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graph2mlp.atomic import atomic_path
from graph2mlp.errors import RunError
from graph2mlp.training.metrics import Score
from graph2mlp.training.players import Player

__all__ = ["Checkpoint", "LoopState"]


@dataclass(frozen=True, eq=False)
class LoopState:
    """Where a loop stood after `epoch`; `kept` are the best weights so far."""

    kept: dict[str, Tensor]
    best: Score
    best_epoch: int
    epoch: int
    seconds: float
    cpu_seconds: float


class Checkpoint:
    """One file that follows a loop: weights, optimisers, random generators, best weights so far.

    It is written at most every `seconds`, so that small runs pay nothing for it.
    """

    def __init__(self, path: Path, *, seconds: float = 10.0) -> None:
        self.path, self.seconds = path, seconds
        self._last = time.monotonic()

    def beside(self, name: str) -> Checkpoint:
        """The checkpoint of another loop, in a file beside this one."""
        path = self.path.with_name(f"{self.path.stem}-{name}{self.path.suffix}")
        return Checkpoint(path, seconds=self.seconds)

    def maybe_save(
        self,
        players: Sequence[Player[Any]],
        generators: Sequence[torch.Generator],
        *,
        kept: dict[str, Tensor],
        best: Score,
        best_epoch: int,
        epoch: int,
        cost: tuple[float, float],
    ) -> None:
        """Write the state after `epoch` if it is time."""
        if time.monotonic() - self._last < self.seconds:
            return
        from safetensors.torch import save_file

        tensors = {f"kept/{name}": tensor for name, tensor in kept.items()}
        tensors |= {f"random/{i}": g.get_state() for i, g in enumerate(_all(generators))}
        for player in players:
            for module_name, module in player.modules.items():
                tensors |= {f"{player.name}/{module_name}/{k}": v for k, v in module.state_dict().items()}
            for number, optimizer in enumerate(player.optimizers):
                for index, state in optimizer.state_dict()["state"].items():
                    tensors |= {f"{player.name}/adam{number}/{index}/{k}": torch.as_tensor(v) for k, v in state.items()}
        about: dict[str, Any] = {"epoch": epoch, "best_epoch": best_epoch, "cost": cost}
        about["best"] = [best.accuracy, best.negative_loss]
        with atomic_path(self.path) as temporary:
            # clone: safetensors refuses tensors that share memory
            save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, temporary, _json(about))
        self._last = time.monotonic()

    def restore(self, players: Sequence[Player[Any]], generators: Sequence[torch.Generator]) -> LoopState | None:
        """Put players and generators back where the file left them; None when there is no file.

        Raises:
            RunError: the file is damaged or belongs to another method.
        """
        if not self.path.exists():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["loop"])
                best, seconds, cpu = Score(*about["best"]), *map(float, about["cost"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
            for player in players:
                _restore_player(player, tensors)
            for i, generator in enumerate(_all(generators)):
                generator.set_state(tensors[f"random/{i}"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(
                f"Checkpoint {self.path} does not fit this run ({reason}). Delete it to start over."
            ) from None
        kept = {name.removeprefix("kept/"): tensor for name, tensor in tensors.items() if name.startswith("kept/")}
        return LoopState(kept, best, about["best_epoch"], about["epoch"], seconds, cpu)


def _all(generators: Sequence[torch.Generator]) -> list[torch.Generator]:
    return [torch.default_generator, *generators]


def _json(about: dict[str, Any]) -> dict[str, str]:
    return {"loop": json.dumps(about)}


def _restore_player(player: Player[Any], tensors: dict[str, Tensor]) -> None:
    for module_name, module in player.modules.items():
        prefix = f"{player.name}/{module_name}/"
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    for number, optimizer in enumerate(player.optimizers):
        prefix = f"{player.name}/adam{number}/"
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(prefix):
                index, key = name.removeprefix(prefix).split("/")
                state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
