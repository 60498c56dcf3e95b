"""The catalogue of bad input, part 3: folders with tables of nodes and edges."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.graphs import community_graph
from tests.own_graphs import node_ids, save_folder, write_table
from tests.refusals import assert_refused

Change = Callable[[Path], object]


def _edit(table: str, old: str, new: str) -> Change:
    """Replace the first `old`."""

    def change(folder: Path) -> None:
        text = (folder / table).read_text()
        assert old in text
        (folder / table).write_text(text.replace(old, new, 1))

    return change


def _edit_all(table: str, old: tuple[str, ...], new: str) -> Change:
    def change(folder: Path) -> None:
        text = (folder / table).read_text()
        for one in old:
            text = text.replace(one, new)
        (folder / table).write_text(text)

    return change


def _write(table: str, text: str | bytes) -> Change:
    content = text if isinstance(text, bytes) else text.encode()
    return lambda folder: (folder / table).write_bytes(content)


IDS = node_ids(61)
CASES: dict[str, tuple[Change, tuple[str, ...]]] = {
    "no edges": (lambda f: (f / "edges.csv").unlink(), ("no edges.csv or edges.parquet", "it has: nodes.csv")),
    "no nodes": (lambda f: (f / "nodes.csv").unlink(), ("no nodes.csv or nodes.parquet", "edges.csv")),
    "both kinds": (lambda f: write_table(f / "nodes.parquet", ["id"], [[1]]), ("both nodes.parquet and nodes.csv",)),
    "no label": (_edit("nodes.csv", "label", "class"), ("no column 'label'", "it has: id, class, split", "rename")),
    "one column": (_write("nodes.csv", "town\nParis\n"), ("no column 'label' (it has: town)", "Add it, or rename")),
    "no source": (_edit("edges.csv", "source", "from"), ("no column 'source'", "it has: from, target")),
    "no target": (_edit("edges.csv", "target", "to"), ("no column 'target'", "source")),
    "no features": (_write("nodes.csv", "id,label,split\na,b,train\n"), ("no feature columns", "id, label, split")),
    "text feature": (_edit("nodes.csv", ",f0,", ",f0,town,"), ("cells", "header")),
    "word among numbers": (_edit("nodes.csv", "train,", "train,tall"), ("row 1", "'f0'", "'tall", "remove it")),
    "a number with an underscore": (_write("nodes.csv", "id,label,f\na,b,1_0\n"), ("row 1", "'1_0' is no number")),
    "empty cell": (_write("nodes.csv", "id,label,age\na,b,1\nc,d,\n"), ("row 2", "'age'", "empty", "fill")),
    "NaN cell": (_edit("nodes.csv", ",0.0,", ",nan,"), ("1 feature values", "NaN", "impute")),
    "id twice": (_edit("nodes.csv", f"\n{IDS[4]},", f"\n{IDS[3]},"), (f"'{IDS[3]}'", "rows 4 and 5", "own")),
    "empty id": (_edit("nodes.csv", f"\n{IDS[4]},", "\n,"), ("row 5", "id is empty")),
    "unknown end": (_edit("edges.csv", f"\n{IDS[0]},", "\nnobody,"), ("source 'nobody'", "no id", IDS[0])),
    "ends as row numbers": (_write("edges.csv", "source,target\n0,1\n"), ("row 1", "source '0'", IDS[0], "1 such")),
    "weight as a word": (_write("edges.csv", f"source,target,weight\n{IDS[0]},{IDS[1]},much\n"), ("'weight'", "much")),
    "weight of zero": (_write("edges.csv", f"source,target,weight\n{IDS[0]},{IDS[1]},0\n"), ("1 edge weights",)),
    "training node without label": (
        _edit("nodes.csv", f"{IDS[4]},class b,", f"{IDS[4]},,"),
        ("1 of 24", f"such as '{IDS[4]}'", "an empty split"),
    ),
    "unknown part": (_edit("nodes.csv", ",train,", ",trian,"), ("'trian'", "Did you mean 'train'", "empty")),
    "only a training part": (_edit_all("nodes.csv", (",val,", ",test,"), ",train,"), ("'val'", "at least one")),
    "ragged row": (_write("nodes.csv", "id,label,f\na,b,1\nc,d,1,2\n"), ("row 2", "4 cells", "header has 3")),
    "short row": (_write("nodes.csv", "id,label,f\na,b\n"), ("row 1", "2 cells", "header has 3")),
    "two names of the label": (_edit("nodes.csv", ",f1", ",y"), ("'label' and 'y'", "Remove one", "rename")),
    "three ends": (_write("edges.csv", f"source,src,target\n{IDS[0]},{IDS[1]},{IDS[2]}\n"), ("'source' and 'src'",)),
    "the index of a data frame": (_write("nodes.csv", ",id,label,f\n0,a,b,1\n"), ("called ''", "index=False")),
    "an index read back": (_write("nodes.csv", "Unnamed: 0,label,f\n0,b,1\n"), ("'Unnamed: 0'", "index=False")),
    "column twice": (_edit("nodes.csv", "f1", "f0"), ("'f0' comes twice", "Rename")),
    "empty file": (_write("nodes.csv", ""), ("no column 'label'", "nothing")),
    "header only": (_write("nodes.csv", "id,label,f\n"), ("label",)),
    "not UTF-8": (_write("nodes.csv", b"id,label,f\n\xff\xfe,b,1\n"), ("UTF-8", "nodes.csv")),
    "zero bytes": (_write("nodes.csv", b"id,label,f\n\x00\x00,b,1\n"), ("nodes.csv",)),
    "tabs": (_write("nodes.csv", "id\tlabel\tf\na\tb\t1\n"), ("no column 'label'", "id label f", "separated by tabs")),
    "semicolons": (_write("nodes.csv", "id;label;f\na;b;1,5\n"), ("id;label;f", "separated by semicolons", "commas")),
    "edges with bars": (_write("edges.csv", "source|target\na|b\n"), ("no column 'source'", "separated by bars")),
    "regression": (_write("nodes.csv", "id,label,f\na,0.25,1\nc,1.5,2\n"), ("'0.25'", "classes", "--task regression")),
    "no label at all": (_write("nodes.csv", "id,label,f\na,,1\nc,-1,2\n"), ("no node has a label",)),
    "ids of two spellings": (
        lambda f: [_write("nodes.csv", "id,label,f\n7,a,1\n8,b,1\n")(f), _write("edges.csv", "src,dst\n07,8\n")(f)],
        ("src '07'", "no id", "look like '7'"),
    ),
    "broken parquet": (
        lambda f: [(f / "nodes.csv").unlink(), _write("nodes.parquet", b"PAR1 no PAR1")(f)],
        ("nodes.parquet", "not a parquet file"),
    ),
    "a folder called nodes.csv": (
        lambda f: [(f / "nodes.csv").unlink(), (f / "nodes.csv").mkdir()],
        ("no nodes.csv",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_tables(case: str, tmp_path: Path) -> None:
    """People's tables are where mistakes are made; the message names file, row and column."""
    change, words = CASES[case]
    folder = save_folder(community_graph(), tmp_path / "mine")
    change(folder)
    assert_refused(folder, tmp_path, *words)


