"""The page of a run: every figure from its files, nothing from outside, odd runs included."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from graph2mlp.report.data import read_runs
from graph2mlp.report.run_page import run_html
from graph2mlp.report.style import DARK, LIGHT
from tests.report.folders import page_of, part, run_files, tree, words, write_folder


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all numbers."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _leaves(child, (*path, key))
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield path


def _changed(files: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    files = copy.deepcopy(files)
    *before, last = path
    place: Any = files
    for key in before:
        place = place[key]
    place[last] = place[last] + 1 if isinstance(place[last], int) else place[last] * 1.07
    return files


def _numbers(files: dict[str, Any]) -> list[tuple[Any, ...]]:
    """All but the few that are not shown."""
    metrics = files["metrics"]
    return [
        path
        for path in _leaves(files)
        if path[-1] not in ("schema", "epoch")
        and not ("calibration" in path and path[-1] in ("low", "high"))  # their mean confidence is shown
        and not (path[0] == "metrics" and path[-1] == "kept" and path[1] % 6 != 5)  # the last of a stage decides
        and not (path[0] == "metrics" and path[-1] == "loss" and metrics[path[1]]["stage"] != "student")
    ]


def test_members_of_an_ensemble(tmp_path: Path) -> None:
    """Means over seeds; a single teacher, and a run of an older version, have no such table."""
    files = run_files()
    other = _changed(_changed(files, ("result", "teacher", "members", 0, "weight")), ("result", "seed"))
    runs = [read_runs(write_folder(tmp_path / str(seed), one))[0] for seed, one in enumerate((files, other))]
    page = words(run_html(runs))
    assert "The teacher's members" in page
    assert "0.64" in page  # of 0.62 and 1.07 times that
    del files["result"]["teacher"]["members"]
    assert "The teacher's members" not in words(run_html(read_runs(write_folder(tmp_path / "one", files))))


def test_every_number_of_the_files_is_on_the_page(tmp_path: Path) -> None:
    """A figure that does not follow its file is a constant somebody left in, or was read from the wrong place."""
    files = run_files(production=True)
    page = run_html(read_runs(write_folder(tmp_path, files)))
    numbers = _numbers(files)
    assert len(numbers) > 300
    empty = files["breakdown"]["classes"].index("c")
    for path in numbers:
        if "class" in path and path[path.index("class") + 1] == empty and path[-1] != "nodes":
            continue  # a class without test nodes has no shares
        assert run_html(read_runs(write_folder(tmp_path, _changed(files, path)))) != page, path


def test_equal_files_give_an_equal_page(tmp_path: Path) -> None:
    """No clock, no folder name, no random id: a page can be compared with an old one."""
    first = page_of(tmp_path / "first", run_files(production=True))
    assert page_of(tmp_path / "other place" / "second", run_files(production=True)) == first


@pytest.mark.parametrize("production", [False, True], ids=["transductive", "production"])
def test_well_formed_and_alone(production: bool, tmp_path: Path) -> None:
    """It opens from a mail on a train: nothing is fetched, nothing runs, every id is there once."""
    page = page_of(tmp_path, run_files(production=production))
    root = tree(page)
    names = [one.get("id") for one in root.iter() if one.get("id")]
    assert len(names) == len(set(names))
    assert not [
        one for one in root.iter() if one.tag.rpartition("}")[2] in ("script", "iframe", "img", "object", "base")
    ]
    for one in root.iter():
        for key, value in one.attrib.items():
            assert not key.startswith("on"), key
            assert key not in ("src", "href") or value.startswith("data:,"), value
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert "url(" not in page
    assert "@import" not in page


def test_charts_are_told_in_words(tmp_path: Path) -> None:
    """Who cannot see a chart gets its title and what it shows."""
    root = tree(page_of(tmp_path, run_files(production=True)))
    drawings = [one for one in root.iter() if one.tag.endswith("}svg")]
    assert len(drawings) >= 12
    for drawing in drawings:
        assert drawing.get("role") == "img"
        title, told = drawing[0], drawing[1]
        assert drawing.get("aria-labelledby") == f"{title.get('id')} {told.get('id')}"
        assert title.text
        assert told.text
        assert len(told.text) > 15


def test_key_figures(tmp_path: Path) -> None:
    """Student, teacher and MLP of each kind of node stand together, as percentages of the right key."""
    shown = words(page_of(tmp_path, run_files(production=True)))
    assert "The student is right on 77.4 % of the production mix: 10.0 points more than its teacher and 20.0" in shown
    assert "tran 71.2 % observed test nodes teacher 61.2 %, plain MLP 51.2 %" in shown
    assert "cold 80.5 % unseen nodes, without edges teacher 70.5 %, plain MLP 60.5 %" in shown
    assert "Unseen nodes that arrive with their edges: 74.3 % (teacher 64.3 %)" in shown


def test_a_loss_is_said_like_a_gain(tmp_path: Path) -> None:
    """A student that is worse than both must not read like a success."""
    files = run_files()
    files["result"]["student"]["test"] = 0.4
    shown = words(page_of(tmp_path, files))
    assert "right on 40.0 % of the test nodes: 21.2 points less than its teacher and 11.2 points less than a" in shown
    assert "22 are right with the student only and 44 with the teacher only" in shown
    assert "in favour of the teacher" in shown
    files["result"]["student"]["test"] = files["result"]["teacher"]["test"]
    assert "as often as its teacher" in words(page_of(tmp_path, files))


NASTY = '<img src=x onerror="alert(1)">&amp;\x00\u202e'


def test_names_from_files_cannot_become_tags(tmp_path: Path) -> None:
    """A graph, class or file name is whatever its author typed; it is shown, never executed."""
    files = run_files(names=("a", NASTY, "</svg><script>x</script>"))
    plain = tree(page_of(tmp_path, run_files()))
    result = files["result"]
    for place, key in ((result["graph"], "name"), (result["teacher"], "name"), (result, "regime"), (result, "setting")):
        place[key] = NASTY
    result["method"], result["fingerprint"], result["machine"]["cpu"] = NASTY, NASTY, NASTY
    result["versions"][NASTY] = NASTY
    files["settings"] = 'graph = \'<b>bold</b>\'\n[train]\n"<i>" = "<u>"\n'
    for line in files["metrics"]:
        line["<script>"] = 1.0
    root = tree(page_of(tmp_path, files))
    tags = {one.tag for one in root.iter()}
    assert tags <= {one.tag for one in plain.iter()}
    assert "alert(1)" in "".join(root.itertext())


def test_run_without_a_teacher(tmp_path: Path) -> None:
    """No row, no mark and no sentence about a teacher that never was."""
    page = page_of(tmp_path, run_files(teacher=False))
    shown = words(page)
    assert "teacher" not in shown.lower()
    assert "vs MLP" in shown
    assert 'class="teacher' not in page


def test_plain_mlp_is_no_success(tmp_path: Path) -> None:
    """The method `mlp` distills nothing, and its student is the very network it would be compared with."""
    files = run_files(teacher=False)
    files["result"]["method"] = "mlp"
    assert "A plain MLP is right on 71.2 % of the test nodes; nothing was distilled." in words(page_of(tmp_path, files))


def test_teacher_from_a_file(tmp_path: Path) -> None:
    """It has no parameters we know of, nothing on unseen nodes; the command names its file."""
    files = run_files(production=True)
    files["result"]["teacher"] = {"name": "theirs", "parameters": None, "val": 0.7, "tran": 0.612}
    for name in ("ind", "cold"):
        files["breakdown"]["parts"][name] = part(teacher=False)
    (tmp_path / "knowledge").mkdir()
    (tmp_path / "knowledge" / "0-theirs.safetensors").touch()
    shown = words(page_of(tmp_path, files))
    assert "--knowledge knowledge/0-theirs.safetensors" in shown
    assert "theirs, read from a file" in shown
    assert "teacher (theirs) 70.00 61.20 - - - -" in shown
    assert "prod 77.4 % production mix plain MLP 57.4 %" in shown


def test_teacher_of_code(tmp_path: Path) -> None:
    """A program is named by its path, from anywhere; of a method without a teacher no code is named."""
    files = run_files()
    files["settings"] += '[teacher]\nmodule = ""\nweights = "/a b/net.pt2"\n'
    shown = words(page_of(tmp_path, files))
    assert "In this folder, with the same versions, this makes the run again" in shown
    assert "--config config.toml --teacher-weights '/a b/net.pt2' --out again" in shown
    files = run_files(teacher=False)
    files["settings"] += '[teacher]\nmodule = "model:net"\n'
    assert "--teacher-module" not in words(page_of(tmp_path / "none", files))


def test_older_run_says_what_is_missing(tmp_path: Path) -> None:
    """Without breakdown and metrics the rest is shown, and the gaps are named; nothing is made up."""
    files = run_files()
    files["breakdown"] = files["metrics"] = None
    for key in ("machine", "threads", "graph_fingerprint", "versions"):
        del files["result"][key]
    shown = words(page_of(tmp_path, files))
    assert "does not hold breakdown.json, the answers by group" in shown
    assert "holds no metrics.jsonl" in shown
    assert "not noted" in shown
    assert "71.2 %" in shown
    assert "Which classes it confuses" not in shown


def test_small_groups_are_marked(tmp_path: Path) -> None:
    """17 nodes prove nothing: hollow and grey; a class without test nodes is named, not drawn at 0 %."""
    page = page_of(tmp_path, run_files())
    chart = next(one for one in tree(page).iter() if one.get("id") == "test-class")
    rows = {row[0][0].text: row for row in chart.iter("{http://www.w3.org/2000/svg}g") if len(row) and len(row[0])}
    hollow = {name: sum("hollow" in mark.get("class", "") for mark in row.iter()) for name, row in rows.items()}
    assert (hollow["a"], hollow["b"], hollow["c"]) == (0, 3, 0)
    assert "no test node" in "".join(rows["c"].itertext())


def test_many_classes(tmp_path: Path) -> None:
    """200 classes: the forty largest are drawn and that is said, the table has all, there is no matrix."""
    names = tuple(f"class {number}" for number in range(200))
    files = run_files(names=names)
    files["breakdown"]["parts"]["test"]["confusion"] = None
    page = page_of(tmp_path, files)
    assert "The 40 with most nodes of 200" in page
    assert all(f">{name}<" in page for name in names)
    assert "Which classes it confuses" not in page
    assert len(page) < 500_000


MANY = ("appnp", "gcn", "sage-mean", "sage-gcn", "sage-mean copy-2")
STAGES = ("student, first stage", "student, validation nodes taught")


def _lines(page: str, chart: str) -> dict[str, tuple[str, str | None]]:
    """The lines of a chart by the name that they tell: their colour and their dashes."""
    drawing = next(one for one in tree(page).iter() if one.get("id") == chart)
    curves = [one for one in drawing.iter() if one.tag.endswith("}polyline") and "curve" in one.get("class", "")]
    return {one[0].text or "": (one.get("class", ""), one.get("stroke-dasharray")) for one in curves}


def test_every_line_of_training_has_a_name(tmp_path: Path) -> None:
    """ "4 teachers" stood at the last of four lines, one of which had not even been used."""
    page = page_of(tmp_path, run_files(teachers=MANY, further=STAGES))
    for chart in ("val-accuracy", "val-loss"):
        lines = _lines(page, chart)
        assert set(lines) == {*MANY, "student", "plain MLP", "first stage", "student, refit"}
        assert len(set(lines.values())) == len(lines), "equal colour and equal dashes"
        assert lines["student"] == ("student curve", None)
        assert lines["student, refit"][0] == "student curve"
        drawing = next(one for one in tree(page).iter() if one.get("id") == chart)
        named = [one.text for one in drawing.iter() if one.get("class", "").endswith("-text end")]
        assert sorted(named) == sorted(lines)
    shown = words(page)
    assert "Of the forms of one teacher (sage-mean, sage-gcn) the best on validation taught." in shown
    assert "'student, refit' had learned from the validation nodes" in shown
    assert "Terms of the student's training loss (first stage)" in shown
    one = page_of(tmp_path / "one", run_files())
    assert set(_lines(one, "val-accuracy")) == {"teacher", "student", "plain MLP"}
    assert "forms of one teacher" not in words(one)


def test_names_of_lines_stand_beside_the_plot(tmp_path: Path) -> None:
    """At the end of a line that stops early a name lay on the marks of the others."""
    files = run_files(teachers=MANY, further=STAGES)
    files["metrics"] = [line for line in files["metrics"] if line["stage"] != "teacher gcn" or line["epoch"] < 4]
    drawing = next(one for one in tree(page_of(tmp_path, files)).iter() if one.get("id") == "val-loss")
    marks = [one for one in drawing.iter() if one.tag.rpartition("}")[2] in ("circle", "polygon", "rect")]
    ends = [float(one.get("x", 0)) for one in drawing.iter() if one.get("class", "").endswith("-text end")]
    assert len(marks) == len(ends) == 9
    edges = [float(corner.split(",")[0]) for one in marks for corner in one.get("points", "").split()]
    edges += [float(one.get("cx") or one.get("x") or 0) + 8 for one in marks]
    assert max(edges) < min(ends)
    heights = sorted(float(one.get("y", 0)) for one in drawing.iter() if one.get("class", "").endswith("-text end"))
    assert min(b - a for a, b in pairwise(heights)) >= 12


def _luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    parts = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_text_can_be_read(palette: dict[str, str]) -> None:
    """WCAG AA: 4.5 to 1 for every colour that text is written in, on both backgrounds."""
    for ground in ("paper", "wash"):
        for name in ("ink", "muted", "student", "teacher", "mlp"):
            light, dark = sorted((_luminance(palette[name]), _luminance(palette[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ground)
