"""The processes that answer shards: each opens the bundle once and takes one shard after the other. No torch."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from graph2mlp.errors import Graph2MLPError, RequestError, one_line
from graph2mlp.export.predict import Answerer

__all__ = ["answer_in_workers"]


def answer_in_workers(bundle: Path, shards: Sequence[Path], out: Path, *, workers: int) -> Iterator[tuple[Path, int]]:
    """Each shard and its number of requests, as its file `out/NAME` is finished; with one worker, in this process.

    Raises:
        RequestError: a shard cannot be answered, or a worker ended; the other workers are stopped.
    """
    if workers == 1 or len(shards) <= 1:
        answerer = Answerer(bundle)
        for path in shards:
            yield path, answerer.to_file(path, out / path.name).requests
        return
    # Spawned, not forked: a thread of the caller may hold a lock that a forked child would wait for in vain.
    context = multiprocessing.get_context("spawn")
    waiting, busy, processes = list(reversed(shards)), {}, []
    try:
        for _ in range(min(workers, len(shards))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, bundle, out, os.getpid()), daemon=True)
            with _interrupts_held_back():
                process.start()
            theirs.close()  # so that the end of the process is the end of the pipe
            processes.append(process)
            ours.send(path := waiting.pop())
            busy[ours] = path
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                yield busy.pop(ready), _result(ready)
                if waiting:
                    ready.send(path := waiting.pop())
                    busy[ready] = path
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """A process that is started in here never hears Ctrl-C, not even before it can say so; this one hears it after."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _result(connection: Connection) -> int:
    try:
        found: Any = connection.recv()
    except EOFError:
        raise RequestError(
            "A worker process ended before its shard was answered; perhaps memory ran out. Give the same command "
            "again, with fewer --workers: what is answered stays."
        ) from None
    if isinstance(found, BaseException):
        raise found
    return int(found)


def _serve(connection: Connection, bundle: Path, out: Path, parent: int) -> None:
    """Answer what comes through the pipe until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides

    def stop_if_alone() -> None:
        if os.getppid() != parent:  # it was killed, and the next command may be at work
            os._exit(1)

    path = bundle
    try:
        answerer = Answerer(bundle)
        while True:
            path = connection.recv()
            connection.send(answerer.to_file(path, out / path.name, between=stop_if_alone).requests)
    except EOFError:
        return
    except (Graph2MLPError, OSError, MemoryError) as error:
        connection.send(error)
    except Exception as error:  # a traceback of this process would say less, and the parent something wrong
        connection.send(RequestError(f"{path} cannot be answered ({type(error).__name__}: {one_line(error)})."))
