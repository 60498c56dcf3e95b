"""Planetoid's raw files are Python 2 pickles: read what they hold, execute nothing."""

from __future__ import annotations

import os
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from graph2mlp.data.planetoid import read_planetoid
from graph2mlp.errors import DataError

# The public split validates on the 500 nodes behind the training nodes, so even a tiny copy needs that many.
ALL, TRAIN = 506, 4


def _one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(3, dtype=np.int32)[labels]


def _old_pickle(value: object) -> bytes:
    """As Python 2 and the numpy of 2016 wrote it; two modules have been renamed since."""
    return pickle.dumps(value, protocol=3).replace(b"numpy._core.", b"numpy.core.").replace(b"builtins", b"__builtin__")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """506 known nodes, 3 test nodes 509, 507 and 511 in that order; 506, 508 and 510 are missing."""
    state = np.random.RandomState(0)
    features = sp.random(ALL + 3, 6, 0.3, format="csr", dtype=np.float32, random_state=state)
    labels = state.randint(0, 3, ALL + 3)
    lists = defaultdict(list, {node: [] for node in range(512)})
    lists[0] = [1, 1, 509]  # repeated, and one direction only
    lists[7] = [7]
    parts: dict[str, Any] = {
        "x": features[:TRAIN],
        "y": _one_hot(labels[:TRAIN]),
        "allx": features[:ALL],
        "ally": _one_hot(labels[:ALL]),
        "tx": features[ALL:],
        "ty": _one_hot(labels[ALL:]),
        "graph": lists,
    }
    for name, value in parts.items():
        (tmp_path / f"ind.toy.{name}").write_bytes(_old_pickle(value))
    (tmp_path / "ind.toy.test.index").write_text("509\n507\n511\n")
    np.savez(tmp_path / "truth.npz", x=features.toarray(), y=labels)
    return tmp_path


def _truth(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / "truth.npz") as file:
        return file["x"], file["y"]


def test_rows_go_to_the_nodes_that_the_index_names(folder: Path) -> None:
    """Row k of `tx` belongs to line k of `test.index`; the files do not list test nodes in order."""
    raw, split = read_planetoid(folder, "toy")
    x, y = _truth(folder)
    got = raw.features.toarray()
    assert got.shape == (512, 6)
    assert np.array_equal(got[:ALL], x[:ALL])
    for line, node in enumerate((509, 507, 511)):
        assert np.array_equal(got[node], x[ALL + line])
        assert raw.labels[node] == y[ALL + line]
    assert np.array_equal(raw.labels[:ALL], y[:ALL])
    assert split.train.tolist() == [0, 1, 2, 3]
    assert split.val.tolist() == list(range(4, 504))
    assert split.test.tolist() == [507, 509, 511]


def test_missing_test_rows_are_empty(folder: Path) -> None:
    """CiteSeer leaves out 15 isolated nodes; they keep their place with zero features."""
    raw, _ = read_planetoid(folder, "toy")
    assert not raw.features[[506, 508, 510]].nnz
    assert raw.labels[[506, 508, 510]].tolist() == [0, 0, 0]


def test_edges_become_undirected_without_repeats(folder: Path) -> None:
    """The neighbour lists repeat some edges and hold self-loops; a node's degree must not count them."""
    raw, split = read_planetoid(folder, "toy")
    graph = raw.graph("toy", split)
    assert graph.is_sparse is (graph.x.layout == torch.sparse_csr)
    assert sorted(zip(*graph.edge_index.tolist(), strict=True)) == [(0, 1), (0, 509), (1, 0), (509, 0)]


class _Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("part", ["y", "allx", "graph"])
def test_pickled_code_is_not_executed(part: str, folder: Path, tmp_path: Path) -> None:
    """A pickle can call anything; these files come over the network."""
    mark = tmp_path / "executed"
    (folder / f"ind.toy.{part}").write_bytes(pickle.dumps([_Bomb(mark)]))
    with pytest.raises(DataError, match=f"ind.toy.{part} is not a Planetoid file: it asks for "):
        read_planetoid(folder, "toy")
    assert not mark.exists()


@pytest.mark.parametrize("what", ["eval", "getattr", "object"])
def test_builtins_are_not_loaded(what: str, folder: Path) -> None:
    """Even a bare name from builtins is a step towards running something."""
    (folder / "ind.toy.y").write_bytes(f"c__builtin__\n{what}\n.".encode())
    with pytest.raises(DataError, match=f"__builtin__.{what}"):
        read_planetoid(folder, "toy")


@pytest.mark.parametrize("length", [0, 1, 40, 200])
def test_truncated_file(length: int, folder: Path) -> None:
    """A download that broke off."""
    file = folder / "ind.toy.allx"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(DataError, match="ind.toy.allx is not a Planetoid file"):
        read_planetoid(folder, "toy")


@pytest.mark.parametrize("part", ["ty", "test.index"])
def test_missing_file_is_named(part: str, folder: Path) -> None:
    """Some files of a set are easily forgotten; the message says which one and where."""
    (folder / f"ind.toy.{part}").unlink()
    with pytest.raises(DataError, match=f"ind.toy.{part}"):
        read_planetoid(folder, "toy")


@pytest.mark.parametrize(("part", "value"), [("allx", [1, 2]), ("graph", [3])])
def test_file_with_something_else(part: str, value: object, folder: Path) -> None:
    """A readable pickle of the wrong thing is still not a Planetoid file."""
    (folder / f"ind.toy.{part}").write_bytes(_old_pickle(value))
    with pytest.raises(DataError, match="Planetoid"):
        read_planetoid(folder, "toy")
