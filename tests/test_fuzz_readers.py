"""Mutated files: every reader gives a graph, or one of our errors in one line; never a traceback, never a crash.

Seeded, so that a failure can be repeated; `GRAPH2MLP_FUZZ=100` makes the search a hundred times longer.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graph2mlp.data.datasets import load_graph
from graph2mlp.data.graph import GraphData
from graph2mlp.errors import Graph2MLPError
from graph2mlp.teachers.files import read_knowledge
from graph2mlp.teachers.knowledge import TeacherKnowledge
from tests.graphs import community_graph, save_npz
from tests.own_graphs import node_ids, pyg_data, save_folder, write_table

ROUNDS = 120 * int(os.environ.get("GRAPH2MLP_FUZZ", "1"))


def _mutated(content: bytes, state: random.Random) -> bytes:
    """Flipped bytes, a cut, a hole, a repeated piece, or digits changed where there is text."""
    data = bytearray(content)
    for _ in range(state.choice((1, 1, 2, 8))):
        start = state.randrange(max(1, len(data)))
        kind = state.randrange(6)
        if kind == 0 and data:
            data[start] ^= 1 << state.randrange(8)
        elif kind == 1 and data:
            data[start] = state.choice(b"\x00\xff,\n\"'-0.9eX")
        elif kind == 2:
            del data[start:]
        elif kind == 3:
            del data[start : start + state.randrange(1, 40)]
        elif kind == 4:
            data[start:start] = data[start : start + state.randrange(1, 40)]
        elif data:  # near the ends stand the tables of contents of zip, parquet and safetensors
            data[state.choice((state.randrange(min(64, len(data))), -1 - state.randrange(min(64, len(data)))))] ^= 0xFF
    return bytes(data)


def _survives(read: Callable[[], object], where: str) -> bool:
    """Whether it was read; anything but one of our errors in one line fails the test."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except Graph2MLPError as error:
        lines = str(error).splitlines()
    except BaseException as error:
        raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
    else:
        return True
    assert len(lines) == 1, f"{where}: {lines}"
    return False


def _graph_file(kind: str, folder: Path) -> tuple[Path, Path]:
    """The graph's path, and the file of it to mutate."""
    graph = community_graph()
    if kind == "npz":
        file = save_npz(graph, folder / "g.npz")
    elif kind == "sparse npz":
        file = community_graph(sparse=True).save(folder / "g.npz")
    elif kind == "pt":
        file = folder / "g.pt"
        torch.save(pyg_data(graph), file)
    else:
        table, suffix = kind.split(".")
        made = save_folder(graph, folder / "g", suffix=f".{suffix}")
        return made, made / f"{table}.{suffix}"
    return file, file


@pytest.mark.parametrize(
    "kind", ["npz", "sparse npz", "pt", "nodes.csv", "edges.csv", "nodes.parquet", "edges.parquet"]
)
def test_mutated_graphs(kind: str, tmp_path: Path) -> None:
    """A damaged graph is refused; one whose damage shows nowhere is still a valid graph."""
    graph, file = _graph_file(kind, tmp_path)
    whole, state = file.read_bytes(), random.Random(kind)
    read = 0
    for number in range(ROUNDS):
        file.write_bytes(_mutated(whole, state))
        read += _survives(lambda: load_graph(str(graph)), f"{kind}, round {number}")
    assert read < ROUNDS, "no mutation did any harm, so this test proves nothing"


@pytest.mark.parametrize("kind", ["npy", "csv", "parquet", "safetensors"])
def test_mutated_knowledge(kind: str, tmp_path: Path) -> None:
    """The same for what teachers said."""
    graph = load_graph(str(save_folder(community_graph(), tmp_path / "g")))
    logits, file = torch.eye(3)[graph.y] * 4, tmp_path / f"k.{kind}"
    if kind == "npy":
        np.save(file, logits.numpy())
    elif kind == "safetensors":
        TeacherKnowledge(
            name="t", node_ids=graph.node_ids, logits=logits, hidden={"a": logits}, graph="", weights=""
        ).save(file)
    else:
        write_table(
            file, ["id", "l0", "l1", "l2"], [[i, *row] for i, row in zip(node_ids(61), logits.tolist(), strict=True)]
        )
    whole, state = file.read_bytes(), random.Random(kind)
    read = 0
    for number in range(ROUNDS):
        file.write_bytes(_mutated(whole, state))
        read += _survives(lambda: read_knowledge(file, graph).aligned(graph), f"{kind}, round {number}")
    assert read < ROUNDS, "no mutation did any harm, so this test proves nothing"


_ARRAYS = st.sampled_from(
    [
        np.zeros((0, 0)), np.zeros((2, 0), np.int64), np.ones((4, 3)), np.array(3.5), np.array([1, 2, 3]),
        np.full((4, 3), np.nan), np.array([["a", "b"]]), np.array([True, False, True, True]), np.arange(4),
        np.array([[0, 1], [1, 0]]), np.array([[0, 9], [9, 0]]), np.array([-1, 0, 1, 0]), np.array([2**63], np.uint64),
        np.array([np.datetime64("2020-01-01")] * 4), np.array([b"a"] * 4), np.ones((4, 3), np.complex64),
        np.ones((4, 1, 3), np.float16), np.array([0, 0, 1, 1], np.int8),
    ]
)  # fmt: skip


@settings(max_examples=ROUNDS, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["x", "edge_index", "y", "train", "val", "test", "class_names", "node_names", "x_data"]),
        _ARRAYS,
        max_size=9,
    )
)
def test_any_arrays_under_any_name(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Well-formed files of senseless content: types and shapes nobody thought of."""
    np.savez(tmp_path / "g.npz", **arrays)
    _survives(lambda: load_graph(str(tmp_path / "g.npz")), repr(arrays))
    held = [arrays.get(name, np.zeros(0)) for name in ("x", "edge_index", "y")]
    parts = {name: arrays[name] for name in ("train", "val", "test") if name in arrays}
    _survives(lambda: GraphData.from_arrays(*held, **parts), repr(arrays))


_CELL = st.one_of(
    st.integers(-3, 3).map(str), st.floats().map(str), st.sampled_from(["", "train", "a", '"', "1,2", "ä", "\x00", "#"])
)


@settings(max_examples=ROUNDS, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.lists(st.sampled_from(["id", "label", "y", "split", "f", "g", "", "id"]), max_size=6),
    rows=st.lists(st.lists(_CELL, max_size=6), max_size=6),
    ends=st.lists(st.tuples(_CELL, _CELL), max_size=4),
)
def test_any_cells(tmp_path: Path, header: list[str], rows: list[list[str]], ends: list[tuple[str, str]]) -> None:
    """Tables of senseless cells, quoted or not."""
    folder = tmp_path / "g"
    folder.mkdir(exist_ok=True)
    text = "\n".join(",".join(row) for row in [header, *rows])
    (folder / "nodes.csv").write_text(text, encoding="utf-8")
    write_table(folder / "edges.csv", ["source", "target"], ends)
    _survives(lambda: load_graph(str(folder)), repr(text))
