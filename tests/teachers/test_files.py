"""Knowledge made elsewhere: the right row for the right node, the right column for the right class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graph2mlp.data.datasets import load_graph
from graph2mlp.data.graph import GraphData
from graph2mlp.data.targets import Classes
from graph2mlp.errors import KnowledgeError
from graph2mlp.teachers.files import read_knowledge
from tests.cli import assert_one_line_error, distill, result_of
from tests.graphs import community_graph, save_npz
from tests.own_graphs import node_ids, save_folder, write_table


@pytest.fixture
def graph(tmp_path: Path) -> GraphData:
    """The tiny graph with names for its nodes and classes `class a`, `class b`, `class c`."""
    return load_graph(str(save_folder(community_graph(), tmp_path / "mine")))


def _logits(graph: GraphData) -> np.ndarray:
    """Right on nine nodes in ten, different in every row."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(graph.num_nodes, 3)).astype(np.float32)
    logits[np.arange(graph.num_nodes), graph.y.numpy()] += 4
    return logits


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_are_read_by_id_and_class(suffix: str, graph: GraphData, tmp_path: Path) -> None:
    """Shuffled rows and shuffled columns: a mix-up would still train, and only look a little worse."""
    logits, ids = _logits(graph), node_ids(61)
    order = np.random.default_rng(1).permutation(61)
    rows = [[*logits[i, [2, 0, 1]].tolist(), ids[i]] for i in order]
    file = write_table(tmp_path / f"k{suffix}", ["class c", "class a", "class b", "id"], rows)
    said = read_knowledge(file, graph)
    assert torch.equal(said.node_ids, torch.arange(61))
    assert np.allclose(said.logits, logits)
    numbered = write_table(tmp_path / f"n{suffix}", ["logit2", "logit0", "logit1", "id"], rows)
    assert np.allclose(read_knowledge(numbered, graph).logits, logits)


def test_some_nodes_only(graph: GraphData, tmp_path: Path) -> None:
    """In the production setting a teacher may not speak of unseen nodes, so files must be able to leave nodes out."""
    logits, ids = _logits(graph), node_ids(61)
    file = write_table(tmp_path / "k.csv", ["id", "l0", "l1", "l2"], [[ids[i], *logits[i]] for i in (40, 3)])
    said = read_knowledge(file, graph)
    assert said.node_ids.tolist() == [3, 40]
    assert np.allclose(said.logits, logits[[3, 40]])


def test_run_from_npy(graph: GraphData, tmp_path: Path) -> None:
    """The simplest bridge from any framework: one array, row i about node i."""
    np.save(tmp_path / "elsewhere.npy", _logits(graph))
    given = ("--method", "glnn", "--knowledge", tmp_path / "elsewhere.npy")
    done = distill(tmp_path / "mine", tmp_path / "r", *given)
    assert done.exit_code == 0, done.output
    assert result_of(tmp_path / "r")["teacher"]["name"] == "elsewhere"
    refused = distill(tmp_path / "mine", tmp_path / "s", *given, "--setting", "production")
    assert_one_line_error(refused, "unseen")
    assert not (tmp_path / "s").exists()


def test_probabilities_are_recognised() -> None:
    """Only rows that sum to 1: logits that happen to be positive stay as they are."""
    shares = torch.tensor([[0.2, 0.8], [1.0, 0.0]])
    assert torch.allclose(Classes().as_logits(shares).softmax(1), shares, atol=1e-6)
    positive = torch.tensor([[0.2, 0.9], [1.0, 0.0]])
    assert Classes().as_logits(positive) is positive


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (["l0", "l1", "l2"], [1, 2, 3], "no column 'id'"),
        (["id", "l0", "l1"], ["user-0", 1, 2], "3 classes"),
        (["id", "l0", "l1", "l3"], ["user-0", 1, 2, 3], "l0, l1, l3"),
        (["id", "l0", "l1", "x2"], ["user-0", 1, 2, 3], "Call them class a"),
        (["id", "l0", "l1", "l2"], ["17", 1, 2, 3], "'17' is no node.*user-0"),
        (["id", "l0", "l1", "l2"], ["user-0", 1, 2, "much"], "'much' is no number"),
        (["id", "l0", "l1", "l2"], ["user-0", 1, 2, "nan"], "NaN"),
    ],
)
def test_bad_tables(header: list[str], row: list[object], message: str, graph: GraphData, tmp_path: Path) -> None:
    """Each says which file, what is in it, and what was expected."""
    file = write_table(tmp_path / "k.csv", header, [row])
    with pytest.raises(KnowledgeError, match=message):
        read_knowledge(file, graph)


def test_bad_arrays_and_kinds(graph: GraphData, tmp_path: Path) -> None:
    """Rows of another graph, another shape, several arrays in one file, a kind of file nobody reads."""
    for name, array, message in (
        ("rows.npy", np.zeros((60, 3)), "60 rows.*61 nodes"),
        ("flat.npy", np.zeros(61), r"expected numbers \[nodes, classes\]"),
        ("text.npy", np.array([["a"] * 3] * 61), "expected numbers"),
    ):
        np.save(tmp_path / name, array)
        with pytest.raises(KnowledgeError, match=message):
            read_knowledge(tmp_path / name, graph)
    save_npz(community_graph(), tmp_path / "g.npz")
    (tmp_path / "g.npz").rename(tmp_path / "zip.npy")
    with pytest.raises(KnowledgeError, match="several arrays"):
        read_knowledge(tmp_path / "zip.npy", graph)
    (tmp_path / "k.json").write_text("{}")
    with pytest.raises(KnowledgeError, match="expected .safetensors"):
        read_knowledge(tmp_path / "k.json", graph)
