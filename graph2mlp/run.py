"""A run folder: what `distill` leaves behind, and what every other command starts from."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from graph2mlp import __version__
from graph2mlp.atomic import atomic_path
from graph2mlp.config import RunConfig, load_config
from graph2mlp.data.datasets import load_graph
from graph2mlp.data.graph import GraphData
from graph2mlp.data.splits import production_split
from graph2mlp.errors import ConfigError, Graph2MLPError, RunError
from graph2mlp.methods.base import Method
from graph2mlp.methods.mlp import MLP
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student, StudentSpec
from graph2mlp.teachers.cache import load_teacher
from graph2mlp.teachers.extract import weights_fingerprint
from graph2mlp.teachers.knowledge import TeacherKnowledge
from graph2mlp.teachers.models import Teacher

__all__ = ["Run", "open_run", "run_graph", "save_student", "versions"]

SCHEMA = 1


def run_graph(config: RunConfig) -> GraphData:
    """The full graph of a run, with the split of its seed and setting."""
    graph = load_graph(config.graph, root=Path(config.root) if config.root else None, seed=config.seed)
    if config.setting == "production":
        graph = replace(graph, split=production_split(graph.split, config.seed))
    return graph


@dataclass(frozen=True)
class Run:
    """A complete run of one seed. Parts are read when they are asked for."""

    path: Path
    config: RunConfig
    result: dict[str, Any]

    @cached_property
    def _graph(self) -> GraphData:
        graph = run_graph(self.config)
        if graph.fingerprint() != self.result["graph_fingerprint"]:
            raise RunError(
                f"The graph '{self.config.graph}', its split or {self.path / 'config.toml'} changed since {self.path} "
                "was made, so its figures would mean nothing. Run distill again."
            )
        return graph

    def graph(self) -> GraphData:
        """The full graph, `.split` as in training."""
        return self._graph

    def student(self) -> Student:
        """The trained student, in evaluation mode."""
        path = self.path / "student.safetensors"
        student = _load_student(path, self.config.hyper)
        if weights_fingerprint(student) != self.fingerprint:
            raise RunError(
                f"{path} does not hold the weights that {self.path / 'result.json'} reports. Run distill again."
            )
        return student

    def control(self) -> Student | None:
        """The plain MLP the student is compared with; None in runs that did not keep it."""
        path = self.path / "mlp.safetensors"
        return _load_student(path, MLP()) if path.exists() else None

    def structure(self) -> StructureTable | None:
        """The structure table, None for a student that reads features only."""
        path = self.path / "structure.safetensors"
        if not self.config.hyper.reads_structure:
            return None
        table = StructureTable.load(path)
        if len(table.rows) != self.result["graph"]["nodes"]:
            raise RunError(
                f"{path} has {len(table.rows)} rows, but the graph has {self.result['graph']['nodes']} nodes. "
                "Run distill again."
            )
        return table

    def knowledge(self) -> list[TeacherKnowledge]:
        """What the teachers said; empty for a method without."""
        return [TeacherKnowledge.load(path) for path in sorted((self.path / "knowledge").glob("*.safetensors"))]

    def teacher(self) -> Teacher:
        """The built-in teacher of this run, in evaluation mode.

        Raises:
            RunError: the run had none, or its knowledge came from a file.
        """
        path = self.path / "teacher.safetensors"
        if not path.exists():
            raise RunError(f"Run {self.path} holds no teacher network, so there is nothing to compare with.")
        return load_teacher(path, self.graph())

    @property
    def fingerprint(self) -> str:
        """What the student was made from, in short; written into bundles."""
        return str(self.result["fingerprint"])


def open_run(path: Path) -> Run:
    """Open a finished run. Of a folder with several seeds, the one with the best validation accuracy.

    Raises:
        RunError: there is no run, it is not finished, or its version is unknown.
    """
    result = _read_result(path)
    if "runs" in result:
        best = max(result["runs"], key=lambda one: float(one["student"]["val"]))
        return open_run(path / f"seed-{best['seed']}")
    return Run(path, load_config(path / "config.toml"), result)


def _load_student(path: Path, method: Method) -> Student:
    try:
        with safe_open(path, framework="pt") as file:
            spec = StudentSpec(**json.loads((file.metadata() or {})["spec"]))
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn, only to be replaced
            student = method.student(spec)
        student.load_state_dict(load_file(path))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{path} is not a student of this version ({reason}). Run distill again.") from None
    student.eval()
    return student


def _read_result(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise RunError(f"No run folder at {path}. Make one with: graph2mlp distill GRAPH --out {path}")
    file = path / "result.json"
    if not file.exists():
        what = (
            "is not finished; continue it with --resume" if (path / "config.toml").exists() else "is not a run folder"
        )
        raise RunError(f"{path} {what} (it has no result.json).")
    try:
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{file} is damaged ({error}). Run distill again.") from None
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        found = result.get("schema") if isinstance(result, dict) else None
        raise RunError(f"{file} has schema {found}, expected {SCHEMA}. It was written by another version.")
    needed = {"runs"} if "runs" in result else {"graph", "student", "fingerprint", "graph_fingerprint"}
    if (missing := sorted(needed - result.keys())) or result.get("runs") == []:
        raise RunError(f"{file} is damaged: {', '.join(missing) or 'a run'} is missing. Run distill again.")
    return result


def save_student(student: Student, path: Path) -> None:
    """Weights, and the spec to rebuild the network, as safetensors in one step."""
    spec = json.dumps({field.name: getattr(student.spec, field.name) for field in fields(student.spec)})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in student.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"spec": spec})


def versions() -> dict[str, str]:
    """What a run was made with: of this package, Python and the packages that its numbers depend on."""
    found = {"graph2mlp": __version__, "python": platform.python_version()}
    for package in ("torch", "torch-geometric", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError as error:  # pragma: no cover  (the extra is incomplete)
            raise Graph2MLPError(f"The installation is incomplete: {error}") from None
    return found
