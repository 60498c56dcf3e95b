"""Cold start and memory, each in a fresh process: a warm one has paid for its imports and kept others' memory.

    python -m graph2mlp.latency.cold STARTED_NS bundle|teacher|student PATH THREADS

is that process: it prints one JSON line with what it cost. `STARTED_NS` is when it was started, by the monotonic clock.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graph2mlp.errors import RunError
from graph2mlp.measure import peak_rss_mb, rss_mb

__all__ = ["ColdStart", "cold_start", "main"]

_TIMEOUT = 300


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """Medians over the processes started."""

    milliseconds: float
    """From starting the process to its first answer."""
    rss_mb: float | None
    """Memory added by opening and answering, after the imports."""


def cold_start(kind: str, path: Path, *, threads: int = 1, times: int = 3) -> ColdStart:
    """Start `times` processes that open `path` (a bundle; or a run, for its `teacher` or `student`) and answer once.

    Raises:
        RunError: there is nothing at `path`, or the process failed.
    """
    if not path.exists():
        raise RunError(f"No fresh process was started: {path} does not exist.")
    found = [_start(kind, path, threads) for _ in range(times)]
    memory = [one["rss_mb"] for one in found if one["rss_mb"] is not None]
    return ColdStart(
        milliseconds=statistics.median(one["ms"] for one in found),
        rss_mb=statistics.median(memory) if memory else None,
    )


def _start(kind: str, path: Path, threads: int) -> dict[str, Any]:
    # The package may not be installed: the child finds it where this process found it.
    places = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    command = [sys.executable, "-m", "graph2mlp.latency.cold"]
    command += [str(time.perf_counter_ns()), kind, str(path.resolve()), str(threads)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=_TIMEOUT)
        if done.returncode == 0:
            return dict(json.loads(done.stdout.splitlines()[-1]))
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    except subprocess.TimeoutExpired:
        reason = [f"no answer in {_TIMEOUT} s"]
    raise RunError(f"A fresh process could not answer from {path}: {reason[0]}")


def main(arguments: list[str]) -> int:
    """The fresh process."""
    started, kind, path, threads = int(arguments[0]), arguments[1], Path(arguments[2]), int(arguments[3])
    open_it = {"bundle": _bundle, "teacher": _teacher, "student": _student}[kind](path, threads)
    before = _memory()
    open_it()
    ended = time.perf_counter_ns()
    after = _memory()
    grown = None if before is None or after is None else after - before
    print(json.dumps({"ms": (ended - started) / 1e6, "rss_mb": grown}))
    return 0


def _memory() -> float | None:
    now = rss_mb()
    return now if now is not None else peak_rss_mb()


def _bundle(path: Path, threads: int) -> Callable[[], object]:
    """Import what a bundle needs; what it returns opens it and answers one request: no features, no neighbours."""
    from graph2mlp.export.runtime import Predictor

    def answer() -> object:
        predictor = Predictor(path, threads=threads)
        x = np.zeros((1, predictor.manifest.features), dtype=np.float32)
        return predictor.predict(x=x, neighbors=np.full((1, 1), -1))

    return answer


def _teacher(path: Path, threads: int) -> Callable[[], object]:
    from graph2mlp.run import open_run
    from graph2mlp.teachers.serving import TeacherServer
    from graph2mlp.threads import torch_threads

    def answer() -> object:
        run = open_run(path)
        with torch_threads(threads):
            return TeacherServer(run.graph(), run.teacher()).logits(np.zeros(1, dtype=np.int64))

    return answer


def _student(path: Path, threads: int) -> Callable[[], object]:
    import torch

    from graph2mlp.run import open_run
    from graph2mlp.students.base import StudentInput
    from graph2mlp.threads import torch_threads

    def answer() -> object:
        run = open_run(path)
        student, table = run.student(), run.structure()
        features = torch.zeros(1, run.result["graph"]["features"])
        with torch_threads(threads), torch.inference_mode():
            return student(StudentInput(features, None if table is None else table.for_unseen(torch.tensor([[-1]]))))

    return answer


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
