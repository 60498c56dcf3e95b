"""The catalogue of bad input, part 1: graphs as arrays in `.npz` files.

What is wrong, what is there, what to do: one line, exit code 1, nothing written. The other parts: `test_bad_pt.py`,
`test_bad_tables.py`, `test_bad_knowledge.py`; mutated files: `test_fuzz_readers.py`. Bundles and requests, runs,
settings and Planetoid's pickles have such tests beside their own (`tests/export`, `test_distrust.py`, `test_config.py`,
`tests/data/test_planetoid.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.graphs import NODES, community_graph, save_npz
from tests.own_graphs import Bomb
from tests.refusals import assert_refused

Arrays = dict[str, Any]


def _set(name: str, index: Any, value: Any) -> Callable[[Arrays], Arrays]:
    def change(arrays: Arrays) -> Arrays:
        array = arrays[name].copy()
        array[index] = value
        return {name: array}

    return change


def _put(**changed: Any) -> Callable[[Arrays], Arrays]:
    return lambda arrays: changed


def _of(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {name: change(arrays[name])}


def _weights(odd: Any) -> Callable[[Arrays], Arrays]:
    """1 for all edges but the third."""
    return lambda arrays: {"edge_weight": np.array([1.0, 1.0, odd, *[1.0] * (arrays["edge_index"].shape[1] - 3)])}


CASES: dict[str, tuple[Callable[[Arrays], Arrays], tuple[str, ...]]] = {
    "NaN feature": (_set("x", (3, 2), np.nan), ("1 feature values", "NaN", "impute")),
    "infinite feature": (_set("x", (3, 2), np.inf), ("infinite", "impute")),
    "feature too large": (_of("x", lambda x: x.astype(np.float64) + 1e300), ("infinite",)),
    "features as text": (_of("x", lambda x: x.astype(str)), ("x must hold numbers", "<U")),
    "complex features": (_of("x", lambda x: x * 1j), ("x must hold numbers", "complex")),
    "features of one dimension": (_of("x", lambda x: x[:, 0]), ("2 dimensions", "(61,)")),
    "features of three dimensions": (_of("x", lambda x: x[:, :, None]), ("2 dimensions", "(61, 12, 1)")),
    "no feature column": (_of("x", lambda x: x[:, :0]), ("empty", "[61, 0]")),
    "fewer rows than labels": (_of("x", lambda x: x[:-1]), ("60 rows", "61 labels")),
    "features transposed": (_of("x", lambda x: x.T), ("12 rows", "61 labels")),
    "edge beyond the nodes": (_set("edge_index", (0, 0), NODES), ("names node 61", "0 to 60")),
    "edge of a far node": (_set("edge_index", (0, 0), 2**62), (str(2**62), "0 to 60")),
    "negative edge": (_set("edge_index", (1, 0), -1), ("names node -1",)),
    "edges in rows": (_of("edge_index", np.transpose), ("[2, edges]", "transposed")),
    "three ends": (_of("edge_index", lambda e: np.concatenate([e, e[:1]])), ("[2, edges]", "[3,")),
    "edges flat": (_of("edge_index", np.ravel), ("2 dimensions",)),
    "half an edge": (_of("edge_index", lambda e: e + 0.5), ("edge_index must hold integers", "float64")),
    "edges as text": (_of("edge_index", lambda e: e.astype(str)), ("edge_index must hold integers", "<U")),
    "unsigned edges that wrap": (_of("edge_index", lambda e: e.astype(np.uint64) + 2**63), ("names node -",)),
    "weights too few": (_put(edge_weight=np.ones(3)), ("edge_weight", "one number for each", "(3,)")),
    "weights of two kinds": (_put(edge_weight=np.ones((7, 2))), ("one number for each", "(7, 2)")),
    "weight of zero": (_weights(0.0), ("1 edge weights", "positive", "Leave such edges out")),
    "negative weight": (_weights(-2.0), ("1 edge weights", "rescale")),
    "NaN weight": (_weights(np.nan), ("1 edge weights", "finite")),
    "weights as text": (_weights("much"), ("edge_weight must hold numbers", "<U")),
    "labels with fractions": (_of("y", lambda y: y + 0.5), ("integers", "--task regression")),
    "rows of class numbers": (_of("y", lambda y: np.stack([y, y], 1)), ("(61, 2)", "one class per node", "multilabel")),
    "labels half known": (_of("y", lambda y: np.eye(3, dtype=int)[y] - (y[:, None] == [5, 5, 0])), ("all unknown",)),
    "quantities half known": (_put(y=np.full((61, 2), [0.0, np.nan]), task=np.array("regression")), ("all unknown",)),
    "infinite quantities": (_put(y=np.full(61, np.inf), task=np.array("regression")), ("finite",)),
    "another task": (_put(task=np.array("ranking")), ("unknown task 'ranking'", "regression")),
    "labels as text": (_of("y", lambda y: y.astype(str)), ("integers", "<U")),
    "label below -1": (_set("y", 30, -2), ("-2", "-1, unknown")),
    "unsigned label that wraps": (
        _of("y", lambda y: np.r_[y[:-1].astype(np.uint64), np.array([2**64 - 1], np.uint64)]),
        ("18446744073709551615", "0, 1, 2"),
    ),
    "label beyond the names": (_put(class_names=np.array(["a", "b"])), ("labels need 3 names", "got 2")),
    "two classes of one name": (_put(class_names=np.array(["a", "b", "a"])), ("two classes are called 'a'", "Rename")),
    "label beyond all sense": (_set("y", 30, 10**12), ("1000000000000", "61 nodes", "0, 1, 2")),
    "one label too few": (_of("y", lambda y: y[:-1]), ("61 rows", "60 labels")),
    "no labels": (_put(y=np.zeros(0, int)), ("no labels",)),
    "one class": (_of("y", np.zeros_like), ("at least 2 classes", "got 1")),
    "nothing labelled": (_of("y", lambda y: y * 0 - 1), ("at least 2 classes",)),
    "training node without label": (_set("y", 7, -1), ("1 of 24 training", "no label, such as node 7", "no part")),
    "class without training node": (_of("train", lambda t: t[t % 3 != 2]), ("1 of 3 classes ('2')", "label them -1")),
    "parts overlap": (_set("val", 0, 0), ("Node 0", "more than once", "train, val")),
    "node twice in a part": (_set("test", 0, 30), ("Node 30", "once")),
    "split beyond the nodes": (_set("test", 0, 99), ("'test'", "99", "0 to 60")),
    "negative split": (_set("val", 0, -5), ("'val'", "-5")),
    "no training nodes": (_of("train", lambda t: t[:0]), ("'train'", "at least one")),
    "no validation nodes": (_of("val", lambda t: t[:0]), ("'val'", "select")),
    "no test nodes": (_of("test", lambda t: t[:0]), ("'test'", "report")),
    "split with fractions": (_of("train", lambda t: t + 0.5), ("train", "integers")),
    "split as text": (_put(train=np.array(["a"])), ("train", "integers")),
    "mask of 0 and 1": (_put(train=(np.arange(61) < 24).astype(int)), ("train", "61 numbers", "Store it as booleans")),
    "mask too short": (_put(train=np.ones(7, bool)), ("mask train", "(7,)", "(61,)")),
    "names too few": (_put(node_names=np.array(["a", "b"])), ("one name", "61", "(2,)")),
    "a name twice": (_put(node_names=np.r_[np.arange(60), 7]), ("nodes 7 and 60 are both called '7'", "of its own")),
    "names alike but for white space": (
        _put(node_names=np.array(["a", " a", *map(str, range(59))])), ("nodes 0 and 1 are both called 'a'",),
    ),
    "names with fractions": (_put(node_names=np.arange(61) / 2), ("names of nodes", "'0.5'", "Make them text")),
    "feature names too few": (_put(feature_names=np.array(["a", "b"])), ("each of 12 features", "got 2 names")),
    "feature names twice": (_put(feature_names=np.array(["a"] * 12)), ("12 names, 1 of them different",)),
    "pickled features": (_put(x=np.array([None] * 61, dtype=object)), ("lacks x",)),
}  # fmt: skip


def _arrays() -> Arrays:
    graph = community_graph()
    parts = {name: getattr(graph.split, name).numpy() for name in ("train", "val", "test")}
    return {"x": graph.x.numpy(), "edge_index": graph.edge_index.numpy(), "y": graph.y.numpy(), **parts}


@pytest.mark.parametrize("case", CASES)
def test_bad_arrays(case: str, tmp_path: Path) -> None:
    """Each would train on nonsense, or fail in the middle of a library, far from its cause."""
    change, words = CASES[case]
    file = tmp_path / "g.npz"
    np.savez(file, **{**_arrays(), **change(_arrays())})
    given = () if case != "class without training node" else ("--seed", "0")  # `inspect` only advises on this one
    assert_refused(file, tmp_path, *words, given=given)


@pytest.mark.parametrize(
    ("nodes", "classes", "words"),
    [
        (0, 2, ("no labels",)),
        (1, 1, ("1 of 1 classes ('0')", "fewer than 2 nodes")),
        (4, 2, ("no node in 'val'", "2 to 2 nodes", "train, val and test")),
        (61, 60, ("59 of 60 classes ('1', '2', '3')", "fewer than 2 nodes", "-1 (unknown)")),
        (100_000, 100_000, ("100000 of 100000 classes", "fewer than 2 nodes")),
    ],
    ids=["empty graph", "one node", "few nodes", "classes of one node", "100k classes"],
)
def test_odd_sizes_without_a_split(nodes: int, classes: int, words: tuple[str, ...], tmp_path: Path) -> None:
    """The split is drawn from what is there; what is too little says how much is needed."""
    file = tmp_path / "g.npz"
    np.savez(file, x=np.ones((nodes, 2)), edge_index=np.zeros((2, 0), int), y=np.arange(nodes) % max(1, classes))
    assert_refused(file, tmp_path, *words)


@pytest.mark.parametrize("missing", ["x", "edge_index", "y"])
def test_missing_array(missing: str, tmp_path: Path) -> None:
    """The message lists what there is, because names are what differs between people."""
    arrays = _arrays()
    del arrays[missing]
    np.savez(tmp_path / "g.npz", **arrays)
    assert_refused(tmp_path / "g.npz", tmp_path, f"lacks {missing}", "it has", "x [nodes, features]")


def test_broken_sparse_features(tmp_path: Path) -> None:
    """A column beyond the width would crash the process in the first product."""
    file = save_npz(community_graph(), tmp_path / "g.npz", x_data=np.ones(1), x_indices=np.array([99]),
                    x_indptr=np.r_[np.zeros(61, int), 1], x_shape=np.array([61, 12]))  # fmt: skip
    assert_refused(file, tmp_path, "x matrix is broken")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("g.npz", b"", ("g.npz", "numpy.savez")),
        ("g.npz", b"hello", ("g.npz", "numpy.savez")),
        ("g.npz", b"PK\x05\x06" + bytes(18), ("lacks edge_index", "nothing")),
        ("g.json", b"{}", ("g.json", "expected an .npz file", "nodes.csv")),
        ("g.csv", b"a,b", ("g.csv", "expected an .npz file", "nodes.csv")),
    ],
    ids=["empty file", "text", "empty archive", "json", "a single csv"],
)
def test_files_that_are_something_else(name: str, content: bytes, words: tuple[str, ...], tmp_path: Path) -> None:
    """Whatever a file is, its name is in the message."""
    (tmp_path / name).write_bytes(content)
    assert_refused(tmp_path / name, tmp_path, *words)


def test_absent_files_and_folders(tmp_path: Path) -> None:
    """A path that is not there, and a folder that is no graph."""
    assert_refused(tmp_path / "absent.npz", tmp_path, "absent.npz")
    (tmp_path / "folder.npz").mkdir()
    assert_refused(tmp_path / "folder.npz", tmp_path, "nodes.csv")


def test_graph_without_edges(tmp_path: Path) -> None:
    """All nodes isolated: nothing to compute positions from; features alone still work."""
    file = save_npz(community_graph(), tmp_path / "g.npz", edge_index=np.zeros((2, 0), int))
    assert_refused(file, tmp_path, "edge", given=("--seed", "0"), method="nosmog")


def test_pickle_in_npz_does_not_run(tmp_path: Path) -> None:
    """An array of objects is a pickle."""
    mark = tmp_path / "executed"
    file = save_npz(community_graph(), tmp_path / "g.npz", y=np.array([Bomb(mark)], dtype=object))
    assert_refused(file, tmp_path, "lacks y")
    assert not mark.exists()