PARQUET: dict[str, tuple[list[str], list[list[object]], tuple[str, ...]]] = {
    "missing number": (["id", "label", "f"], [[1, "a", 0.5], [2, "b", None]], ("row 2", "'f'", "empty")),
    "text column": (["id", "label", "f"], [[1, "a", "tall"]], ("'f'", "'tall' is no number", "encode")),
    "lists of two lengths": (["id", "label", "f"], [[1, "a", [1.0]], [2, "b", [1.0, 2.0]]], ("'f'", "one length")),
    "a list as id": (["id", "label", "f"], [[[1, 2], "a", 1.0]], ("'id'", "text or whole numbers", "list")),
}


@pytest.mark.parametrize("case", PARQUET)
def test_bad_parquet(case: str, tmp_path: Path) -> None:
    """Typed columns have mistakes of their own."""
    header, rows, words = PARQUET[case]
    folder = save_folder(community_graph(), tmp_path / "mine")
    (folder / "nodes.csv").unlink()
    write_table(folder / "nodes.parquet", header, rows)
    assert_refused(folder, tmp_path, *words)


def test_unreadable_folder(tmp_path: Path) -> None:
    """A link that leads nowhere is no table."""
    folder = save_folder(community_graph(), tmp_path / "mine")
    (folder / "edges.csv").unlink()
    (folder / "edges.csv").symlink_to(folder / "gone.csv")
    assert_refused(folder, tmp_path, "edges.csv")
    shutil.rmtree(folder)
    assert_refused(folder, tmp_path, "mine")
