"""Run folders and bench files with invented figures, and the pages made of them as a tree."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from graph2mlp.report import write_report

MEMBERS = [{"name": "gcn", "val": 0.731, "weight": 0.62}, {"name": "sage", "val": 0.717, "weight": 0.38}]
COUNTS = {"mlp": 50, "teacher": 71, "student": 77}


def group(nodes: int, *, teacher: bool = True, **named: Any) -> dict[str, Any]:
    """Some nodes, with fewer right answers of the student than of the teacher."""
    right = {"student": nodes * 6 // 10, "mlp": nodes * 4 // 10}
    found: dict[str, Any] = {**named, "nodes": nodes, "right": right}
    if teacher:
        right["teacher"] = nodes * 7 // 10
        found |= {"gained": nodes // 10, "lost": nodes // 10 + right["teacher"] - right["student"]}
    return found


def part(*, teacher: bool = True, names: tuple[str, ...] = ("a", "b", "c")) -> dict[str, Any]:
    """One part of the test nodes; the last class has none."""
    roles = ("student", "teacher", "mlp") if teacher else ("student", "mlp")
    sizes = [150, 17, *[60] * (len(names) - 3), 0]
    return {
        **group(227, teacher=teacher),
        "groups": {
            "degree": [group(113, teacher=teacher, low=0, high=3), group(114, teacher=teacher, low=4, high=9)],
            "class": [group(size, teacher=teacher, name=name) for name, size in zip(names, sizes, strict=True)],
            "confidence": [
                group(110, teacher=teacher, low=0.31, high=0.72),
                group(117, teacher=teacher, low=0.73, high=1.0),
            ],
        },
        "calibration": {
            role: [
                {"low": 0.3, "high": 0.4, "nodes": 7, "confidence": 0.351 + number / 100, "right": 2},
                {"low": 0.8, "high": 0.9, "nodes": 220, "confidence": 0.842 + number / 100, "right": 170 + number},
            ]
            for number, role in enumerate(roles)
        },
        "confusion": [[7 * row + column for column in range(len(names))] for row in range(len(names))],
    }


def run_files(
    *,
    production: bool = False,
    teacher: bool = True,
    names: tuple[str, ...] = ("a", "b", "c"),
    teachers: tuple[str, ...] = ("sage",),
    further: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The contents of a run folder: `result`, `breakdown`, `settings`, `metrics`.

    `teachers` and `further` are stages of training, of teachers and of the student.
    """
    columns = ("tran", "ind", "prod", "cold") if production else ("test",)
    scores = {
        role: {column: 0.512 + 0.1 * place + 0.031 * number for number, column in enumerate(columns)}
        for place, role in enumerate(("mlp", "teacher", "student"))
    }
    student = {"layers": 2, "hidden": 128, "parameters": 13706, "val": 0.777, "epochs": 61, **scores["student"]}
    result: dict[str, Any] = {
        "schema": 1,
        "graph": {"name": "mine", "nodes": 1797, "edges": 12582, "features": 32, "classes": len(names)},
        "method": "nosmog" if teacher else "gsdn",
        "setting": "production" if production else "transductive",
        "regime": "structure",
        "seed": 0,
        "teacher": {
            "name": "sage",
            "parameters": 10890,
            "val": 0.744,
            "cached": False,
            "members": MEMBERS,
            **scores["teacher"],
        }
        if teacher
        else None,
        "student": student | {"agreement": 0.9231 if teacher else None},
        "mlp": {"parameters": 5514, **scores["mlp"]},
        "seconds": {"teacher": 12.21, "structure": 0.24, "student": 4.52},
        "cpu_seconds": {"teacher": None, "structure": 1.13, "student": 2.34},
        "threads": 1,
        "peak_rss_mb": 505.4,
        "fingerprint": "cb77f8dd",
        "graph_fingerprint": "c9b89b6f",
        "versions": {"graph2mlp": "0.1.0", "python": "3.11.7"},
        "machine": {"cpu": "a processor", "cores": "2"},
    }
    stages = ([f"teacher {name}" for name in teachers] if teacher else []) + ["student", *further, "mlp"]
    parts = {
        name: part(teacher=teacher, names=names) for name in (("tran", "ind", "cold") if production else ("test",))
    }
    if production:
        del parts["cold"]["groups"]["degree"]
    details = {"schema": 1, "classes": list(names), "parts": parts}
    settings = 'graph = "mine.npz"\nmethod = "nosmog"\nseed = 0\n\n[train]\nlr = 0.0123\n'
    return {"result": result, "breakdown": details, "settings": settings, "metrics": _metrics(stages)}


def _metrics(stages: list[str]) -> list[dict[str, Any]]:
    """Six epochs of each stage."""
    return [
        {
            "stage": stage,
            "epoch": epoch,
            "loss": 2.13 / epoch,
            "val": 0.5 + epoch / 31,
            "val_loss": 1.71 / epoch,
            "kept": min(epoch, 4),
        }
        for stage in stages
        for epoch in range(1, 7)
    ]


def write_folder(folder: Path, files: dict[str, Any]) -> Path:
    """A run folder of these files; those that are None are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(files["result"]))
    (folder / "config.toml").write_text(files["settings"])
    if files["breakdown"] is not None:
        (folder / "breakdown.json").write_text(json.dumps(files["breakdown"]))
    if files["metrics"] is not None:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in files["metrics"]))
    return folder


def page_of(folder: Path, files: dict[str, Any]) -> str:
    """The page of a run folder of these files."""
    return write_report(write_folder(folder, files)).read_text(encoding="utf-8")


def bench(*, bundle: str = "runs/mine/bundle", scale: float = 1.0) -> dict[str, Any]:
    """What `graph2mlp bench --json` writes, with invented figures."""
    what = {
        "bundle, run only": ("structure", 5.4, 31.4, 0.8213),
        "bundle, with checks": ("structure", 16.1, 10.5, 0.8213),
        "teacher, k-hop fetch": ("graph", 169.3, 1.0, 0.8127),
        "teacher, whole graph": ("graph", 1070.2, 0.2, 0.8127),
        "plain MLP, torch": ("features", 25.2, 6.7, 0.5736),
    }
    rows = [
        {
            "what": name, "regime": regime, "batch": batch, "threads": 1, "n": 5000 + batch,
            "p50_us": scale * p50 * batch**0.5, "p95_us": 1.3 * scale * p50 * batch**0.5,
            "p99_us": None if name.endswith("graph") else 2.1 * scale * p50 * batch**0.5,
            "cpu_us": 1.01 * scale * p50, "noisy": name.endswith("graph"), "ratio": ratio,
            "size_kb": 1974.6, "peak_rss_mb": 485.75, "accuracy": accuracy,
        }
        for batch in (1, 64)
        for name, (regime, p50, ratio, accuracy) in what.items()
    ]  # fmt: skip
    return {"schema": 1, "bundle": bundle, "environment": {"cpu": "a processor", "numpy": "2.4.6"}, "rows": rows}


def tree(page: str) -> ElementTree.Element:
    """The page as XML: it is written so that this works, and anything left open fails here."""
    head, _, rest = page.partition("\n")
    assert head == "<!doctype html>"
    return ElementTree.fromstring(rest)


def words(page: str) -> str:
    """All that can be read on the page, without titles of marks."""
    root = tree(page)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("title", "desc", "style")):
                parent.remove(child)
    return " ".join(" ".join(root.itertext()).split()).replace("\N{NO-BREAK SPACE}", " ")
