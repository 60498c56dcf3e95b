"""One node type of several: joined along meta-paths, both directions, nothing counted twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from graph2mlp.data import hetero
from graph2mlp.data.graph import GraphData
from graph2mlp.errors import DataError


def films(**changed: Any) -> Any:
    """Four movies; 0 and 1 share an actor, 1 and 2 a director, 2 is a sequel of 3."""
    from torch_geometric.data import HeteroData

    data = HeteroData()
    data["movie"].x, data["movie"].y = torch.eye(4), torch.tensor([0, 0, 1, 1])
    node = torch.arange(4)
    data["movie"].train_mask, data["movie"].val_mask, data["movie"].test_mask = node < 2, node == 2, node == 3
    data["actor"].num_nodes, data["director"].num_nodes = 2, 1
    data["movie", "has", "actor"].edge_index = torch.tensor([[0, 1, 3], [0, 0, 1]])
    data["director", "makes", "movie"].edge_index = torch.tensor([[0, 0], [1, 2]])
    for key, value in changed.items():
        setattr(data["movie"], key, value)
    return data


def pairs(graph: GraphData) -> set[tuple[int, int]]:
    return set(zip(*graph.edge_index.tolist(), strict=True))


def test_every_neighbouring_type_joins() -> None:
    """Whatever the direction of the relation; no node is joined with itself."""
    graph = GraphData.from_hetero(films(), "movie", name="films")
    assert pairs(graph) == {(0, 1), (1, 0), (1, 2), (2, 1)}
    assert graph.split.train.tolist() == [0, 1]
    assert (graph.name, graph.num_features, graph.num_classes) == ("films", 4, 2)
    assert GraphData.from_hetero(films(class_names=["drama", "comedy"]), "movie").class_names == ("drama", "comedy")


def test_named_paths_and_own_edges() -> None:
    """Longer ways, and edges within the type, taken in both directions."""
    data = films()
    assert pairs(GraphData.from_hetero(data, "movie", [("movie", "actor", "movie")])) == {(0, 1), (1, 0)}
    data["movie", "follows", "movie"].edge_index = torch.tensor([[2], [3]])
    assert pairs(GraphData.from_hetero(data, "movie", [("movie", "movie")])) == {(2, 3), (3, 2)}
    assert {(2, 3), (0, 1)} <= pairs(GraphData.from_hetero(data, "movie"))
    long = [("movie", "actor", "movie", "director", "movie")]
    assert (0, 2) in pairs(GraphData.from_hetero(data, "movie", long))


@pytest.mark.parametrize(
    ("target", "paths", "changed", "message"),
    [
        ("film", [], {}, "no node type 'film'"),
        ("actor", [], {}, "node type 'actor' has no 'x'"),
        ("movie", [], {"y": None}, "node type 'movie' has no 'y'"),
        ("movie", [("movie", "actor")], {}, "movie - actor must lead from 'movie' to 'movie'"),
        ("movie", [("movie",)], {}, "must lead from"),
        ("movie", [("movie", "studio", "movie")], {}, "no edges between 'movie' and 'studio'"),
    ],
)
def test_what_is_refused(target: str, paths: list[Any], changed: dict[str, Any], message: str) -> None:
    """In one line, with what is there."""
    with pytest.raises(DataError, match=message):
        GraphData.from_hetero(films(**changed), target, paths)


def test_hub_is_refused_before_its_pairs_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A country that all movies share joins all of them."""
    monkeypatch.setattr(hetero, "_MOST_EDGES", 4)
    with pytest.raises(DataError, match="joins up to 5 pairs at 'actor', more than 4"):
        GraphData.from_hetero(films(), "movie", [("movie", "actor", "movie")])


def test_type_that_nothing_joins() -> None:
    """Without a way back there is no graph."""
    data = films()
    del data["movie", "has", "actor"], data["director", "makes", "movie"]
    with pytest.raises(DataError, match="no relation leads from 'movie' to itself"):
        GraphData.from_hetero(data, "movie")


def test_real_films(data_root: Path, tmp_path: Path) -> None:
    """IMDB as PyG reads it, from its raw files alone."""
    from torch_geometric.datasets import IMDB

    (tmp_path / "raw").symlink_to(data_root / "IMDB" / "raw")
    graph = GraphData.from_hetero(IMDB(str(tmp_path))[0], "movie")
    assert (graph.num_nodes, graph.num_features, graph.num_classes) == (4278, 3066, 3)
    source, target = graph.edge_index
    same = (graph.y[source] == graph.y[target]).float().mean()
    assert float(same) > 0.45, "movies of one director or actor tend to be of one kind"
