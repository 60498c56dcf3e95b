"""A run folder that somebody edited, or a disk damaged: its page is drawn, or refused in one line."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graph2mlp.errors import RunError
from graph2mlp.report import write_report
from graph2mlp.report.data import read_runs
from graph2mlp.report.run_page import run_html
from tests.report.folders import page_of, run_files, write_folder


def test_damaged_lines_are_counted(tmp_path: Path) -> None:
    """A line cut off by a crash is left out, and said; NaN and infinity are no points of a curve."""
    folder = write_folder(tmp_path, run_files())
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "student", "epoch": 7, "loss": NaN, "val": Infinity, "val_loss": 1e999}\n{"stage": "stu')
    page = write_report(folder).read_text()
    assert "1 damaged line of metrics.jsonl left out" in page
    assert "nan" not in page.lower().replace("nano", "")
    assert "inf" not in re.sub(r"infer\w*|inform\w*", "", page.lower())


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("result.json", "{"),
        ("result.json", '{"schema": 1}'),
        ("result.json", '{"schema": 9}'),
        ("breakdown.json", "[]"),
        ("config.toml", "="),
    ],
)
def test_damaged_files_are_one_clear_error(file: str, content: str, tmp_path: Path) -> None:
    """The name of the file and what to do; the page before stays as it was."""
    folder = write_folder(tmp_path, run_files())
    before = write_report(folder).read_bytes()
    (folder / file).write_text(content)
    with pytest.raises(RunError, match=file):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == before


def test_other_bytes_in_the_course_are_damaged_lines(tmp_path: Path) -> None:
    """UTF-16, half a disk block, odd types: each costs its line."""
    folder = write_folder(tmp_path, run_files())
    lines = [b"\xff\xfe\x00\x00", b'{"stage": "stud\xe9nt", "epoch": 1}', b"[" * 100_000, b"3"]
    lines += [b'{"stage": "student", "epoch": %s}' % one for one in (b"Infinity", b'"x"', b"null", b"[1]", b"1.5")]
    lines += [b'{"stage": "student", "epoch": 7, "kept": "x"}']
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b"\n".join(lines))
        file.write(b'\n{"stage": "student", "epoch": 8, "loss": 1%s}\n' % (b"0" * 400))
    assert "10 damaged lines of metrics.jsonl left out" in write_report(folder).read_text()


ODD = [None, "x", [1], {}, -1, 0, True, float("nan"), 1e308, 10**400]


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from _places(child, (*path, key))


@pytest.mark.parametrize("production", [False, True])
def test_edited_results_are_drawn_or_refused(production: bool, tmp_path: Path) -> None:
    """Whatever a field of `result.json` holds, there is a page or one line that names the file."""
    files = run_files(production=production)
    figures = {"accuracy": 0.5, "auc": 0.6}
    files["result"] |= {
        "task": "classification",
        "metric": "accuracy",
        "device": "cpu",
        "advice": ["Deploy the student."],
        "fcr": {"percent": 50.0, "reason": ""},
        "deploy": [{"graph": "x", "nodes": 9, "majority": 0.5, "mlp": figures, "student": figures, "teacher": figures}],
    }
    files["result"]["teacher"]["frequencies"] = {"class": "a", "labelled": 0.1, "observed": 0.3, "moved": 0.2}
    folders = [write_folder(tmp_path / f"seed-{seed}", files) for seed in (0, 1)]
    for path in list(_places(files["result"])):
        for value in (*ODD, KeyError):
            result = copy.deepcopy(files["result"])
            place = result
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value
            if value is KeyError:
                del place[path[-1]]
            (folders[0] / "result.json").write_text(json.dumps(result))
            several = {"schema": 1, "runs": [result, files["result"] | {"seed": 1}]}
            (tmp_path / "result.json").write_text(json.dumps(several))
            for folder in (folders[0], tmp_path):
                with contextlib.suppress(RunError):
                    run_html(read_runs(folder))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"graph": "cora"}, "graph must be an object, got 'cora'"),
        ({"graph": {"name": "mine"}}, "graph.classes is missing"),
        ({"task": []}, "task must be text"),
        ({"task": "ranking"}, "its task 'ranking' is unknown to this version"),
        ({"student": {"layers": 2, "hidden": 3, "parameters": 4, "val": 0.5}}, "its student has no accuracy"),
        ({"runs": 3}, "runs must be a list, got 3"),
        ({"runs": []}, "it has no run"),
        ({"runs": [{"seed": 0}]}, r"runs\[0\].graph is missing"),
        ({"seconds": {"teacher": "long"}}, "seconds.teacher must be a number, got 'long'"),
    ],
)
def test_odd_results_are_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    """The file, what is wrong in it, and what to do."""
    files = run_files()
    files["result"] |= change
    with pytest.raises(RunError, match=f"result.json is damaged: {said}.*Run distill again"):
        page_of(tmp_path, files)


def test_seeds_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    """One of several seeds was made again in another setting: means of nothing would be shown."""
    first, second = run_files(), run_files(production=True)
    second["result"]["seed"] = 1
    for seed, files in enumerate((first, second)):
        write_folder(tmp_path / f"seed-{seed}", files)
    several = {"schema": 1, "runs": [first["result"], second["result"]]}
    (tmp_path / "result.json").write_text(json.dumps(several))
    with pytest.raises(RunError, match="do not report the same parts"):
        write_report(tmp_path)
