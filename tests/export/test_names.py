"""Nodes keep their names from the user's table to the answers; a device's requests speak of them by these names."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graph2mlp.errors import RequestError
from graph2mlp.export.bundle import open_bundle
from graph2mlp.export.names import NodeNames
from graph2mlp.export.runtime import Predictor
from tests.cli import assert_one_line_error, distill, invoke
from tests.graphs import FEATURES, community_graph
from tests.own_graphs import node_ids, save_folder, write_table


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A NOSMOG bundle of a folder whose nodes are called `user-0`, `user-7`, ..."""
    folder = tmp_path_factory.mktemp("names")
    save_folder(community_graph(), folder / "mine")
    done = distill(folder / "mine", folder / "run", "--method", "nosmog")
    assert done.exit_code == 0, done.output
    assert invoke("export", folder / "run", "--onnx", "--out", folder / "bundle").exit_code == 0
    return folder / "bundle"


def test_requests_name_neighbours_as_the_user_does(bundle: Path, tmp_path: Path) -> None:
    """A row number would be somebody else's node as soon as ids are no row numbers; answers carry class names."""
    x = np.full((3, FEATURES), 0.5, np.float32)
    want = Predictor(bundle).predict(x=x, neighbors=np.array([[3, -1], [4, 5], [-1, -1]]))
    ids = node_ids(61)
    header = ["id", *(f"x{i}" for i in range(FEATURES)), "neighbors"]
    near = [ids[3], f"{ids[4]} {ids[5]}", ""]
    rows = [[name, *x[0].tolist(), cell] for name, cell in zip("abc", near, strict=True)]
    source = write_table(tmp_path / "r.csv", header, rows)
    assert invoke("predict", bundle, source, "--out", tmp_path / "a.csv").exit_code == 0
    with (tmp_path / "a.csv").open() as file:
        answers = list(csv.DictReader(file))
    names = open_bundle(bundle).manifest.class_names
    assert names == ("class a", "class b", "class c")
    assert [row["label"] for row in answers] == [names[label] for label in want.labels]
    assert np.allclose([float(row["probability"]) for row in answers], want.probabilities.max(1), atol=1e-6)
    np.savez(tmp_path / "r.npz", x=x, neighbors=np.array([[ids[3], ""], [ids[4], ids[5]], ["", ""]]))
    assert invoke("predict", bundle, tmp_path / "r.npz", "--out", tmp_path / "b.npz").exit_code == 0
    assert list(np.load(tmp_path / "b.npz")["label"]) == [row["label"] for row in answers]


def test_unknown_name(bundle: Path, tmp_path: Path) -> None:
    """The old habit of row numbers, or a node that joined later: the message shows what a name looks like."""
    rows = [["a", *[0.5] * FEATURES, "3"]]
    write_table(tmp_path / "r.csv", ["id", *(f"x{i}" for i in range(FEATURES)), "neighbors"], rows)
    assert_one_line_error(invoke("predict", bundle, tmp_path / "r.csv"), "request 0", "'3'", "user-0")


