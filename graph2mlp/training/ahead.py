"""The next batch is cut while a step is taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["one_ahead"]

B = TypeVar("B")


def one_ahead(batches: Iterable[B]) -> Iterator[B]:
    """The same batches in the same order, each made by another thread while the one before is worked on.

    Rows of a large graph lie all over the memory, so cutting them takes a sixth of a student's time, mostly waiting.
    Who draws random numbers in `batches` must share them with nobody. What `batches` raises is raised here.
    """
    source = iter(batches)
    with ThreadPoolExecutor(1, "batches") as other:
        coming = other.submit(next, source, None)
        while (batch := coming.result()) is not None:
            coming = other.submit(next, source, None)
            yield batch
