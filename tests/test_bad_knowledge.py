"""The catalogue of bad input, part 4: what teachers from outside bring. Tables have their own in `test_files.py`."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.cli import assert_one_line_error, distill
from tests.graphs import community_graph, save_npz
from tests.own_graphs import Bomb
from tests.refusals import assert_refused

Y = community_graph().y.numpy()
HUGE = b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000, 3), }"
GOOD = 4 * np.eye(3, dtype=np.float32)[Y]


def _npy(array: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / "k.npy", array, allow_pickle=True)
        return folder / "k.npy"

    return write


def _bytes(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def _ours(**changed: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        tensors = {"node_ids": torch.arange(61), "logits": torch.from_numpy(GOOD), **changed}
        about = {"schema": "1", "name": "t", "graph": "", "weights": "", "hidden": ""}
        save_file({name: one for name, one in tensors.items() if one is not None}, folder / "k.safetensors", about)
        return folder / "k.safetensors"

    return write


def _nan() -> np.ndarray:
    bad = GOOD.copy()
    bad[3, 1] = np.nan
    return bad


CASES: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "rows of another graph": (_npy(GOOD[:-1]), ("60 rows", "61 nodes", "row i must be about node i")),
    "columns of other classes": (_npy(GOOD[:, :2]), ("2 classes", "has 3")),
    "one row for each class": (_npy(GOOD.T), ("3 rows", "61 nodes")),
    "labels in place of logits": (_npy(Y), ("expected numbers [nodes, classes]", "[61]")),
    "text": (_npy(GOOD.astype(str)), ("expected numbers",)),
    "NaN": (_npy(_nan()), ("NaN",)),
    "rows mixed up": (_npy(np.roll(GOOD, 1, axis=0)), ("0.0%", "teacher.force")),
    "all equal": (_npy(np.zeros((61, 3))), ("33.3%", "teacher.force")),
    "objects": (_npy(np.array([None] * 61, dtype=object)), ("k.npy", "numpy.save")),
    "truncated npy": (_bytes("k.npy", b"\x93NUMPY\x01\x00v\x00{'descr'"), ("k.npy", "numpy.save")),
    "empty npy": (_bytes("k.npy", b""), ("k.npy", "numpy.save")),
    "huge npy": (
        _bytes("k.npy", b"\x93NUMPY\x01\x00v\x00" + HUGE.ljust(117) + b"\n"),
        ("k.npy",),
    ),
    "empty safetensors": (_bytes("k.safetensors", b""), ("k.safetensors",)),
    "header beyond the file": (_bytes("k.safetensors", b"\xff" * 8 + b"{}"), ("k.safetensors",)),
    "a pickle": (_bytes("k.pt", pickle.dumps(3)), ("k.pt", "expected .safetensors, .npy, .csv or .parquet")),
    "ids twice": (_ours(node_ids=torch.zeros(61, dtype=torch.long)), ("ascending", "once")),
    "ids beyond the graph": (_ours(node_ids=torch.arange(1, 62)), ("nothing of node 0",)),
    "ids in fractions": (_ours(node_ids=torch.arange(61) + 0.5), ("node ids", "float32")),
    "ids in two columns": (_ours(node_ids=torch.zeros(61, 2, dtype=torch.long)), ("node ids", "[61, 2]")),
    "no logits": (_ours(logits=None), ("k.safetensors",)),
    "logits in whole numbers": (_ours(logits=torch.zeros(61, 3, dtype=torch.long)), ("floating point", "int64")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_knowledge(case: str, tmp_path: Path) -> None:
    """A student of wrong soft labels trains without complaint, and is wrong."""
    write, words = CASES[case]
    graph = save_npz(community_graph(), tmp_path / "tiny.npz")
    assert_refused(graph, tmp_path, *words, given=("--knowledge", write(tmp_path)))


def test_absent(tmp_path: Path) -> None:
    """The file is named, and no run is begun."""
    graph = save_npz(community_graph(), tmp_path / "tiny.npz")
    assert_refused(graph, tmp_path, "absent.npy", given=("--knowledge", tmp_path / "absent.npy"))


@pytest.mark.parametrize("name", ["k.npy", "w.pt", "w.safetensors", "w.pt2"])
def test_bombs_do_not_run(name: str, tmp_path: Path) -> None:
    """Arrays of objects, weights that are objects, objects under the name of a safe format."""
    mark, file = tmp_path / "executed", tmp_path / name
    if name == "k.npy":
        np.save(file, np.array([Bomb(mark)], dtype=object), allow_pickle=True)
    elif name == "w.pt":
        torch.save({"weight": Bomb(mark)}, file)
    else:
        file.write_bytes(pickle.dumps(Bomb(mark)))
    given: tuple[object, ...] = ("--teacher-weights", file)
    if name == "k.npy":
        given = ("--knowledge", file)
    elif name != "w.pt2":
        given = (*given, "--teacher-module", "torch_geometric.nn:GCN")
    graph = save_npz(community_graph(), tmp_path / "tiny.npz")
    assert_one_line_error(distill(graph, tmp_path / "out", "--method", "glnn", *given), name)
    assert not mark.exists()
    assert not (tmp_path / "out").exists()
