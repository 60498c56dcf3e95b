"""Names to graphs: what is there is read, what is missing is said, and the folder of raw files is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from graph2mlp.config import resolve_config
from graph2mlp.data.datasets import data_root as resolve_root
from graph2mlp.data.datasets import dataset_names, load_graph
from graph2mlp.data.digits import digits
from graph2mlp.data.graph import GraphData
from graph2mlp.errors import DataError
from graph2mlp.run_inputs import read_inputs
from tests.graphs import save_npz

# Published counts; edges count both directions. Largest component for the cpf family.
COUNTS = {
    "cpf:cora": (2485, 2 * 5069, 1433, 7),
    "cpf:citeseer": (2110, 2 * 3668, 3703, 6),
    "cpf:a-computer": (13381, 2 * 245778, 767, 10),
    "cpf:a-photo": (7487, 2 * 119043, 745, 8),
    "amazon:Computers": (13752, 491722, 767, 10),
    "amazon:Photo": (7650, 238162, 745, 8),
    "coauthor:CS": (18333, 163788, 6805, 15),
    "planetoid:Cora": (2708, 10556, 1433, 7),
    "planetoid:CiteSeer": (3327, 9104, 3703, 6),
    "actor": (7600, 2 * 26659, 932, 5),
    "webkb:Texas": (183, 2 * 279, 1703, 5),
    "heterophilous:chameleon": (890, 2 * 8854, 2325, 5),
    "heterophilous:squirrel": (2223, 2 * 46998, 2089, 5),
}


def _listing(root: Path) -> dict[str, int]:
    """Every file and folder below `root` with its time of change."""
    found = {}
    for folder, _, files in os.walk(root):
        for path in (folder, *(f"{folder}/{name}" for name in files)):
            found[path] = os.stat(path).st_mtime_ns  # noqa: PTH116  (a thousand paths: strings are quicker)
    return found


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_the_published_ones(name: str, data_root: Path) -> None:
    """A wrong component, a lost direction or a self-loop shows in the counts. Loading must not write to the folder."""
    before = _listing(data_root)
    graph = load_graph(name, root=data_root, download=False)
    assert (graph.num_nodes, graph.num_edges, graph.num_features, graph.num_classes) == COUNTS[name]
    assert _listing(data_root) == before
    source, target = graph.edge_index
    assert not bool((source == target).any())
    key = source * graph.num_nodes + target
    assert torch.equal(key.sort().values, (target * graph.num_nodes + source).sort().values)


def test_values_are_kept(data_root: Path) -> None:
    """PyG's `read_npz` sets every positive feature to 1; the published protocol keeps the stored values."""
    graph = load_graph("coauthor:CS", root=data_root, download=False)
    with np.load(data_root / "Coauthor/CS/raw/ms_academic_cs.npz", allow_pickle=False) as file:
        parts = tuple(file[f"attr_{part}"] for part in ("data", "indices", "indptr"))
        want = sp.csr_matrix(parts, tuple(file["attr_shape"])).sorted_indices()
    assert graph.is_sparse
    assert np.array_equal(graph.x.values().numpy(), want.data.astype(np.float32))
    assert np.array_equal(graph.x.col_indices().numpy(), want.indices)
    assert len(np.unique(want.data)) > 2, "this graph would not show the difference"


def test_seed_draws_the_split(data_root: Path) -> None:
    """20 and 30 per class; another seed, another split of the same graph."""
    first, second = (load_graph("cpf:cora", root=data_root, seed=seed, download=False) for seed in (0, 1))
    assert torch.bincount(first.y[first.split.train]).tolist() == [20] * 7
    assert torch.bincount(first.y[first.split.val]).tolist() == [30] * 7
    assert torch.equal(first.edge_index, second.edge_index)
    assert not torch.equal(first.split.train, second.split.train)


@pytest.mark.parametrize("name", ["cpf:a-computer", "cpf:a-photo", "coauthor:CS"])
def test_larger_graphs_follow_the_protocol_of_the_small_ones(name: str, data_root: Path) -> None:
    """One component, 20 and 30 per class by the seed, the rest test; otherwise figures compare with nothing."""
    graph = load_graph(name, root=data_root, seed=3, download=False)
    assert torch.bincount(graph.y[graph.split.train]).tolist() == [20] * graph.num_classes
    assert torch.bincount(graph.y[graph.split.val]).tolist() == [30] * graph.num_classes
    assert len(graph.split.test) == graph.num_nodes - 50 * graph.num_classes
    count = graph.num_nodes
    edges = sp.csr_matrix((np.ones(graph.num_edges), tuple(graph.edge_index.numpy())), (count, count))
    assert sp.csgraph.connected_components(edges)[0] == 1


@pytest.mark.parametrize("name", ["actor", "webkb:Texas", "heterophilous:chameleon", "heterophilous:squirrel"])
def test_heterophilous_graphs_have_ten_published_splits(name: str, data_root: Path) -> None:
    """All nodes are in one part; ten seeds, ten splits, and seed 10 is the first again. Words stay sparse."""
    graphs = [load_graph(name, root=data_root, seed=seed, download=False) for seed in range(11)]
    assert all(sum(len(part) for part in graph.split.parts().values()) == graph.num_nodes for graph in graphs)
    assert len({tuple(graph.split.test.tolist()) for graph in graphs}) == 10
    assert torch.equal(graphs[10].split.train, graphs[0].split.train)
    assert graphs[0].is_sparse
    source, target = graphs[0].edge_index
    assert float((graphs[0].y[source] == graphs[0].y[target]).float().mean()) < 0.25


