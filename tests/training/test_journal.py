"""`metrics.jsonl`: every epoch once, also after an interruption."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from graph2mlp.training.journal import Journal


def _lines(path: Path) -> list[tuple[str, int]]:
    return [(line["stage"], line["epoch"]) for line in map(json.loads, path.read_text().splitlines())]


def test_one_line_per_epoch(tmp_path: Path) -> None:
    """And everything is passed on to the progress bar."""
    seen: list[tuple[int, Mapping[str, float]]] = []
    log = Journal(tmp_path / "m.jsonl").stage("student", lambda epoch, figures: seen.append((epoch, figures)))
    log(1, {"val": 0.5})
    log(2, {"val": 0.6})
    assert (tmp_path / "m.jsonl").read_text().splitlines()[1] == '{"stage": "student", "epoch": 2, "val": 0.6}'
    assert seen == [(1, {"val": 0.5}), (2, {"val": 0.6})]


def test_resumed_stage_replaces_its_own_later_lines(tmp_path: Path) -> None:
    """The checkpoint may be older than the last line; no epoch may stand there twice."""
    path = tmp_path / "m.jsonl"
    teacher, student = (Journal(path).stage(name) for name in ("teacher", "student"))
    for epoch in (1, 2, 3):
        teacher(epoch, {"val": 0.1})
    for epoch in (1, 2, 3, 4):
        student(epoch, {"val": 0.1})
    resumed = Journal(path).stage("student")
    for epoch in (3, 4):
        resumed(epoch, {"val": 0.2})
    assert _lines(path) == [("teacher", e) for e in (1, 2, 3)] + [("student", e) for e in (1, 2, 3, 4)]
    assert '"epoch": 4, "val": 0.2' in path.read_text()


def test_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    """A process killed in the middle of a write leaves half a line, which would break every reader."""
    path = tmp_path / "m.jsonl"
    path.write_text('{"stage": "student", "epoch": 1, "val": 0.5}\n{"stage": "stu')
    Journal(path).stage("student")(2, {"val": 0.6})
    assert _lines(path) == [("student", 1), ("student", 2)]
