"""Shards answered by a Ray cluster: a task for each, on any machine that sees the same files. No torch.

Ray starts a task again when its machine is lost. A task that runs twice writes the same file twice, whole each time,
and the command notes a shard only when its task has ended; so every row is there once.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from graph2mlp.errors import Graph2MLPError, RequestError, require
from graph2mlp.export.predict import Answerer

__all__ = ["answer_in_ray"]

_AHEAD = 2
"""Tasks given to the cluster for each of its processors: the next shard waits where the last one ends."""

_REACH_SECONDS = 10.0
"""How long an address may take to answer."""


def answer_in_ray(bundle: Path, shards: Sequence[Path], out: Path) -> Iterator[tuple[Path, int]]:
    """Each shard and its number of requests, as its file `out/NAME` is finished.

    The cluster is that of `RAY_ADDRESS`, or one of this machine's processors. Paths must mean the same files on all its
    machines, and each needs this package.

    Raises:
        MissingExtraError: Ray is not installed.
        RequestError: a shard cannot be answered, or the cluster is gone; the other tasks are stopped.
    """
    ray: Any = require("ray", extra="ray", purpose="graph2mlp predict --ray")
    with _connected(ray):
        task = ray.remote(num_cpus=1, max_retries=3)(_answer)
        window = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting = list(reversed(shards))
        busy: dict[Any, Path] = {}
        try:
            while waiting or busy:
                while waiting and len(busy) < window:
                    path = waiting.pop()
                    busy[task.remote(bundle.resolve(), path.resolve(), (out / path.name).resolve())] = path
                (ready, *_), _rest = ray.wait(list(busy))
                yield busy.pop(ready), _result(ray, ready)
        finally:
            for one in busy:
                ray.cancel(one, force=True)


def _answer(bundle: Path, source: Path, out: Path) -> int:
    """What a task does; a process of Ray's keeps the bundle for the next."""
    file = bundle if bundle.is_file() else bundle / "bundle.json"
    return _answerer(bundle, file.stat().st_mtime_ns).to_file(source, out).requests


@lru_cache(maxsize=1)
def _answerer(bundle: Path, _changed: int) -> Answerer:
    return Answerer(bundle)


@contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """In a cluster; one that was started here ends here."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a local cluster would report itself to its makers
    where = os.environ.get("RAY_ADDRESS", "")
    try:
        _reach(where)
        ray.init(log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise RequestError(
            f"No Ray cluster at {where or 'this machine'} ({reason}). Start one, or leave out --ray."
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError unless something listens at `HOST:PORT`, for which Ray itself would wait many minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()


def _result(ray: Any, ready: Any) -> int:
    try:
        return int(ray.get(ready))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Graph2MLPError | OSError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise RequestError(
            f"Ray lost a task and gave it up ({reason}). Give the same command again: what is answered stays."
        ) from None
