"""CSV files of hours of work: nothing is lost to a second process, and damage is one line instead of a wrong mean."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from bench.rows import RowFile
from graph2mlp.errors import DataError
from tests.test_public import ROOT

HEADER = "name,seed,score,note\n"


def _file(path: Path) -> RowFile:
    numbers, optional = frozenset({"score"}), frozenset({"note"})
    columns = ("name", "seed", "score", "note")
    return RowFile(path=path, columns=columns, keys=("name", "seed"), numbers=numbers, optional=optional)


def test_rows_come_back(tmp_path: Path) -> None:
    """Commas and quotes in a setting must not move figures to other columns; a missing figure stays empty."""
    rows = _file(tmp_path / "new" / "t.csv")
    assert rows.read() == []
    rows.append([{"name": 'a "b", c', "seed": 0, "score": 0.5, "note": "x"}])
    rows.append([{"name": "d", "seed": 1, "score": ""}, {"name": "d", "seed": 2, "score": 1}])
    assert [tuple(row.values()) for row in rows.read()] == [
        ('a "b", c', "0", "0.5", "x"),
        ("d", "1", "", ""),
        ("d", "2", "1", ""),
    ]
    assert [path.name for path in rows.path.parent.iterdir()] == ["t.csv"]


def test_a_run_made_twice_counts_once(tmp_path: Path) -> None:
    """Two processes can make the same run; two copies of a seed would look like more seeds."""
    (tmp_path / "t.csv").write_text(HEADER + "a,0,1,\nb,0,2,\na,0,3,\n")
    assert [row["score"] for row in _file(tmp_path / "t.csv").read()] == ["3", "2"]


def test_several_processes_fill_one_file(tmp_path: Path) -> None:
    """One header and every row whole, though all start before there is a file."""
    code = (
        "import sys; from pathlib import Path; from bench.rows import RowFile\n"
        "columns = ('name', 'seed', 'score', 'note')\n"
        f"rows = RowFile(path=Path({str(tmp_path / 't.csv')!r}), columns=columns, keys=columns, numbers=frozenset())\n"
        "for seed in range(100): rows.append([dict(name=sys.argv[1], seed=seed, score=1, note='x' * 300)])\n"
    )
    several = [subprocess.Popen([sys.executable, "-c", code, str(number)], cwd=ROOT) for number in range(4)]
    assert [one.wait() for one in several] == [0] * 4
    assert (tmp_path / "t.csv").read_text().count("name,seed") == 1
    assert len(_file(tmp_path / "t.csv").read()) == 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,seed\na,0\n", "t.csv lacks the column score"),
        ("", "t.csv lacks the columns name, seed, score"),
        (HEADER + "a,0,1,x\nb,1", "ends in half a row"),
        (HEADER + "a,0,1\n", "line 2: the row has not as many fields"),
        (HEADER + "a,0,1,x,y\n", "line 2: the row has not as many fields"),
        (HEADER + "a,0,1,x\na,1,high,x\n", "line 3: score must be a number, got 'high'"),
        (HEADER + "a,0,nan,x\n", "line 2: score must be a number, got 'nan'"),
        (HEADER + 'a,0,1,"x"y\n', "after line 1: ',' expected"),
    ],
)
def test_damaged_files_are_named(text: str, message: str, tmp_path: Path) -> None:
    """A figure read from the wrong column is worse than none."""
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        _file(tmp_path / "t.csv").read()


def test_older_files_are_read_rewritten_and_not_mixed(tmp_path: Path) -> None:
    """A row of this version under an older header would shift its figures by one column."""
    old = _file(tmp_path / "t.csv")
    old.path.write_text("name,seed,score\na,0,1\n")
    assert old.read() == [{"name": "a", "seed": "0", "score": "1", "note": ""}]
    with pytest.raises(DataError, match="Rewrite it with: python -m bench.accuracy --csv .*t.csv --merge"):
        old.append([{"name": "b", "seed": 1, "score": 2, "note": ""}])
    assert old.merge([]) == 1
    old.append([{"name": "b", "seed": 1, "score": 2, "note": ""}])
    assert len(old.read()) == 2


def test_merge_adds_rows_and_keeps_what_is_there_when_it_fails(tmp_path: Path) -> None:
    """Machines fill files of their own; the last file wins, and a damaged one changes nothing."""
    rows = _file(tmp_path / "t.csv")
    rows.path.write_text(HEADER + "a,0,1,\nb,0,2,\n")
    (tmp_path / "other.csv").write_text(HEADER + "b,0,3,\nc,0,4,\n")
    (tmp_path / "bad.csv").write_text("name\n")
    for wrong, message in (("bad.csv", "lacks"), ("absent.csv", "No such file to merge")):
        with pytest.raises(DataError, match=message):
            rows.merge([tmp_path / "other.csv", tmp_path / wrong])
    assert [row["score"] for row in rows.read()] == ["1", "2"]
    assert rows.merge([tmp_path / "other.csv"]) == 3
    assert [row["score"] for row in rows.read()] == ["1", "3", "4"]


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "bench").glob("*.py")))
def test_every_script_can_be_imported(name: str) -> None:
    """They share helpers, and no other test runs all of them: a name that moved would show months later."""
    importlib.import_module(f"bench.{name}" if name != "__init__" else "bench")
