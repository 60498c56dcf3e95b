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
from safetensors.torch import load_file

from graph2mlp import __version__
from graph2mlp.config import RunConfig, load_config
from graph2mlp.data.datasets import load_graph
from graph2mlp.data.graph import GraphData
from graph2mlp.data.splits import production_split
from graph2mlp.errors import ConfigError, Graph2MLPError, RunError
from graph2mlp.result_file import read_result
from graph2mlp.run_files import checked
from graph2mlp.structure.table import StructureTable
from graph2mlp.students import build_student
from graph2mlp.students.base import Student
from graph2mlp.teachers.cache import load_teacher
from graph2mlp.teachers.extract import weights_fingerprint
from graph2mlp.teachers.knowledge import TeacherKnowledge
from graph2mlp.teachers.load_own import load_own_teacher
from graph2mlp.teachers.models import Teacher
from graph2mlp.teachers.own import find_hops
from graph2mlp.tensor_files import save_tensors

__all__ = ["Run", "open_run", "run_graph", "save_student", "versions"]


def run_graph(config: RunConfig) -> GraphData:
    """The full graph of a run, with the split of its seed and setting."""
    root = Path(config.root) if config.root else None
    graph = load_graph(config.graph, root=root, seed=config.seed, undirected=config.undirected, task=config.task)
    if config.setting == "production":
        graph = replace(graph, split=production_split(graph.split, config.seed))
    return graph


@dataclass(frozen=True)
class Run:
    """A complete run of one seed. Parts are read when they are asked for."""

    path: Path
    config: RunConfig
    result: dict[str, Any]
    allowed_code: str = ""
    """The user's code that may run to rebuild a teacher of the user's own: what the caller named, never the folder."""

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
        path = self._file("student.safetensors")
        student = _load_student(path)
        if weights_fingerprint(student) != self.fingerprint:
            raise RunError(
                f"{path} does not hold the weights that {self.path / 'result.json'} reports. Run distill again."
            )
        return student

    def control(self) -> Student | None:
        """The plain MLP the student is compared with; None in runs that did not keep it."""
        path = self._file("mlp.safetensors")
        return _load_student(path) if path.exists() else None

    def structure(self) -> StructureTable | None:
        """The structure table, None for a student that reads features only."""
        path = self._file("structure.safetensors")
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
        names = sorted(path.name for path in (self.path / "knowledge").glob("*.safetensors"))
        return [TeacherKnowledge.load(self._file(f"knowledge/{name}")) for name in names]

    def teacher(self) -> Teacher:
        """The teacher of this run, in evaluation mode; one of the user's own only when its code is allowed.

        Raises:
            RunError: the run had none, its knowledge came from a file, or its code was not named.
        """
        if self.config.teacher.own:
            return self._own_teacher()
        path = self._file("teacher.safetensors")
        if not path.exists():
            raise RunError(f"Run {self.path} holds no teacher network, so there is nothing to compare with.")
        return load_teacher(path, self.graph())

    def _own_teacher(self) -> Teacher:
        config = self.config.teacher
        if self.allowed_code != config.code:
            option = "--teacher-module" if config.module else "--teacher-weights"
            raise RunError(
                f"The teacher of {self.path} is code from outside ({config.code}), which runs only when you name it: "
                f"add {option} {config.code}"
            )
        weights = self._file("teacher.safetensors") if config.module else None
        teacher = load_own_teacher(replace(config, hidden_layers="none"), self.graph(), weights=weights)
        if weights_fingerprint(teacher) != self.knowledge()[0].weights:
            raise RunError(
                f"The teacher '{config.code}' is not the one that {self.path} learned from. Run distill again."
            )
        teacher.examine(self.graph().observed())
        find_hops(teacher, self.graph())
        return teacher

    def check_files(self) -> None:
        """Hold every file against its checksum.

        Raises:
            RunError: one is missing, or has changed.
        """
        for name in self._checksums:
            if not self._file(name).exists():
                raise RunError(f"{self.path / name} is missing. Run distill again.")

    @property
    def _checksums(self) -> dict[str, str]:
        return dict(self.result.get("files", {}))

    def _file(self, name: str) -> Path:
        return checked(self.path, name, self._checksums)

    @property
    def fingerprint(self) -> str:
        """What the student was made from, in short; written into bundles."""
        return str(self.result["fingerprint"])


def open_run(path: Path, *, allowed_code: str = "") -> Run:
    """Open a finished run. Of a folder with several seeds, the one with the best validation accuracy.

    `allowed_code` names the code of the user's that may run to rebuild its teacher (see `Run.teacher`).

    Raises:
        RunError: there is no run, it is not finished, or its version is unknown.
    """
    result = read_result(path)
    if "runs" in result:
        best = max(result["runs"], key=lambda one: float(one["student"]["val"]))
        return open_run(path / f"seed-{best['seed']}", allowed_code=allowed_code)
    if missing := sorted({"fingerprint", "graph_fingerprint"} - result.keys()):
        raise RunError(f"{path / 'result.json'} is damaged: {missing[0]} is missing. Run distill again.")
    return Run(path, load_config(path / "config.toml"), result, allowed_code)


def _load_student(path: Path) -> Student:
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn, only to be replaced
            spec = json.loads(about["spec"])
            student = build_student(spec.pop("kind", "mlp"), spec)
        student.load_state_dict(load_file(path))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{path} is not a student of this version ({reason}). Run distill again.") from None
    student.eval()
    return student


def save_student(student: Student, path: Path) -> None:
    """Weights, and the kind and spec to rebuild the network, as safetensors in one step."""
    # One entry: safetensors writes several in an order that changes, and equal runs must be equal files.
    spec = {"kind": student.kind} | {field.name: getattr(student.spec, field.name) for field in fields(student.spec)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in student.state_dict().items()}
    save_tensors(path, tensors, {"spec": json.dumps(spec)})


def versions() -> dict[str, str]:
    """What a run was made with: of this package, Python and the packages that its numbers depend on."""
    found = {"graph2mlp": __version__, "python": platform.python_version()}
    for package in ("torch", "torch-geometric", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError as error:  # pragma: no cover  (the extra is incomplete)
            raise Graph2MLPError(f"The installation is incomplete: {error}") from None
    return found
