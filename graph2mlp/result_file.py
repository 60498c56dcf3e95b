"""`result.json` as it is read: every field that somebody uses is what a run writes there. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from graph2mlp.errors import RunError, one_line
from graph2mlp.json_file import read_json, unfit
from graph2mlp.tasks import TASKS

__all__ = ["SCHEMA", "read_result"]

SCHEMA = 1
_REMEDY = "Run distill again."


class _Graph(TypedDict):
    name: str
    nodes: int
    edges: int
    features: int
    classes: int


class _Scores(TypedDict, total=False):
    test: float | None
    tran: float | None
    ind: float | None
    prod: float | None
    cold: float | None


class _Size(TypedDict):
    layers: int
    hidden: int
    parameters: int
    val: float


class _Student(_Size, _Scores, total=False):
    agreement: float | None
    epochs: int


class _Control(_Scores, total=False):
    val: float | None
    parameters: int | None


class _Member(TypedDict):
    name: str
    val: float | None
    weight: float


_Frequencies = TypedDict("_Frequencies", {"class": str, "labelled": float, "observed": float, "moved": float})


class _Named(TypedDict):
    name: str


class _Teacher(_Named, _Control, total=False):
    cached: bool
    members: list[_Member]
    frequencies: _Frequencies


class _Ratio(TypedDict):
    percent: float | None
    reason: str


class _Measured(TypedDict):
    accuracy: float


class _Figures(_Measured, total=False):
    auc: float


class _Place(TypedDict):
    graph: str
    nodes: int
    majority: float
    mlp: _Figures
    student: _Figures


class _Elsewhere(_Place, total=False):
    teacher: _Figures


class _Made(TypedDict):
    graph: _Graph
    method: str
    setting: str
    regime: str
    seed: int
    teacher: _Teacher | None
    student: _Student
    mlp: _Control


class _Result(_Made, total=False):
    """Of one seed. What earlier versions did not write may be absent."""

    task: str
    metric: str
    fcr: _Ratio | None
    deploy: list[_Elsewhere]
    advice: list[str]
    seconds: dict[str, float | None] | None
    cpu_seconds: dict[str, float | None] | None
    peak_rss_mb: float | None
    device: str
    fingerprint: str
    graph_fingerprint: str
    files: dict[str, str]
    versions: dict[str, Any] | None
    machine: dict[str, Any] | None


class _Results(TypedDict):
    """Of several seeds."""

    runs: list[_Result]


def read_result(folder: Path) -> dict[str, Any]:
    """What `result.json` of a finished run says, of one seed or, in `runs`, of several.

    Raises:
        RunError: there is no run, it is not finished, or the file is damaged or of another version.
    """
    if not folder.is_dir():
        raise RunError(f"No run folder at {folder}. Make one with: graph2mlp distill GRAPH --out {folder}")
    file = folder / "result.json"
    if not file.exists():
        begun = (folder / "config.toml").exists()
        what = "is not finished; continue it with --resume" if begun else "is not a run folder"
        raise RunError(f"{folder} {what} (it has no result.json).")
    result = read_json(file, RunError, _REMEDY)
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        found = result.get("schema") if isinstance(result, dict) else None
        raise RunError(
            f"{file} has schema {one_line(found, 20)}, expected {SCHEMA}. It was written by another version."
        )
    several = "runs" in result
    problem = unfit(result, _Results if several else _Result, "")
    if not problem:
        problem = _odd(result["runs"] if several else [result])
    if problem:
        raise RunError(f"{file} is damaged: {problem}. {_REMEDY}")
    return result


def _odd(runs: list[dict[str, Any]]) -> str:
    """What contradicts itself, or what its reader could not know."""
    if not runs:
        return "it has no run"
    for run in runs:
        student = run["student"]
        if student.get("test", student.get("prod")) is None:
            return "its student has no accuracy"
        if run.get("task", "classification") not in TASKS:
            return f"its task '{one_line(run['task'], 40)}' is unknown to this version"
        if run.get("deploy") == []:
            return "deploy holds no graph"
    return ""
