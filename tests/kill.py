"""Kill a real process at random moments, let it go on, and compare the end with that of one that was never killed.

`python -m tests.kill 20` kills twenty runs, `--seed N` chooses other moments.

Two kinds of moments, because work and files fail in different ways: after a random part of the time that the whole run
took (from the moment it takes its folder), and right at a random one of its file operations (an audit hook counts
every opening, renaming, making and removing, and sends SIGKILL to its own process at the n-th). A run that goes on is
killed again with probability one third.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

# The hook sees what Python opens, renames, makes and removes under the folders it watches.
_HOOK = """
import os, signal, sys
_seen, _last = 0, int(os.environ["KILL_AT"])
_watched = tuple(os.environ["KILL_WATCH"].split(os.pathsep))
_log = os.open(os.environ["KILL_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def _watch(event, arguments):
    global _seen
    if event in ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove") and arguments[0] is not None:
        path = os.fspath(arguments[0]) if not isinstance(arguments[0], int) else ""
        if str(path).startswith(_watched):
            _seen += 1
            os.write(_log, f"{event} {path}\\n".encode())
            if _seen == _last:
                os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(_watch)
"""

CASES: dict[str, tuple[str, ...]] = {
    "blend": ("--method", "blend"),
    "blend, seeds": ("--method", "blend", "--seeds", "2"),
    "cold_brew": ("--method", "cold_brew"),
    "alignahead": ("--method", "alignahead"),
    "gsdn, seeds": ("--method", "gsdn", "--seeds", "2"),
}
SMALL = (
    "train.epochs=25", "teacher.epochs=25", "teacher.burn_in=0", "teacher.hidden=16", "student.hidden=16",
    "structure.dim=8",
)  # fmt: skip

_VARYING = {"seconds", "cpu_seconds", "peak_rss_mb", "cached", "threads"}
"""Of a result: what a run costs, and whether its teacher was trained by this process or found in the cache."""


@dataclass(frozen=True)
class Moment:
    """When to kill: at file operation `file`, or after the part `time` of the whole run."""

    file: int = 0
    time: float = 0.0

    def __str__(self) -> str:
        return f"file operation {self.file}" if self.file else f"{self.time:.0%} of the time"


class Command:
    """One command line, run in `folder` with its own cache, and what the uninterrupted run left and took."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        self.folder, self.arguments = folder, list(arguments)
        hook = folder / "hook"
        hook.mkdir(parents=True)
        (hook / "sitecustomize.py").write_text(_HOOK, encoding="utf-8")
        self.path = os.pathsep.join([str(hook), str(ROOT)])
        self.log = folder / "log"
        assert self.run("whole") == 0
        self.operations = len(self.log.read_text(encoding="utf-8").splitlines())
        self.seconds = self._seconds
        self.whole = outcome(folder / "whole")

    def run(self, name: str, moment: Moment | None = None, *extra: str) -> int:
        """Exit code of the command with `--out folder/name`; -9 when it was killed."""
        out, cache = self.folder / name, self.folder / f"{name} cache"
        environment = {
            **os.environ,
            "PYTHONPATH": self.path,
            "GRAPH2MLP_CACHE": str(cache),
            "GRAPH2MLP_CHECKPOINT_SECONDS": "0",
            "KILL_AT": str(moment.file if moment else 0),
            "KILL_WATCH": os.pathsep.join(map(str, (out, cache))),
            "KILL_LOG": str(self.log),
        }
        self.log.unlink(missing_ok=True)
        command = [sys.executable, "-m", "graph2mlp", *self.arguments, "--out", str(out), *extra]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, env=environment, stdout=quiet, stderr=subprocess.PIPE, text=True) as process:
            begun = self._wait_for_lock(process)
            if moment and moment.time:
                while process.poll() is None and time.monotonic() - begun < moment.time * self.seconds:
                    time.sleep(0.002)
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
            _, said = process.communicate()
        self._seconds = time.monotonic() - begun
        if process.returncode not in (0, -signal.SIGKILL):
            raise AssertionError(f"{name}, {moment}: exit code {process.returncode}: {said}")
        return process.returncode

    def _wait_for_lock(self, process: subprocess.Popen[str]) -> float:
        while process.poll() is None and not (self.log.exists() and self.log.stat().st_size):
            time.sleep(0.002)
        return time.monotonic()

    def killed(self, number: int, moments: Sequence[Moment], *again: str) -> list[str]:
        """Kill at each of `moments` in turn, finish, and name the differences to the uninterrupted run."""
        name = f"killed {number}"
        codes = [self.run(name, moment, *again) for moment in moments]
        assert self.run(name, None, *again) == 0
        found = outcome(self.folder / name)
        differences = sorted(key for key in found.keys() | self.whole.keys() if found.get(key) != self.whole.get(key))
        for used in (name, f"{name} cache"):
            shutil.rmtree(self.folder / used, ignore_errors=True)
        if codes[0] != -signal.SIGKILL and moments[0].file:
            differences.append(f"was not killed at {moments[0]}")
        return differences


def moments(rng: random.Random, count: int, operations: int) -> list[list[Moment]]:
    """`count` lists of moments, spread evenly over the run: every second one a file operation."""
    found = []
    for number in range(count):
        part = (number + rng.random()) / count
        one = Moment(file=1 + int(part * operations)) if number % 2 else Moment(time=part)
        rest = [Moment(time=rng.random() * (1 - part))] if rng.random() < 1 / 3 else []
        found.append([one, *rest])
    return found


def outcome(folder: Path) -> dict[str, Any]:
    """What must be equal: every file by its bytes; results without costs; journals by stage; and no litter."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[name] = "folder"
        elif path.name in ("result.json", "breakdown.json"):
            found[name] = _without_costs(json.loads(path.read_text(encoding="utf-8")))
        elif path.name == "metrics.jsonl":
            stages: dict[str, list[str]] = {}
            for line in path.read_text(encoding="utf-8").splitlines():
                stages.setdefault(json.loads(line)["stage"], []).append(line)
            found[name] = stages
        elif path.name == "report.html":
            found[name] = "page"
        else:
            found[name] = path.read_bytes()
    return found


def _without_costs(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_costs(one) for key, one in value.items() if key not in _VARYING}
    return [_without_costs(one) for one in value] if isinstance(value, list) else value


def trials(count: int, seed: int, folder: Path) -> Iterator[tuple[str, list[Moment], list[str]]]:
    """Case, moments and differences of each of `count` killed runs."""
    rng = random.Random(seed)
    share = {name: len(range(number, count, len(CASES))) for number, name in enumerate(CASES)}
    for name, arguments in CASES.items():
        settings = [part for setting in SMALL for part in ("--set", setting)]
        command = Command(folder / name.replace(", ", "-"), ["distill", "digits", *arguments, *settings])
        for number, when in enumerate(moments(rng, share[name], command.operations)):
            yield name, when, command.killed(number, when, "--resume")


def main() -> int:
    """Print a line per killed run; exit code 1 if one ended otherwise than the uninterrupted one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    equal = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, when, differences in trials(given.count, given.seed, Path(folder)):
            equal += not differences
            print(f"{name}: killed at {', then '.join(map(str, when))}: {differences or 'equal'}", flush=True)
    print(f"{equal} of {given.count} equal")
    return int(equal != given.count)


if __name__ == "__main__":
    sys.exit(main())
