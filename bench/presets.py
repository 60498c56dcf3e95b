"""What each export preset costs and keeps, on trained students: `python -m bench.presets`.

Six students: `digits` and Cora as `graph2mlp distill` makes them (nosmog, seed 0, all defaults), Cora by `cold_brew`
with a row of its bank for every node and with 256 prototypes, and two that are trained here for a few epochs on made-up
data (noisy clusters, 12,000 nodes, a third of them for training), one with a table and one, wider, on features alone.
Never on random weights: rounding looks worse on them than it is. All presets of a student answer the same requests in
one interleaved run, one thread, the network alone. `--students` measures some again and keeps the others' rows.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F

from bench.accuracy import commit
from bench.rows import read_rows
from graph2mlp.atomic import atomic_path
from graph2mlp.config import resolve_config
from graph2mlp.console import Reporter
from graph2mlp.data.graph import GraphData
from graph2mlp.data.splits import Split
from graph2mlp.distill import distill
from graph2mlp.errors import Graph2MLPError
from graph2mlp.export.auto import measure_candidates, model_bytes
from graph2mlp.export.candidate import Candidate, RunLike, build_candidate, prepare
from graph2mlp.export.evidence import file_accuracy
from graph2mlp.export.presets import MAX_DROP, PRESETS
from graph2mlp.measure import environment
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import StudentInput, StudentSpec
from graph2mlp.students.mlp import MLPStudent

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class MadeUp:
    """A student on made-up data; `structure` of its numbers come from a table, 0 for none."""

    features: int
    structure: int
    hidden: int
    classes: int

    def __str__(self) -> str:
        table = f", table of {self.structure}" if self.structure else ""
        return f"made-up, {self.features}-{self.hidden}-{self.hidden}-{self.classes}{table}"


MADE_UP = {
    str(one): one
    for one in (
        MadeUp(features=500, structure=64, hidden=256, classes=40),
        MadeUp(features=1500, structure=0, hidden=1024, classes=47),
    )
}


TRAINED: dict[str, dict[str, Any]] = {
    "digits": {"graph": "digits", "method": "nosmog"},
    "cpf:cora": {"graph": "cpf:cora", "method": "nosmog"},
    "cpf:cora by cold_brew": {"graph": "cpf:cora", "method": "cold_brew"},
    "cpf:cora by cold_brew, 256 prototypes": {
        "graph": "cpf:cora",
        "method": "cold_brew",
        "overrides": ["cold_brew.bank=kmeans"],
    },
}
"""Settings of the students that `distill` makes."""

STUDENTS = (*TRAINED, *MADE_UP)


def main() -> None:
    """Train, export, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", default=";".join(STUDENTS), help="separated by semicolons")
    parser.add_argument("--batches", default="1,64,1024")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--root", default=None)
    parser.add_argument("--csv", type=Path, default=RESULTS / "presets.csv")
    given = parser.parse_args()
    torch.set_num_threads(1)
    students = given.students.split(";")
    if unknown := [student for student in students if student not in STUDENTS]:
        parser.error(f"unknown students: {'; '.join(unknown)}. Known: {'; '.join(STUDENTS)}")
    rows: list[dict[str, Any]] = [dict(row) for row in read_rows(given.csv) if row["student"] not in students]
    for student in students:
        with tempfile.TemporaryDirectory() as folder:
            if student in MADE_UP:
                run: Any = made_up_run(MADE_UP[student])
            else:
                config = resolve_config(**TRAINED[student], root=given.root)
                run = distill(config, Path(folder) / "run", reporter=Reporter(quiet=True))
            rows += measure_run(student, run, [int(size) for size in given.batches.split(",")], given.seconds)
    rows.sort(key=lambda row: STUDENTS.index(row["student"]))
    with atomic_path(given.csv) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def measure_run(student: str, run: RunLike, batches: list[int], seconds: float) -> list[dict[str, Any]]:
    """One row per preset and batch size; a preset that is refused has one row that says why."""
    passed: dict[str, Candidate] = {}
    rows: list[dict[str, Any]] = []
    machine = {"commit": commit(), **environment()}
    with tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(run, "auto", Path(scratch))
        for preset in PRESETS.values():
            try:
                passed[preset.name] = build_candidate(prepared, preset, MAX_DROP / 100, where=Path(preset.name))
            except Graph2MLPError as error:
                rows.append(_row(student, preset.name) | {"status": str(error), **machine})
        found = measure_candidates(passed, prepared.sample, batches, seconds=seconds)
        for name, candidate in passed.items():
            facts = _facts(candidate, prepared, run)
            for batch in batches:
                one = found[batch][name]
                times = {"batch": batch, "n": one.n, "p50_us": one.p50_us, "cpu_us": one.cpu_us, "noisy": one.noisy}
                times["times_fp32"] = found[batch]["fp32"].p50_us / one.p50_us
                rows.append(_row(student, name) | times | facts | machine)
                print(
                    *(f"{key}={value}" for key, value in (_row(student, name) | times | facts).items() if value != "")
                )
    return rows


