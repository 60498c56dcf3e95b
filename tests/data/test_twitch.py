"""The Twitch graphs: published counts, both kinds of features, damage in one line, a split for every seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graph2mlp.data.datasets import load_graph
from graph2mlp.data.splits import random_split
from graph2mlp.data.twitch import read_twitch
from graph2mlp.errors import DataError


def _file(path: Path, **changed: Any) -> Path:
    arrays = {
        "features": np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], np.uint8),
        "edges": np.array([[0, 1], [1, 0], [1, 2], [2, 2]], np.int32),
        "target": np.array([1, 0, 1]),
    }
    np.savez(path, **{name: value for name, value in {**arrays, **changed}.items() if value is not None})
    return path


def test_arrays_become_a_graph(tmp_path: Path) -> None:
    """Both directions, no self edge, classes by name; dense features keep their numbers."""
    raw = read_twitch(_file(tmp_path / "g.npz"))
    assert raw.features.toarray().tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]  # type: ignore[union-attr]
    assert sorted(zip(*raw.edge_index().tolist(), strict=True)) == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert raw.class_names == ("plain", "explicit")
    numbers = np.array([[0.5, -1.0], [2.0, 3.0], [0.1, 0.2]], np.float32)
    assert torch.equal(read_twitch(_file(tmp_path / "n.npz", features=numbers)).x(), torch.from_numpy(numbers))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": None}, "lacks features"),
        ({"features": np.zeros((2, 3))}, r"expected numbers features \[3, F\], got float64 \(2, 3\)"),
        ({"features": np.array([["a"], ["b"], ["c"]])}, "expected numbers features"),
        ({"edges": np.array([[0, 1, 2]])}, r"expected whole numbers edges \[E, 2\]"),
        ({"edges": np.array([[0.0, 1.0]])}, "expected whole numbers edges"),
        ({"edges": np.array([[0, 3]])}, "edges name nodes 0 to 3, but there are 3"),
        ({"edges": np.array([[-1, 2]])}, "edges name nodes -1 to 2"),
        ({"target": np.array([0, 1, 2])}, "target must be 0 or 1"),
        ({"target": np.array([0.0, 1.0, 1.0])}, "target must be 0 or 1"),
    ],
)
def test_damage_is_one_line(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Before anything is trained."""
    with pytest.raises(DataError, match=message):
        read_twitch(_file(tmp_path / "g.npz", **changed))


def test_split_is_the_seeds(tmp_path: Path) -> None:
    """60 / 20 / 20 %, every node once."""
    split = random_split(101, 3)
    assert [len(part) for part in (split.train, split.val, split.test)] == [60, 20, 21]
    assert torch.cat([split.train, split.val, split.test]).sort().values.tolist() == list(range(101))
    assert torch.equal(split.train, random_split(101, 3).train)
    assert not torch.equal(split.train, random_split(101, 4).train)


@pytest.mark.parametrize(("country", "nodes"), [("DE", 9498), ("FR", 6549), ("PT", 1912)])
def test_counts_are_the_published_ones(country: str, nodes: int, data_root: Path) -> None:
    """And the features line up between countries."""
    graph = load_graph(f"twitch:{country}", root=data_root, download=False)
    assert (graph.num_nodes, graph.num_features, graph.num_classes) == (nodes, 3170, 2)
    assert graph.is_sparse
