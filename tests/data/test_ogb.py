"""OGB's raw csv files, in a made-up folder of the same layout."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from graph2mlp.data.datasets import load_graph
from graph2mlp.data.ogb import read_ogb
from graph2mlp.errors import DataError


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.write(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six nodes, three directed edges, a repeat, one node without a label."""
    root = tmp_path / "ogbn_arxiv"
    _write(root / "raw" / "edge.csv.gz", "0,1\n2,1\n0,1\n4,5\n")
    _write(root / "raw" / "node-feat.csv.gz", "".join(f"{i}.5,-{i}\n" for i in range(6)))
    _write(root / "raw" / "node-label.csv.gz", "0\n1\n2\n0\n1\nnan\n")
    for part, ids in (("train", "3\n0\n"), ("valid", "1\n"), ("test", "4\n2\n")):
        _write(root / "split" / "time" / f"{part}.csv.gz", ids)
    return root


def test_reads_graph_and_official_split(folder: Path) -> None:
    """Edges both ways and once, labels with gaps, the split of the only rule there is."""
    graph = load_graph("ogbn:arxiv", root=folder.parent, download=False)
    assert graph.x[2].tolist() == [2.5, -2.0]
    assert sorted(zip(*graph.edge_index.tolist(), strict=True)) == [(0, 1), (1, 0), (1, 2), (2, 1), (4, 5), (5, 4)]
    assert graph.y.tolist() == [0, 1, 2, 0, 1, -1]
    assert graph.num_classes == 3
    assert [part.tolist() for part in graph.split.parts().values()] == [[0, 3], [1], [2, 4], []]


@pytest.mark.parametrize("part", ["raw/node-label.csv.gz", "split/time/valid.csv.gz"])
def test_missing_part_is_named(part: str, folder: Path) -> None:
    """An archive that was unpacked halfway."""
    (folder / part).unlink()
    with pytest.raises(DataError, match=Path(part).name):
        read_ogb(folder)


def test_missing_split(folder: Path) -> None:
    """Without the official split a figure would not be comparable, so none is made up."""
    for file in (folder / "split" / "time").iterdir():
        file.unlink()
    (folder / "split" / "time").rmdir()
    with pytest.raises(DataError, match="No split found"):
        read_ogb(folder)


def test_several_labels_per_node_are_refused(folder: Path) -> None:
    """ogbn-proteins has 112 tasks; taking the first would be silently wrong."""
    _write(folder / "raw" / "node-label.csv.gz", "0,1\n" * 6)
    with pytest.raises(DataError, match="2 labels per node"):
        read_ogb(folder)


def test_text_in_a_csv(folder: Path) -> None:
    """A saved error page in place of a file."""
    _write(folder / "raw" / "node-feat.csv.gz", "<html>\n")
    with pytest.raises(DataError, match="node-feat.csv.gz"):
        read_ogb(folder)
