"""The accuracy table runs for hours: it goes on where it stopped, survives a failing run, and says what it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import accuracy
from bench.accuracy import accuracy_file, jobs_of, main
from graph2mlp.distill import distill
from graph2mlp.methods import METHODS
from tests.graphs import community_graph, save_npz

FAST = ["--settings", "transductive", "--set", "train.epochs=3", "--set", "teacher.epochs=3"]


@pytest.fixture
def graph(tmp_path: Path) -> str:
    """A graph file whose runs take a moment."""
    return str(save_npz(community_graph(), tmp_path / "tiny.npz"))


def _main(tmp_path: Path, *arguments: str) -> int:
    return main([*FAST, "--csv", str(tmp_path / "t.csv"), *arguments])


def test_rows_are_made_once(graph: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second call adds only the seed that is missing; the row has cost, size, regime and both comparisons."""
    arguments = ("--graphs", graph, "--methods", "glnn,mlp")
    assert _main(tmp_path, *arguments, "--seeds", "1") == 0
    before = (tmp_path / "t.csv").read_text()
    assert _main(tmp_path, *arguments, "--seeds", "2") == 0
    assert (tmp_path / "t.csv").read_text().startswith(before)
    rows = accuracy_file(tmp_path / "t.csv").read()
    assert [(row["method"], row["teacher"], row["seed"]) for row in rows] == [
        ("glnn", "sage", "0"),
        ("mlp", "", "0"),
        ("glnn", "sage", "1"),
        ("mlp", "", "1"),
    ]
    first = rows[0]
    assert first["settings"] == "teacher.epochs=3 train.epochs=3"
    assert (first["regime"], first["layers"]) == ("features", "2")
    assert all(float(first[f"cpu_s_{stage}"]) >= 0 for stage in ("teacher", "structure", "student"))
    assert 0 <= float(first["student_test"]) <= 1
    assert "minus its teacher" in capsys.readouterr().out


def test_missing_graph_and_failing_run_do_not_end_the_table(
    graph: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line each, exit code 1, and the runs after them are made."""

    def fails_once(config: Any, *rest: Any, **named: Any) -> Any:
        if config.graph == graph and config.seed == 0:
            raise RuntimeError("singular\nand more")
        return distill(config, *rest, **named)

    monkeypatch.setattr(accuracy, "distill", fails_once)
    arguments = ("--graphs", f"{tmp_path}/absent.npz,{graph}", "--settings", "transductive,production")
    assert _main(tmp_path, *arguments, "--methods", "mlp", "--seeds", "2") == 1
    assert {row["seed"] for row in accuracy_file(tmp_path / "t.csv").read()} == {"1"}
    said = capsys.readouterr().err.splitlines()
    assert sum("absent.npz: skipped. No such file or folder" in line for line in said) == 1
    assert sum("mlp seed 0" in line and "FAILED, RuntimeError: singular" in line for line in said) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "glnnn"], "glnnn"),
        (["--methods", "glnn", "--set", "train.lrr=1"], "train.lrr"),
        (["--summary", "--baseline", "nobody"], "nobody"),
        (["--summary"], "t.csv lacks the column"),
        (["--merge", "absent.csv"], "No such file to merge: absent.csv"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong names cost nothing: they are refused before the first run."""
    if "--merge" not in arguments:
        (tmp_path / "t.csv").write_text("graph,setting\n" if arguments == ["--summary"] else "")
    assert _main(tmp_path, *arguments) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("Error: ")
    assert message in said
    assert "\n" not in said


def test_quick_is_small_and_leaves_the_table_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must measure the code of now, so rows that lie in the committed file must not stand in for runs."""
    seen: list[Any] = []

    def count(jobs: Any, rows: Any, _: Any) -> int:
        seen.append((len(jobs), {job.config.graph for job in jobs}, rows.path, rows.read()))
        return 0

    monkeypatch.setattr(accuracy, "run_missing", count)
    assert main(["--quick", "--methods", "glnn,mlp"]) == 0
    ((number, graphs, path, rows),) = seen
    assert (number, graphs, rows) == (8, {"digits", "cpf:cora"}, [])
    assert path.parent != accuracy.RESULTS
    assert not path.exists()


def test_a_method_without_teacher_runs_once_for_all_teachers() -> None:
    """Otherwise its rows would be made again for every teacher and counted as more seeds."""
    jobs = jobs_of("digits", "transductive", "glnn,gsdn", "sage,gcn", 2)
    named = [(job.names["method"], job.names["teacher"], job.names["seed"]) for job in jobs]
    assert len(named) == len(set(named)) == 6


def test_parts_make_up_the_table() -> None:
    """Every run is in one part, and seeds alternate, so that parts cost the same."""
    given = ["--full", "--seeds", "3"]
    whole = accuracy._jobs(accuracy._arguments(given))
    parts = [accuracy._jobs(accuracy._arguments([*given, "--part", f"{k}/2"])) for k in (1, 2)]
    assert len(whole) == 4 * 2 * 10 * 3
    assert [job for pair in zip(*parts, strict=True) for job in pair] == whole
    assert {job.config.method for job in whole} == {*METHODS} - {"mlp"}


@pytest.mark.parametrize("text", ["2", "0/2", "3/2", "a/b", "1/-2", "1/0"])
def test_impossible_part(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, before anything is trained."""
    with pytest.raises(SystemExit):
        accuracy._arguments(["--part", text])
    assert "expected K/N with K from 1 to N" in capsys.readouterr().err


def test_full_and_quick_exclude_each_other() -> None:
    """They name different tables."""
    with pytest.raises(SystemExit):
        accuracy._arguments(["--full", "--quick"])
