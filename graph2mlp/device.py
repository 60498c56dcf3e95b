"""Where networks learn: on the CPU, or on a GPU that is sent what each step reads.

Graph, table and knowledge stay in the memory of the machine, whatever their size. Batches are cut there, with the same
random numbers for every device, and copied. Copied as a whole is what a step reads as a whole: the graph of a teacher
and of a GNN peer (`alignahead`), the bank of `cold_brew`. Once trained a network comes back, so everything after a
training is the CPU's.
"""

from __future__ import annotations

import os
import re

import torch

from graph2mlp.errors import ConfigError

__all__ = ["CPU", "device_generators", "device_name", "find_device"]

CPU = torch.device("cpu")

_KNOWN = "cpu, cuda, cuda:N (the N-th GPU, from 0) or auto (a GPU if there is one)"


def find_device(name: str) -> torch.device:
    """The device that is called `name`; of several processes of one machine each has a GPU of its own.

    Raises:
        ConfigError: there is no such device, or no GPU for this process.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return CPU
    if (parts := re.fullmatch(r"auto|cuda(?::([0-9]{1,4}))?", name)) is None:
        raise ConfigError(f"Unknown device '{name}'. Known: {_KNOWN}.")
    number = parts[1]
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not found:
        raise ConfigError(f"Cannot train on device '{name}': torch {torch.__version__} sees no GPU. Use --device cpu.")
    ranks, rank = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    if ranks > 1 and number is not None:
        raise ConfigError(f"All {ranks} processes would share device '{name}'. Use --device cuda: each takes its own.")
    if ranks > found:
        raise ConfigError(f"{ranks} processes need a GPU each, but this machine has {found}. Start {found}.")
    index = rank if number is None else int(number)
    if index >= found:
        raise ConfigError(f"There is no device '{name}': this machine has {found} GPU(s), cuda:0 to cuda:{found - 1}.")
    return torch.device("cuda", index)


def device_name(device: torch.device) -> str:
    """`cpu`, or `cuda:0 (NVIDIA H200)`."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def device_generators(device: torch.device) -> list[torch.Generator]:
    """What draws dropout on `device`, beside torch's generator of the CPU: a training that goes on needs its state."""
    if device.type != "cuda":
        return []
    return [torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]]
