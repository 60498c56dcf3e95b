"""The catalogue of bad input, part 2: `.pt` files, which are pickles, and must never be able to act."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from tests.graphs import community_graph
from tests.own_graphs import Bomb, pyg_data
from tests.refusals import assert_refused


def _without(name: str) -> Callable[[Data], Any]:
    def change(data: Data) -> Data:
        del data[name]
        return data

    return change


def _with(**changed: Any) -> Callable[[Data], Any]:
    def change(data: Data) -> Data:
        for name, value in changed.items():
            data[name] = value
        return data

    return change


CASES: dict[str, tuple[Callable[[Data], Any], tuple[str, ...]]] = {
    "no features": (_without("x"), ("no 'x'", "it has: edge_index")),
    "no edges": (_without("edge_index"), ("no 'edge_index'", "it has")),
    "no labels": (_without("y"), ("no 'y'", "it has")),
    "half a split": (_without("val_mask"), ("test and train only",)),
    "regression": (_with(y=torch.rand(61)), ("integers", "regression")),
    "several classes": (_with(y=torch.full((61, 3), 2)), ("(61, 3)", "one class per node")),
    "features as a list": (_with(x=[1, 2]), ("'x' must be a tensor", "list", "torch.as_tensor")),
    "labels as a list of numbers": (_with(y=[0, 1, 2] * 20 + [0]), ("'y' must be a tensor", "torch.as_tensor")),
    "words for too few nodes": (_with(y=["a", "b"]), ("61 rows", "2 labels")),
    "class names too few": (_with(class_names=["a", "b"]), ("labels need 3 names", "got 2")),
    "mask of no array": (_with(train_mask="0:20"), ("'train_mask' must be a tensor or an array, got str",)),
    "short mask": (_with(train_mask=torch.ones(4, dtype=torch.bool)), ("mask train", "(4,)")),
    "NaN feature": (_with(x=torch.full((61, 3), float("nan"))), ("183 feature values", "NaN")),
    "edge beyond the nodes": (_with(edge_index=torch.tensor([[0], [61]])), ("names node 61",)),
    "edges as float": (_with(edge_index=torch.zeros(2, 3)), ("edge_index", "integers")),
    "adjacency in place of edges": (_with(edge_index=torch.eye(61).long()), ("[2, edges]",)),
    "a list of graphs": (lambda data: [data, data], ("list of 2", "Save one")),
    "a tensor": (lambda data: data.x, ("Tensor", "expected a graph")),
    "a number": (lambda data: 3, ("int", "expected a graph")),
    "weights": (lambda data: nn.Linear(2, 2).state_dict(), ("weight, bias", "not like a graph")),
    "a whole network": (lambda data: nn.Linear(2, 2), ("Linear", "would have to be run")),
    "a batch": (lambda data: Batch.from_data_list([data, data]), ("was not opened", "torch.save(Data(")),
    "numpy inside": (lambda data: data.x.numpy(), ("was not opened", "tensors only")),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_pt(case: str, tmp_path: Path) -> None:
    """Each says what is in the file and what to save instead."""
    change, words = CASES[case]
    torch.save(change(pyg_data(community_graph())), tmp_path / "g.pt")
    assert_refused(tmp_path / "g.pt", tmp_path, *words)


@pytest.mark.parametrize("cut", [0, 10, 300, -40])
def test_truncated(cut: int, tmp_path: Path) -> None:
    """A download that broke off."""
    torch.save(pyg_data(community_graph()), tmp_path / "g.pt")
    whole = (tmp_path / "g.pt").read_bytes()
    (tmp_path / "g.pt").write_bytes(whole[:cut])
    assert_refused(tmp_path / "g.pt", tmp_path, "g.pt", "is not a file of torch.save")


@pytest.mark.parametrize("kind", ["object", "blocked module", "attribute", "dictionary", "plain pickle", "legacy"])
def test_bombs_do_not_run(kind: str, tmp_path: Path) -> None:
    """PyG's own reader runs the first of these: it repeats a refused load without the protection."""
    mark, file = tmp_path / "executed", tmp_path / "g.pt"
    bomb = Bomb(mark, blocked=kind == "blocked module")
    data = pyg_data(community_graph())
    if kind == "plain pickle":
        file.write_bytes(pickle.dumps(bomb))
    elif kind == "legacy":
        torch.save(bomb, file, _use_new_zipfile_serialization=False)
    else:
        data.extra = bomb
        torch.save({"object": bomb, "blocked module": bomb, "attribute": data, "dictionary": {"x": bomb}}[kind], file)
    words = ("would have to be run",) if kind in ("object", "blocked module", "attribute") else ()
    assert_refused(file, tmp_path, "g.pt", *words)
    assert not mark.exists()
    if kind == "object":
        from torch_geometric.io import fs

        with pytest.warns(UserWarning, match="weights_only"):
            fs.torch_load(str(file))
        assert mark.exists(), "the bomb is a dud, so this test proves nothing"


def test_zip_of_something_else(tmp_path: Path) -> None:
    """torch's files are zips too."""
    with zipfile.ZipFile(tmp_path / "g.pt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    assert_refused(tmp_path / "g.pt", tmp_path, "g.pt")
