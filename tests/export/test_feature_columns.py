"""Features keep the names of their columns from the graph's table to the requests, which may have any order."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graph2mlp.errors import RequestError
from graph2mlp.export.bundle import open_bundle
from graph2mlp.export.feature_columns import FeatureColumns
from graph2mlp.export.runtime import Predictor
from tests.cli import assert_one_line_error, distill, invoke
from tests.graphs import FEATURES, community_graph
from tests.own_graphs import node_ids, save_folder, write_table

HERE = Path("in.csv")
AGES = FeatureColumns(3, ("age", "height", "weight"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph in a folder with the columns f0 to f11, and two bundles: `features` and `structure`."""
    folder = tmp_path_factory.mktemp("columns")
    save_folder(community_graph(), folder / "mine")
    for name, method in (("features", "mlp"), ("structure", "nosmog")):
        done = distill(folder / "mine", folder / f"run-{name}", "--method", method)
        assert done.exit_code == 0, done.output
        done = invoke("export", folder / f"run-{name}", "--onnx", "--out", folder / name)
        assert done.exit_code == 0, done.output
    return folder


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def _answers(bundle: Path, source: Path) -> list[dict[str, str]]:
    """To a file, which is read in parts; the terminal, for which it is read whole, must show the same."""
    out = source.parent / "answers.csv"
    done = invoke("predict", bundle, source, "--out", out)
    assert done.exit_code == 0, done.output
    assert invoke("predict", bundle, source).stdout.splitlines() == out.read_text().splitlines()
    return _rows(out)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_in_any_order(folder: Path, tmp_path: Path, suffix: str) -> None:
    """Columns that were swapped gave wrong answers without a word, because only x0, x1, ... were known."""
    assert open_bundle(folder / "features").manifest.feature_names == tuple(f"f{i}" for i in range(FEATURES))
    x = np.random.default_rng(0).normal(size=(5, FEATURES)).astype(np.float32)
    want = Predictor(folder / "features").predict(x=x)
    for name, names, order in (
        ("same", [f"f{i}" for i in range(FEATURES)], range(FEATURES)),
        ("other", [f"f{i}" for i in range(FEATURES)], [7, 2, 0, 11, 1, 3, 4, 5, 6, 8, 9, 10]),
        ("numbers", [f"x{i}" for i in range(FEATURES)], [7, 2, 0, 11, 1, 3, 4, 5, 6, 8, 9, 10]),
    ):
        rows = x[:, list(order)].astype(float).tolist()
        source = write_table(tmp_path / f"{name}{suffix}", [names[i] for i in order], rows)
        found = _answers(folder / "features", source)
        assert [float(row["probability"]) for row in found] == pytest.approx(want.probabilities.max(1), abs=1e-5)
        assert [row["label"] for row in found] == [f"class {'abc'[label]}" for label in want.labels]


def test_the_graphs_own_table_of_nodes(folder: Path, tmp_path: Path) -> None:
    """What every newcomer tries first: its ids come back, and its labels are not read, which is said."""
    source = Path(shutil.copy(folder / "mine" / "nodes.csv", tmp_path))
    found = _answers(folder / "features", source)
    assert [row["id"] for row in found] == node_ids(61)
    logits = Predictor(folder / "features").predict(x=community_graph().x.numpy()).labels
    assert [row["label"] for row in found] == [f"class {'abc'[label]}" for label in logits]
    assert "not read: label, split" in invoke("predict", folder / "features", source).stderr
    (tmp_path / "in").mkdir()
    shutil.move(source, tmp_path / "in" / "nodes.csv")
    done = invoke("predict", folder / "features", tmp_path / "in", "--out", tmp_path / "out")
    assert "not read: label, split" in done.stderr


def test_a_table_of_nodes_for_a_bundle_that_reads_structure(folder: Path, tmp_path: Path) -> None:
    """It has no neighbours; the message says what the column holds, and a copy of the ids is that of known nodes."""
    refused = invoke("predict", folder / "structure", folder / "mine" / "nodes.csv")
    assert_one_line_error(refused, "no 'neighbors'", "each node's own id", "user-0")
    rows = _rows(folder / "mine" / "nodes.csv")
    rows = [{**row, "neighbors": row["id"]} for row in rows]
    source = write_table(tmp_path / "nodes.csv", list(rows[0]), [list(row.values()) for row in rows])
    found = _answers(folder / "structure", source)
    want = Predictor(folder / "structure").predict(x=community_graph().x.numpy(), neighbors=np.arange(61)[:, None])
    assert [row["label"] for row in found] == [f"class {'abc'[label]}" for label in want.labels]