def test_python_takes_lists_of_the_users_own_ids(bundle: Path) -> None:
    """`predict` takes positions, which nobody knows of a graph whose nodes have names."""
    predictor, ids = Predictor(bundle), node_ids(61)
    found = predictor.neighbors([[ids[3]], (ids[5], ids[4]), [], f"{ids[6]} {ids[7]}", iter([ids[8]])])
    assert found.tolist() == [[3, -1], [5, 4], [-1, -1], [6, 7], [8, -1]]
    assert predictor.neighbors([]).shape == (0, 1)
    x = np.full((2, FEATURES), 0.5, np.float32)
    want = predictor.predict(x=x, neighbors=np.array([[3, -1], [5, 4]])).logits
    assert np.array_equal(predictor.predict(x=x, neighbors=found[:2]).logits, want)


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ([[], ["user-0", "user-8"]], "request 1: 'user-8' is no node.*user-0"),
        ([[3]], "request 0: '3' is no node"),
        ([[["user-0"], ["user-0", "user-7"]]], "is no node"),
        ("user-0", "a list of ids for each request, got 'user-0'"),
        (3, "a list of ids for each request, got '3'"),
    ],
)
def test_lists_that_are_refused(bundle: Path, lists: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        Predictor(bundle).neighbors(lists)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("neighbors", [[["user-0"]], [["user-0"], []], [[3], []], np.array([["user-0", 3]], object)])
def test_predict_says_how_ids_become_positions(bundle: Path, neighbors: Any) -> None:
    """Text and ragged lists are what a user has at hand."""
    with pytest.raises(RequestError, match=r"padded with -1; Predictor\.neighbors\(lists\)"):
        Predictor(bundle).predict(x=np.full((len(neighbors), FEATURES), 0.5), neighbors=neighbors)


def test_lists_for_graphs_without_names(bundles) -> None:
    """One call for every bundle: ids are positions then, and features alone need none."""
    predictor = Predictor(bundles("dense"))
    assert predictor.neighbors([[3, 4], [], "5", 7]).tolist() == [[3, 4], [-1, -1], [5, -1], [7, -1]]
    assert Predictor(bundles("features")).neighbors([["anyone"], []]).tolist() == [[-1], [-1]]
    with pytest.raises(RequestError, match="Request 1 has the neighbour id 30, but they run from 0 to 29"):
        predictor.neighbors([[0], [30]])
    for wrong in ([["a"]], [[1.5]], [[[1], [2, 3]]], [[[1, 2]]]):
        with pytest.raises(RequestError, match="request 0: 'neighbors' must be whole numbers"):
            predictor.neighbors(wrong)


def test_example_of_the_page(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/predict.md is copied as it stands."""
    text = (Path(__file__).parents[2] / "docs" / "predict.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(bundle.parent)
    names: dict[str, Any] = {}
    exec(block, names)  # our own page
    assert names["neighbors"].tolist() == [[3, -1], [1, 2], [-1, -1]]
    assert len(names["answer"]) == 3


def _asked(path: Path, cells: list[str] | None) -> Path:
    """A csv of requests with these cells `neighbors`; one without the column for None."""
    header = [*(f"x{i}" for i in range(FEATURES)), *([] if cells is None else ["neighbors"])]
    return write_table(path, header, [[*[0.5] * FEATURES, *([] if cells is None else [c])] for c in cells or [""]])


def test_messages_name_cells_that_work(bundle: Path, bundles, tmp_path: Path) -> None:
    """The message once asked for -1, which a graph with names refuses; what each message names is then answered."""
    refused = invoke("predict", bundle, _asked(tmp_path / "without.csv", None))
    words = ("no 'neighbors'", "user-0", "separated by spaces", "an empty cell for", "Predictor.neighbors")
    assert_one_line_error(refused, *words)
    assert "-1" not in refused.stderr
    assert invoke("predict", bundle, _asked(tmp_path / "r.csv", ["user-0", "user-7 user-14", ""])).exit_code == 0
    assert_one_line_error(invoke("predict", bundle, _asked(tmp_path / "pad.csv", ["-1"])), "'-1'", "an empty cell")
    predictor = Predictor(bundles("dense"))
    with pytest.raises(
        RequestError, match=r"\(0 to 29\).*separated by spaces; -1 alone, or an empty cell, for"
    ) as caught:
        predictor.predict(x=np.zeros((1, 20)))
    assert "Predictor.neighbors" not in str(caught.value)
    (tmp_path / "p.csv").write_text("indices,neighbors\n1,3\n1,4 5\n1,-1\n1,\n")
    assert invoke("predict", bundles("dense"), tmp_path / "p.csv").exit_code == 0


def test_numbers_of_the_user_are_no_positions(bundle: Path) -> None:
    """Who gives ids that are numbers to `predict` is told what it takes."""
    x = np.full((1, FEATURES), 0.5)
    with pytest.raises(RequestError, match=r"1000, .*0 to 60.*positions; Predictor\.neighbors\(lists\)"):
        Predictor(bundle).predict(x=x, neighbors=[[1000]])


def test_names_with_spaces_are_separated_by_semicolons() -> None:
    """`New York` is one place."""
    names = NodeNames(np.array(["New York", "Rome", "Den Haag"]))
    assert names.positions("Den Haag; Rome", "here").tolist() == [2, 1]
    assert names.positions(["New York"], "here").tolist() == [0]
    assert names.positions("", "here").tolist() == []
    with pytest.raises(RequestError, match="separated by ';'"):
        names.positions("New York Rome", "here")


def test_numbers_are_looked_up_as_they_are_written() -> None:
    """Ids of a parquet file are numbers, of a csv file text."""
    names = NodeNames(np.array([70, 5, 900]))
    assert names.positions("900 70", "here").tolist() == [2, 0]
    assert names.table(np.array([[5, -1]]), "here").tolist() == [[1, -1]]


def test_a_student_of_features_alone_passes_over_neighbours(tmp_path: Path) -> None:
    """One file of requests serves every student of a graph; its bundle knows no names, so it once refused the names."""
    save_folder(community_graph(), tmp_path / "mine")
    done = distill(tmp_path / "mine", tmp_path / "run", "--method", "mlp")
    assert done.exit_code == 0, done.output
    assert invoke("export", tmp_path / "run", "--onnx", "--out", tmp_path / "bundle").exit_code == 0
    x = np.full((1, FEATURES), 0.5, np.float32)
    header = [*(f"x{i}" for i in range(FEATURES)), "neighbors"]
    write_table(tmp_path / "r.csv", header, [[*x[0].tolist(), node_ids(61)[3]]])
    np.savez(tmp_path / "r.npz", x=x, neighbors=np.array([[node_ids(61)[3]]]))
    for name in ("r.csv", "r.npz"):
        answered = invoke("predict", tmp_path / "bundle", tmp_path / name)
        assert answered.exit_code == 0, answered.output


def test_a_separator_that_is_in_no_name() -> None:
    """`a;b` beside `a` and `b` was read as two nodes."""
    names = NodeNames(np.array(["a;b", "a", "b", "New York"]))
    assert names.positions("a;b", "here").tolist() == [0]
    assert names.positions("a| New York", "here").tolist() == [1, 3]
    with pytest.raises(RequestError, match=r"'a;New York' is no node .*separated by '\|'"):
        names.positions("a;New York", "here")
    every = NodeNames(np.array(["a;b", "a|b", "a b", "a", "b"]))
    assert [every.positions(cell, "here").tolist() for cell in ("a b", "a|b", "a;b")] == [[2], [1], [0]]
    assert every.positions(["a", "a b"], "here").tolist() == [3, 2]
    with pytest.raises(RequestError, match="one in a cell"):
        every.positions("a;a b", "here")


def test_a_node_called_like_the_padding() -> None:
    """In a table of numbers -1 may be the node or nothing; in text, which has another padding, it is the node."""
    names = NodeNames(np.array([-1, 5]))
    assert names.positions("-1 5", "here").tolist() == [0, 1]
    assert names.table(np.array([["5", ""], ["-1", "5"]]), "here").tolist() == [[1, -1], [0, 1]]
    assert names.table(np.array([[5, 5]]), "here").tolist() == [[1, 1]]
    with pytest.raises(RequestError, match="a node is called -1, .* as text, padded with empty text"):
        names.table(np.array([[5, -1]]), "here")
    with pytest.raises(RequestError, match="must hold numbers or text"):
        names.table(np.array([[b"\xff"]]), "here")


def test_names_that_differ_in_white_space() -> None:
    """A cell is read without the white space around it, so one would be answered as the other."""
    with pytest.raises(RequestError, match="two nodes are called 'a'"):
        NodeNames(np.array(["a", " a", "b"]))
    names = NodeNames(np.array([" a", "b"]))
    assert names.positions([" a", "b"], "here").tolist() == [0, 1]
    assert names.table(np.array([[" a", "a"]]), "here").tolist() == [[0, 0]]