def _facts(candidate: Candidate, prepared: Any, run: RunLike) -> dict[str, Any]:
    test, test_network = file_accuracy(
        candidate.predictor, prepared.student, prepared.table, prepared.graph, run.config.setting
    )
    gate = candidate.manifest.gate
    assert gate is not None
    return {
        "size_kb": model_bytes(candidate.files) / 1024,
        "tensors": len(candidate.manifest.quantized),
        "layers": sum(one.form.startswith("int") and one.form != "int8-rows" for one in candidate.manifest.quantized),
        "val": gate.accuracy,
        "val_network": gate.network,
        "agreement": gate.agreement,
        "total_variation": gate.total_variation,
        "test": test["test"],
        "test_network": test_network["test"],
        "status": "passed",
    }


def _row(student: str, preset: str) -> dict[str, Any]:
    columns = "batch n p50_us cpu_us noisy times_fp32 size_kb tensors layers val val_network agreement total_variation"
    return {
        "student": student,
        "preset": preset,
        **dict.fromkeys((*columns.split(), "test", "test_network", "status"), ""),
    }


def made_up_run(shape: MadeUp, *, nodes: int = 12_000, epochs: int = 6) -> Any:
    """A stand-in for a run: noisy clusters, one per class, and a student of that shape trained on a third of the nodes.

    A node is unit noise around its cluster's centre, which is 5.8 from zero: as hard as to leave some errors to lose.
    """
    torch.manual_seed(0)
    y = torch.arange(nodes) % shape.classes
    numbers = shape.features + shape.structure
    x, rows = (5.8 / numbers**0.5 * torch.randn(shape.classes, numbers)[y] + torch.randn(nodes, numbers)).split(
        [shape.features, shape.structure], dim=1
    )
    order = torch.randperm(nodes)
    split = Split(order[: nodes // 3], order[nodes // 3 : nodes // 2], order[nodes // 2 :])
    none = torch.empty(2, 0, dtype=torch.long)
    names = tuple(f"c{number}" for number in range(shape.classes))
    graph = GraphData(name="made-up", x=x.contiguous(), edge_index=none, y=y, split=split, class_names=names)
    known = torch.ones(nodes, dtype=torch.bool)
    table = StructureTable("made-up", rows.contiguous(), known) if shape.structure else None
    student = _trained(shape, graph, table, epochs)
    return SimpleNamespace(
        path=Path(str(shape)),
        result={"method": "mlp", "seed": 0},
        config=SimpleNamespace(setting="transductive"),
        fingerprint="made-up",
        graph=lambda: graph,
        student=lambda: student,
        structure=lambda: table,
    )


def _trained(shape: MadeUp, graph: GraphData, table: StructureTable | None, epochs: int) -> MLPStudent:
    sizes = {"features": shape.features, "structure": shape.structure, "classes": shape.classes}
    student = MLPStudent(StudentSpec(**sizes, layers=3, hidden=shape.hidden, norm="batch", dropout=0.3)).train()
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    for _ in range(epochs):
        for ids in graph.split.train[torch.randperm(len(graph.split.train))].split(256):
            optimizer.zero_grad()
            inputs = StudentInput(graph.features(ids), table.for_known(ids) if table else None)
            F.cross_entropy(student(inputs).logits, graph.y[ids]).backward()
            optimizer.step()
    return student.eval()


if __name__ == "__main__":
    main()