def test_lists_of_parquet(folder: Path, tmp_path: Path) -> None:
    """An embedding is one column of the graph's table, and one of a request; parts without a split are empty there."""
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    graph = community_graph()
    columns: dict[str, Any] = {"id": node_ids(61), "label": [f"class {'abc'[c]}" for c in graph.y]}
    columns["split"] = ["train"] * 12 + ["val"] * 12 + ["test"] * 36 + [None]
    columns["emb"], columns["one"] = graph.x[:, 1:].tolist(), graph.x[:, :1].tolist()
    mine = tmp_path / "mine"
    shutil.copytree(folder / "mine", mine)
    (mine / "nodes.csv").unlink()
    parquet.write_table(arrow.table(columns), mine / "nodes.parquet")
    assert distill(mine, tmp_path / "run", "--method", "mlp").exit_code == 0
    assert invoke("export", tmp_path / "run", "--onnx", "--out", tmp_path / "b").exit_code == 0
    assert open_bundle(tmp_path / "b").manifest.feature_names == (*(f"emb[{i}]" for i in range(11)), "one")
    want = Predictor(tmp_path / "b").predict(x=np.roll(graph.x.numpy(), -1, axis=1))
    found = _answers(tmp_path / "b", mine / "nodes.parquet")
    assert [row["label"] for row in found] == [f"class {'abc'[label]}" for label in want.labels]
    for rows in ([], graph.x[:, 2:].tolist()):
        short = columns | {"emb": rows} if rows else {"emb": arrow.array([], arrow.list_(arrow.float32())), "one": []}
        parquet.write_table(arrow.table(short), tmp_path / "short.parquet")
        done = invoke("predict", tmp_path / "b", tmp_path / "short.parquet")
        if rows:
            assert_one_line_error(done, "'emb' must hold lists of 11 numbers")
        else:
            assert done.exit_code == 0, done.output


def test_inspect_says_what_the_features_are_called(folder: Path) -> None:
    """Whoever gets a bundle can ask it."""
    assert "12, called f0, f1, f2" in " ".join(invoke("inspect", folder / "features").stdout.split())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            ["age", "hieght", "weight"],
            "unknown column 'hieght'.*'age', 'height', 'weight' \\(or x0 to x2\\).*'height'\\?",
        ),
        (["age", "height"], "lacks 1 of 3 features: 'weight'.*by name, or all as x0 to x2"),
        (["age", "x1", "x2"], "lacks 2 of 3 features: 'height', 'weight'"),
        (["x0", "x1"], "has 2 feature columns, x0 to x1; the bundle takes 3, 'age'.*or x0 to x2"),
        (["age", "height", "weight", "x7"], "as age to weight, and beside them 'x7'"),
        (["x0", "x1", "x2", "age"], "as x0 to x2, and beside them 'age'"),
        (["age", "height", "weight", "shoe size"], "unknown column 'shoe size'"),
    ],
)
def test_columns_that_are_refused(given: list[str], words: str) -> None:
    """A typing error is no missing feature, and half the names are no order."""
    with pytest.raises(RequestError, match=words) as caught:
        AGES.find(given, HERE)
    assert "\n" not in str(caught.value)


def test_names_and_numbers_that_look_alike() -> None:
    """Columns counted from 1, or in another order than their numbers, are common; a full set of either is one."""
    from_one = FeatureColumns(3, ("x1", "x2", "x3"))
    assert from_one.find(["x3", "x1", "x2"], HERE) == ["x1", "x2", "x3"]
    assert from_one.find(["x2", "x1", "x0"], HERE) == ["x0", "x1", "x2"]
    assert FeatureColumns(3, ("x2", "x0", "x1")).find(["x0", "x1", "x2"], HERE) == ["x2", "x0", "x1"]
    assert AGES.find(["id", "y", "indices", "neighbors"], HERE) == []
    assert FeatureColumns(2, ("y", "age")).find(["age", "label", "y"], HERE) == ["y", "age"]


def test_a_feature_called_like_another_column_of_requests() -> None:
    """`neighbors` may be a count in the graph, but is a list in a request; the numbers are left."""
    clash = FeatureColumns(2, ("age", "neighbors"))
    assert clash.find(["neighbors", "x1", "x0"], HERE) == ["x0", "x1"]
    with pytest.raises(RequestError, match="'neighbors' of a request is no feature. Call all features x0 to x1"):
        clash.find(["age", "neighbors"], HERE)
