"""What nodes and classes are called: whole numbers or text, whatever form they come in, and each name once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from graph2mlp.data.datasets import load_graph
from graph2mlp.data.graph import GraphData
from graph2mlp.errors import DataError


@pytest.mark.parametrize("names", [["a", *"abc"], [1, "x", "1", 2], [7.0, 1.0, 2.0, 7.0], [b"a", b"x", b"y", b"a"]])
def test_two_nodes_of_one_name(names: list[Any]) -> None:
    """Whatever they are made of; an answer would belong to either."""
    with pytest.raises(DataError, match=r"Graph 'graph': nodes \d and \d are both called"):
        _named(names)


def _named(names: Any) -> GraphData:
    parts = {"train": [0], "val": [1], "test": [2]}
    return GraphData.from_arrays(np.eye(4), np.zeros((2, 0), int), [0, 1, 0, 1], **parts, names=names)


def test_names_of_classes_are_text(dense_graph: GraphData) -> None:
    """Years, say: as numbers they went into a bundle that was then refused."""
    graph = dense_graph
    arrays = (graph.x.numpy(), graph.edge_index.numpy(), graph.y.numpy())
    assert GraphData.from_arrays(*arrays, class_names=[2019, 2020, 2021]).class_names == ("2019", "2020", "2021")
    with pytest.raises(DataError, match="two classes are called '2019'"):
        GraphData.from_arrays(*arrays, class_names=[2019, 2020, "2019"])


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        ([3.0, -1.0, 2.0, 7.0], [3, -1, 2, 7]),
        (np.array([3, 1, 2, 7], np.uint8), [3, 1, 2, 7]),
        (np.array(["a", "Zoë", "c", "d"], object), ["a", "Zoë", "c", "d"]),
        (np.array([3, np.int32(1), 2, 7], object), [3, 1, 2, 7]),
        ([3, 1, 2, 2**70], ["3", "1", "2", str(2**70)]),
        (np.array([3, 1, 2, 2**64 - 1], np.uint64), ["3", "1", "2", str(2**64 - 1)]),
        (np.char.encode(["a", "Zoë", "c", "d"], "utf-8"), ["a", "Zoë", "c", "d"]),
    ],
    ids=["floats", "unsigned", "objects of text", "objects of numbers", "beyond int64", "beyond signed", "bytes"],
)
def test_names_of_any_form_are_numbers_or_text(names: Any, kept: list[Any], tmp_path: Path) -> None:
    """A bundle holds these two alone: others were taken, exported, and then refused with every prediction."""
    graph = _named(names)
    assert graph.names is not None
    assert graph.names.tolist() == kept
    again = load_graph(str(graph.save(tmp_path / "g.npz")))
    assert again.names is not None
    assert again.names.tolist() == kept


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([0.5, 1, 2, 3], "'0.5'"),
        ([float("nan"), 1, 2, 3], "'nan'"),
        ([2.0**53, 1, 2, 3], "'9007199254740992.0'"),
        ([None, 1, "y", None], "None"),
        (np.array([1, "x", 2, 3], object), "'x' among whole numbers"),
        (np.array([True, 1, 2, 3], object), "True"),
        (np.array([b"\xff", b"a", b"b", b"c"]), "bytes that are not UTF-8"),
        (np.arange(4).astype("datetime64[D]"), "datetime64"),
    ],
)
def test_names_of_another_form_are_refused(names: Any, found: str) -> None:
    """Rounded or printed in some way, they would hardly be what a request calls the node."""
    with pytest.raises(DataError, match=f"Graph 'graph': names of nodes must be all whole.* got {found}.* Make them"):
        _named(names)


def test_networkx_nodes_of_one_name() -> None:
    """1 and "1" are two nodes there, but one name in a file of requests."""
    graph = nx.Graph()
    graph.add_nodes_from([1, "x", "1"], x=1.0, y="a")
    with pytest.raises(DataError, match="nodes 0 and 2 are both called '1' .a number is the text it is written as"):
        GraphData.from_networkx(graph)