def test_digits() -> None:
    """Built in: five nearest right halves, made undirected, give this many edges and a homophily of 0.88."""
    graph = load_graph("digits")
    assert (graph.num_nodes, graph.num_edges, graph.num_features, graph.num_classes) == (1797, 12582, 32, 10)
    assert torch.bincount(graph.y[graph.split.train]).tolist() == [20] * 10
    assert len(graph.split.val) == 300
    assert 0 <= float(graph.x.min()) <= float(graph.x.max()) <= 1
    source, target = graph.edge_index
    assert 0.87 < float((graph.y[source] == graph.y[target]).float().mean()) < 0.89
    assert graph.observed().fingerprint() == load_graph("digits").observed().fingerprint()


@pytest.mark.parametrize(
    ("name", "nearest"), [("cpf:coar", "cpf:cora"), ("digit", "digits"), ("planetoid:cora", "planetoid:Cora")]
)
def test_unknown_name_suggests_the_nearest(name: str, nearest: str, tmp_path: Path) -> None:
    """Most unknown names are typing mistakes."""
    with pytest.raises(DataError, match=f"Unknown graph '{name}', and no file.*Did you mean '{nearest}'?"):
        load_graph(name, root=tmp_path)


def test_missing_file_and_other_format(tmp_path: Path) -> None:
    """A path that does not exist is not an unknown name, and a csv is not an npz."""
    for name in ("absent.npz", "absent"):
        with pytest.raises(DataError, match=f"No such file or folder: .*{name}. Expected an .npz file.*a folder with"):
            load_graph(str(tmp_path / name))
    with pytest.raises(DataError, match="No such file or folder: planetoid/cora. Did you mean 'planetoid:Cora'"):
        load_graph("planetoid/cora")
    with pytest.raises(DataError, match="Unknown graph 'absent', and no file or folder of that name. Known: actor, "):
        load_graph("absent")
    (tmp_path / "graph.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="expected an .npz file"):
        load_graph(str(tmp_path / "graph.csv"))


@pytest.mark.parametrize("name", [name for name in dataset_names() if name != "digits"])
def test_missing_raw_files_say_where_they_were_looked_for(name: str, tmp_path: Path) -> None:
    """The remedy is in the message: the exact path, and the two ways to name another folder."""
    with pytest.raises(DataError, match="Looked for .*Set --root or GRAPH2MLP_DATA") as caught:
        load_graph(name, root=tmp_path, download=False)
    assert str(tmp_path) in str(caught.value)
    assert not list(tmp_path.iterdir())


def _no_network(*_: Any, **__: Any) -> NoReturn:
    raise OSError("no network here")


@pytest.mark.parametrize("name", ["cpf:cora", "planetoid:PubMed", "actor", "webkb:Texas", "heterophilous:squirrel"])
def test_failed_download_leaves_nothing_behind(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty folders among the raw files look like data that is there."""
    monkeypatch.setattr("torch_geometric.data.download_url", _no_network)
    with pytest.raises(DataError, match=r"could not be downloaded \(no network here\). Looked for "):
        load_graph(name, root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_download_that_breaks_off_is_not_taken_for_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is never downloaded again, so half a file would stay broken for ever."""

    def half(_: str, folder: str, *, filename: str, **__: Any) -> NoReturn:
        (Path(folder) / filename).write_bytes(b"PK\x03\x04 and then")
        raise OSError("connection reset")

    monkeypatch.setattr("torch_geometric.data.download_url", half)
    with pytest.raises(DataError, match="connection reset"):
        load_graph("cpf:cora", root=tmp_path)
    assert not (tmp_path / "cpf" / "cora.npz").exists()


def test_root_comes_from_argument_then_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--root wins over GRAPH2MLP_DATA, which wins over ./data; an empty variable counts as unset."""
    monkeypatch.setenv("GRAPH2MLP_DATA", "/from/environment")
    assert resolve_root(tmp_path) == tmp_path
    assert resolve_root() == Path("/from/environment")
    monkeypatch.setenv("GRAPH2MLP_DATA", "")
    assert resolve_root() == Path("data")


def test_a_file_is_a_graph(dense_graph: GraphData, tmp_path: Path) -> None:
    """A path works wherever a name does."""
    graph = load_graph(str(save_npz(dense_graph, tmp_path / "mine.npz")))
    assert torch.equal(graph.x, dense_graph.x)


def test_digits_is_one_graph_in_every_process() -> None:
    """Many right halves are equally near; a choice among them that depends on threads makes figures unrepeatable."""
    code = "from graph2mlp.data.digits import digits; print(digits(0).fingerprint())"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
        ).stdout
        for threads in ("1", "4")
    }
    assert found == {digits(0).fingerprint() + "\n"}


def test_published_split_without_a_class_is_taken(data_root: Path) -> None:
    """Texas has a class of one node, which most of its published splits do not train on: still the benchmark it is."""
    config = resolve_config(graph="webkb:Texas", method="glnn", seed=0, root=str(data_root))
    graph = read_inputs(config).graph
    assert 0 in torch.bincount(graph.y[graph.split.train], minlength=graph.num_classes)
