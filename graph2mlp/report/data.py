"""What a page is made of, read from the files of a run folder or of a bench. No torch."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from graph2mlp.errors import DataError, RunError
from graph2mlp.json_file import read_json, unfit
from graph2mlp.latency.bench_file import read_bench
from graph2mlp.report.words import ROLES
from graph2mlp.result_file import read_result
from graph2mlp.run_files import BREAKDOWN, checked
from graph2mlp.tasks import CLASSIFICATION, TASKS, Task

__all__ = ["Benches", "Curve", "RunFiles", "read_benches", "read_run", "read_runs"]

SCHEMA = 1


class _Epoch(TypedDict):
    stage: str
    epoch: int


class _Line(_Epoch, total=False):
    """One line of metrics.jsonl, beside its figures."""

    kept: int | None


@dataclass(frozen=True)
class Curve:
    """One stage of training: its name, its epochs, its figures by name, and the epoch whose weights were kept."""

    stage: str
    epochs: tuple[int, ...]
    figures: Mapping[str, tuple[float, ...]]
    kept: int | None
    """None in runs that did not note it."""

    @property
    def role(self) -> str:
        """student, teacher or mlp."""
        return self.stage.replace(",", " ").split()[0]


@dataclass(frozen=True)
class RunFiles:
    """One run: its result, its settings, its course. `details` is None in runs that did not keep them."""

    result: Mapping[str, Any]
    settings: Mapping[str, Any]
    curves: tuple[Curve, ...]
    unreadable: int
    """Lines of metrics.jsonl that are damaged."""
    details: Mapping[str, Any] | None
    knowledge: tuple[str, ...]
    """Files of a teacher that was trained elsewhere; none for a teacher of this run."""

    @property
    def columns(self) -> list[str]:
        """The kinds of test node that are reported: `test`, or `tran`, `ind`, `prod`, `cold`."""
        return [name for name in ("test", "tran", "ind", "prod", "cold") if name in self.result["student"]]

    @property
    def roles(self) -> list[str]:
        """Who is reported: the plain MLP, the teacher if there was one, the student."""
        return [one for one in ("mlp", "teacher", "student") if self.result.get(one)]

    @property
    def task(self) -> Task:
        """What the nodes are asked for; classes, in runs that did not note it."""
        return TASKS[self.result.get("task", CLASSIFICATION.name)]

    @property
    def metric(self) -> str:
        """What the figures are."""
        return self.task.metric

    @property
    def counted(self) -> bool:
        """Whether answers are right or wrong, so that nodes can be counted by them."""
        return self.task is CLASSIFICATION

    def accuracy(self, role: str, column: str) -> float | None:
        """The metric, as a fraction; None where it could not be measured."""
        value = (self.result.get(role) or {}).get(column)
        return None if value is None else float(value)


@dataclass(frozen=True)
class Benches:
    """Rows of one or several benches, each with the `bundle` it measured and, of several, its `file`."""

    rows: tuple[Mapping[str, Any], ...]
    server: tuple[Mapping[str, Any], ...]
    """Answers to random arrivals; none in benches of schema 1."""
    failed: tuple[Mapping[str, Any], ...]
    """What could not be measured, and why."""
    environments: tuple[Mapping[str, str], ...]
    """The machines they come from, each with the load of every file it made, and with their names if there are several.
    """


def read_run(folder: Path) -> RunFiles:
    """Read one finished run.

    Raises:
        RunError: it is missing, not finished, damaged, or of another version.
    """
    result = read_result(folder)
    if "runs" in result:
        raise RunError(f"{folder} holds several seeds, not one. Run distill again.")
    breakdown = checked(folder, BREAKDOWN, result.get("files", {}))
    details = _details(breakdown) if breakdown.exists() else None
    curves, unreadable = _curves(folder / "metrics.jsonl")
    teacher = result.get("teacher")
    foreign = teacher is not None and teacher.get("parameters") is None
    knowledge = sorted(path.name for path in (folder / "knowledge").glob("*.safetensors")) if foreign else []
    return RunFiles(result, _toml(folder / "config.toml"), curves, unreadable, details, tuple(knowledge))


def read_runs(folder: Path) -> list[RunFiles]:
    """The runs of a folder: one, or one for each seed.

    Raises:
        RunError: as in `read_run`.
    """
    result = read_result(folder)
    if "runs" not in result:
        return [read_run(folder)]
    runs = [read_run(folder / f"seed-{one['seed']}") for one in result["runs"]]
    if len({_reported(run) for run in runs}) > 1:
        raise RunError(f"The seeds in {folder} do not report the same parts. Run distill again.")
    return runs


def read_benches(files: Sequence[Path]) -> Benches:
    """Read what `graph2mlp bench --json` wrote; several files are put together.

    Raises:
        DataError: a file is missing, damaged, no bench, or named twice.
    """
    named = dict(zip(_names(files), [read_bench(file) for file in files], strict=True))
    return Benches(
        rows=_together(named, "rows"),
        server=_together(named, "server"),
        failed=_together(named, "failed"),
        environments=_machines(named),
    )


def _names(files: Sequence[Path]) -> list[str]:
    """What tells files apart: nothing for the only one, else the end of the path, as long as it must be."""
    if len(files) == 1:
        return [""]
    whole = [file.absolute().parts for file in files]
    for length in range(1, max(map(len, whole)) + 1):
        names = [str(Path(*parts[-length:])) for parts in whole]
        if len(set(names)) == len(names):
            return names
    twice = next(file for file, parts in zip(files, whole, strict=True) if whole.count(parts) > 1)
    raise DataError(f"{twice} is named more than once. Name each bench once.")


def _together(found: Mapping[str, Mapping[str, Any]], part: str) -> tuple[Mapping[str, Any], ...]:
    """The lines of several benches, each with its file, and with its bundle: of schema 1 that of its file."""
    return tuple(
        {**line, "bundle": line.get("bundle", one.get("bundle", "")), "file": file}
        for file, one in found.items()
        for line in one.get(part) or ()
    )


def _machines(found: Mapping[str, Mapping[str, Any]]) -> tuple[Mapping[str, str], ...]:
    """Environments that differ in more than the load, which is another at any time; each with its files and loads."""
    alike: dict[str, tuple[dict[str, str], list[str], list[str]]] = {}
    for file, one in found.items():
        machine = dict(one.get("environment", {}))
        load = machine.pop("load", None)
        _, files, loads = alike.setdefault(json.dumps(machine, sort_keys=True), (machine, [], []))
        files += [file] if file else []
        loads += [f"{load}"] if load is not None else []
    return tuple(
        machine | ({"load": "; ".join(loads)} if loads else {}) | ({"files": ", ".join(files)} if files else {})
        for machine, files, loads in alike.values()
    )


def _reported(run: RunFiles) -> tuple[object, ...]:
    """What is put side by side where there are several seeds."""
    members = len((run.result.get("teacher") or {}).get("members", ()))
    others = tuple((*sorted(one.keys() & set(ROLES)),) for one in run.result.get("deploy", ()))
    scores = tuple(run.accuracy("student", column) is None for column in run.columns)
    return tuple(run.columns), tuple(run.roles), scores, run.task.name, members, others


def _details(file: Path) -> dict[str, Any]:
    found = read_json(file, RunError, "Run distill again.")
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        schema = found.get("schema") if isinstance(found, dict) else None
        raise RunError(f"{file} has schema {schema}, expected {SCHEMA}. It was written by another version.")
    return found


def _toml(file: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{file} cannot be read ({error}). Run distill again.") from None
    if problem := unfit(found.get("teacher", {}), dict[str, Any], "teacher"):
        raise RunError(f"{file} is damaged: {problem}. Run distill again.")
    return found


def _curves(file: Path) -> tuple[tuple[Curve, ...], int]:
    """The stages in the order they ran, and how many lines were of no use."""
    lines = file.read_bytes().splitlines() if file.exists() else []
    stages: dict[str, list[dict[str, Any]]] = {}
    unreadable = 0
    for line in lines:
        try:
            record = json.loads(line.decode())
        except (ValueError, RecursionError):
            record = None
        if unfit(record, _Line, ""):
            unreadable += 1
        else:
            stages.setdefault(record["stage"], []).append(record)
    return tuple(_curve(stage, records) for stage, records in stages.items()), unreadable


def _curve(stage: str, records: Sequence[Mapping[str, Any]]) -> Curve:
    names = [name for name in records[0] if name not in _Line.__annotations__]
    figures = {name: tuple(_number(one.get(name)) for one in records) for name in names}
    return Curve(stage, tuple(one["epoch"] for one in records), figures, records[-1].get("kept") or None)


def _number(value: Any) -> float:
    return math.nan if unfit(value, float, "") else float(value)
