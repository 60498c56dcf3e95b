"""A table in many files is the table in one; what was lost on the way is noticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graph2mlp.data.datasets import load_graph
from graph2mlp.data.graph import GraphData
from graph2mlp.data.parts import MANIFEST
from graph2mlp.errors import DataError
from tests.cli import invoke
from tests.own_graphs import save_folder, write_table


def cut(folder: Path, suffix: str, sizes: tuple[int, ...] = (20, 0, 25, 10_000)) -> Path:
    """`nodes` and `edges` of `folder` as parts of so many rows, with a manifest."""
    import pyarrow.csv as table_csv
    import pyarrow.parquet as parquet

    out = folder.with_name("parts")
    rows = {}
    for stem in ("nodes", "edges"):
        path = folder / f"{stem}{suffix}"
        table = parquet.read_table(path) if suffix == ".parquet" else table_csv.read_csv(path)
        (out / stem).mkdir(parents=True)
        start = 0
        for number, size in enumerate(sizes):
            part = table.slice(start, size)
            start += size
            name = f"{stem}/part-{number}{suffix}"
            if suffix == ".parquet":
                parquet.write_table(part, out / name)
            else:
                table_csv.write_csv(part, out / name)
            rows[name] = part.num_rows
    (out / MANIFEST).write_text(json.dumps({"schema": 1, "rows": rows}))
    return out


@pytest.fixture
def parts(dense_graph: GraphData, tmp_path: Path) -> Path:
    return cut(save_folder(dense_graph, tmp_path / "whole", suffix=".parquet"), ".parquet")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_many_files_are_one_table(suffix: str, dense_graph: GraphData, tmp_path: Path) -> None:
    """Equal features, edges, labels, split and names; with a manifest or without; parts without rows included."""
    whole = save_folder(dense_graph, tmp_path / "whole", suffix=suffix)
    out, one = cut(whole, suffix), load_graph(str(whole))
    for _ in range(2):
        graph = load_graph(str(out))
        assert torch.equal(graph.x, one.x)
        assert torch.equal(graph.edge_index, one.edge_index)
        assert torch.equal(graph.y, one.y)
        assert graph.names is not None
        assert np.array_equal(graph.names, one.names)  # type: ignore[arg-type]
        assert torch.equal(graph.split.train, one.split.train)
        (out / MANIFEST).unlink(missing_ok=True)
    assert "61" in invoke("inspect", out).stdout


def test_ids_may_look_like_numbers_in_one_part(tmp_path: Path, dense_graph: GraphData) -> None:
    """They are text everywhere as soon as one of them is."""
    out = tmp_path / "g"
    (out / "nodes").mkdir(parents=True)
    write_table(out / "nodes" / "a.csv", ["id", "label", "x"], [[i, "ab"[i % 2], i] for i in range(60)])
    write_table(out / "nodes" / "b.csv", ["id", "label", "x"], [[f"u{i}", "ab"[i % 2], i] for i in range(60)])
    write_table(out / "edges.csv", ["source", "target"], [[0, "u1"], ["u1", 59]])
    graph = load_graph(str(out))
    assert graph.edge_index.tolist() == [[0, 61], [61, 59]]


def damage(parts: Path, how: str) -> None:
    said = json.loads((parts / MANIFEST).read_text())
    if how == "lost":
        (parts / "nodes" / "part-2.parquet").unlink()
    elif how == "more":
        shutil.copy(parts / "nodes" / "part-2.parquet", parts / "nodes" / "part-7.parquet")
    elif how == "cut":
        shutil.copy(parts / "nodes" / "part-0.parquet", parts / "nodes" / "part-2.parquet")
    elif how == "other columns":
        (parts / MANIFEST).unlink()
        write_table(parts / "nodes" / "part-9.parquet", ["id", "label", "z"], [["n", "a", 1.0]])
    elif how == "truncated":
        file = parts / "edges" / "part-0.parquet"
        file.write_bytes(file.read_bytes()[:-20])
    elif how == "two kinds":
        (parts / "edges" / "x.csv").write_text("source,target\n")
        (parts / MANIFEST).unlink()
    elif how == "both":
        shutil.copy(parts / "nodes" / "part-0.parquet", parts / "nodes.parquet")
    elif how == "empty":
        shutil.rmtree(parts / "edges")
        (parts / "edges").mkdir()
    elif how == "not json":
        (parts / MANIFEST).write_text("{")
    else:
        changed: dict[str, Any] = {"schema": 2} if how == "future" else {"rows": {"nodes/part-0.parquet": "many"}}
        (parts / MANIFEST).write_text(json.dumps(said | changed))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("lost", r"nodes/part-2.parquet is missing \(1 of 8 files"),
        ("more", r"nodes/part-7.parquet is not in manifest.json"),
        ("cut", r"part-2.parquet has 20 rows, but manifest.json says 25"),
        ("other columns", r"part-9.parquet has other columns than part-0.parquet \(id, label, z\)"),
        ("truncated", "part-0.parquet is not a parquet file, or is damaged"),
        ("two kinds", r"must hold files of one kind, .parquet or .csv \(it has: .csv, .parquet\)"),
        ("both", r"has both nodes/ and nodes.parquet"),
        ("empty", r"must hold files of one kind, .parquet or .csv \(it has: none\)"),
        ("not json", "manifest.json is no manifest"),
        ("future", "manifest.json is no manifest .*expected schema 1"),
        ("no numbers", "manifest.json is no manifest"),
    ],
)
def test_what_was_lost_is_noticed(how: str, message: str, parts: Path) -> None:
    """A graph of the parts that happen to be there would train as well, on something else."""
    damage(parts, how)
    with pytest.raises(DataError, match=message):
        load_graph(str(parts))
