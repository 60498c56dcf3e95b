"""Randomness has an owner: every stage starts from its own seed and leaves the global state as it found it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from graph2mlp.device import CPU

__all__ = ["seeded", "stage_seed"]


def stage_seed(seed: int, stage: str) -> int:
    """A seed for one stage of a run: stages do not shift each other's random numbers."""
    digest = hashlib.blake2b(f"{seed}/{stage}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


@contextmanager
def seeded(seed: int, stage: str, *, device: torch.device = CPU) -> Iterator[torch.Generator]:
    """Seed torch's global generator (weights, dropout) inside the block, also that of `device`, and yield a second one
    for the order of batches, so that neither depends on how often the other is used."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(stage_seed(seed, stage))
        yield torch.Generator().manual_seed(stage_seed(seed, f"{stage}/batches"))
