"""Layers, width and parameters of the teachers that the accuracy table names: `python -m bench.teacher_sizes`."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

from bench.accuracy import RESULTS, accuracy_file
from graph2mlp.atomic import atomic_path
from graph2mlp.config import resolve_config
from graph2mlp.data.datasets import load_graph
from graph2mlp.data.graph import GraphData
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.models import build_teacher


def main() -> None:
    """Build every teacher of every graph with the defaults, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=None)
    parser.add_argument("--csv", type=Path, default=RESULTS / "teacher_sizes.csv")
    given = parser.parse_args()
    named: dict[str, dict[str, str]] = {}
    for row in accuracy_file(RESULTS / "accuracy.csv").read():
        if row["teacher"] and not row["settings"]:
            named.setdefault(row["graph"], {})[row["teacher"]] = row["method"]
    rows: list[dict[str, Any]] = []
    for name, teachers in named.items():
        graph = load_graph(name, root=given.root, seed=0)
        for teacher, method in sorted(teachers.items()):
            rows += [{"graph": name, "teacher": teacher} | size for size in sizes(graph, teacher, method)]
    with atomic_path(given.csv) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def sizes(graph: GraphData, teacher: str, method: str) -> list[dict[str, int]]:
    """One size for each form that a run may keep; an ensemble has the sum of its members, SAGE in its larger form."""
    config = resolve_config(graph=graph.name, method=method, teacher=teacher).teacher
    first, *others = ([_parameters(graph, form) for form in one.candidates()] for one in config.members())
    counts = [sum(forms[0] for forms in (first, *others))] if others else first
    return [{"layers": config.layers, "hidden": config.hidden, "parameters": count} for count in counts]


def _parameters(graph: GraphData, form: TeacherConfig) -> int:
    network = build_teacher(graph.num_features, graph.num_classes, form, node_ids=graph.node_ids)
    return sum(weight.numel() for weight in network.parameters())


if __name__ == "__main__":
    main()
