"""Names to graphs: `digits`, `cpf:cora`, `planetoid:Cora`, `amazon:Photo`, `coauthor:CS`, `ogbn:arxiv`, or a path.

`actor`, `webkb:Texas`, `heterophilous:chameleon` and their like have ten published splits; seed s takes split s % 10.
`twitch:DE` and its five sisters share features and classes; seed s draws 60 / 20 / 20 % of the nodes.

A path is an `.npz` file, PyG's `Data` in a `.pt` file, or a folder with tables of nodes and edges.

Raw files are looked for under `--root`, then `GRAPH2MLP_DATA`, then `./data`; what is there is never downloaded again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from graph2mlp.atomic import atomic_path
from graph2mlp.data.digits import digits
from graph2mlp.data.folder import read_folder
from graph2mlp.data.graph import GraphData
from graph2mlp.data.heterophilous import geom_gcn_files, read_geom_gcn, read_platonov
from graph2mlp.data.label_arrays import AUTO
from graph2mlp.data.npz import RawGraph, read_graph, read_raw
from graph2mlp.data.ogb import download_ogb, read_ogb
from graph2mlp.data.planetoid import read_planetoid
from graph2mlp.data.splits import Split, per_class_split, random_split
from graph2mlp.data.twitch import COUNTRIES, read_twitch
from graph2mlp.errors import DataError, nearest, suggest
from graph2mlp.tasks import CLASSIFICATION

__all__ = ["data_root", "dataset_names", "is_graph_path", "load_graph"]

_GNN_BENCHMARK = "https://github.com/shchur/gnn-benchmark/raw/master/data/npz"
_GEOM_GCN = "https://raw.githubusercontent.com/graphdml-uiuc-jlu/geom-gcn/master"
_TWITCH = "https://graphmining.ai/datasets/ptg/twitch"
_PLATONOV = "https://github.com/yandex-research/heterophilous-graphs/raw/main/data"

# Name -> (path below the root, file name at the source).
_AMAZON = {
    "Computers": ("Amazon/Computers/raw/amazon_electronics_computers.npz", "amazon_electronics_computers.npz"),
    "Photo": ("Amazon/Photo/raw/amazon_electronics_photo.npz", "amazon_electronics_photo.npz"),
}
_COAUTHOR = {
    "CS": ("Coauthor/CS/raw/ms_academic_cs.npz", "ms_academic_cs.npz"),
    "Physics": ("Coauthor/Physics/raw/ms_academic_phy.npz", "ms_academic_phy.npz"),
}
_CPF = {
    "cora": ("cpf/cora.npz", "cora.npz"),
    "citeseer": ("cpf/citeseer.npz", "citeseer.npz"),
    "pubmed": ("cpf/pubmed.npz", "pubmed.npz"),
    "a-computer": _AMAZON["Computers"],
    "a-photo": _AMAZON["Photo"],
}
_PLANETOID = ("Cora", "CiteSeer", "PubMed")
_OGBN = ("arxiv", "products")
_WEBKB = ("Cornell", "Texas", "Wisconsin")
_FILTERED = ("chameleon", "squirrel")
_FORMS = (
    "an .npz file with x, edge_index and y, PyG's Data in a .pt file, a folder with nodes.csv and edges.csv (or "
    "parquet), or a known graph name"
)


def dataset_names() -> list[str]:
    """Every name `load_graph` knows."""
    families = {"cpf": _CPF, "planetoid": _PLANETOID, "amazon": _AMAZON, "coauthor": _COAUTHOR, "ogbn": _OGBN}
    families |= {"webkb": _WEBKB, "heterophilous": _FILTERED, "twitch": COUNTRIES}
    return ["digits", "actor", *(f"{family}:{name}" for family, names in families.items() for name in names)]


def data_root(root: Path | None = None) -> Path:
    """The folder of raw files: `root`, else `GRAPH2MLP_DATA`, else `./data`."""
    return root or Path(os.environ.get("GRAPH2MLP_DATA") or "data")


def load_graph(
    name: str,
    *,
    root: Path | None = None,
    seed: int = 0,
    download: bool = True,
    undirected: bool = False,
    task: str = AUTO,
) -> GraphData:
    """The graph called `name` with the split of `seed`, or the graph in the file or folder `name`.

    `undirected` adds the missing direction of each edge of a file; named graphs are undirected as they come, and their
    nodes are to be classified. `task` says what the labels of a file are.

    Raises:
        DataError: the name is unknown, or raw files are missing and cannot be downloaded.
    """
    if name not in dataset_names():
        if is_graph_path(name):
            return _load_path(Path(name), seed, undirected=undirected, task=task)
        raise DataError(f"Unknown graph '{name}', and no file or folder of that name. {suggest(name, dataset_names())}")
    if task not in (AUTO, CLASSIFICATION.name):
        raise DataError(f"The nodes of '{name}' have classes, so the task is classification (got --task {task}).")
    if name == "digits":
        return digits(seed)
    family, _, short = name.partition(":")
    raw, split = _READERS[family](_Source(data_root(root), download), short, seed)
    return raw.graph(name, split)


def is_graph_path(name: str) -> bool:
    """Whether `name` means a file or folder, and not a graph known by name."""
    return bool(Path(name).suffix) or "/" in name or Path(name).exists()


def _load_path(path: Path, seed: int, **how: Any) -> GraphData:
    if not path.exists():
        remedy = nearest(str(path), dataset_names()) or f"Expected {_FORMS}."
        raise DataError(f"No such file or folder: {path}. {remedy}")
    if path.is_dir():
        return read_folder(path, seed, **how)
    if path.suffix == ".npz":
        return read_graph(path, seed, **how)
    if path.suffix == ".pt":
        from graph2mlp.data.pt import read_pt  # loads PyG, which takes seconds

        return read_pt(path, seed, **how)
    raise DataError(f"Cannot read {path}: expected {_FORMS}.")


@dataclass(frozen=True)
class _Source:
    """The folder `base` of raw files, and whether what it lacks may be downloaded."""

    base: Path
    download: bool

    def ensure(self, file: Path, fetch: Callable[[], None]) -> None:
        """Make sure of `file`, by `fetch` where it is missing."""
        if file.exists():
            return
        where = f"Looked for {file}. Set --root or GRAPH2MLP_DATA to the folder that holds the raw files."
        if not self.download:
            raise DataError(f"Raw files are missing. {where}")
        try:
            fetch()
        except (OSError, ValueError) as error:  # no network, refused, or not writable
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"Raw files are missing and could not be downloaded ({reason}). {where}") from None

    def file(self, below: str, url: str) -> Path:
        """The file at `below`, which comes from `url`."""
        file = self.base / below
        self.ensure(file, lambda: _download_file(url, file))
        return file


def _geom_gcn(folder: str, name: str, source: _Source, seed: int) -> tuple[RawGraph, Split]:
    for part, below in geom_gcn_files(name, seed).items():
        source.file(f"{folder}/{part}", f"{_GEOM_GCN}/{below}")
    return read_geom_gcn(source.base / folder, name, seed)


def _actor(source: _Source, short: str, seed: int) -> tuple[RawGraph, Split]:
    return _geom_gcn("Actor/raw", "film", source, seed)


def _webkb(source: _Source, short: str, seed: int) -> tuple[RawGraph, Split]:
    return _geom_gcn(f"WebKB/{short.lower()}/raw", short.lower(), source, seed)


def _heterophilous(source: _Source, short: str, seed: int) -> tuple[RawGraph, Split]:
    name = f"{short}_filtered.npz"
    return read_platonov(source.file(f"heterophilous/{name}", f"{_PLATONOV}/{name}"), seed)


def _twitch(source: _Source, short: str, seed: int) -> tuple[RawGraph, Split]:
    name = f"{short}.npz"
    raw = read_twitch(source.file(f"Twitch/{short}/raw/{name}", f"{_TWITCH}/{name}"))
    return raw, random_split(len(raw.labels), seed)


def _planetoid(source: _Source, short: str, seed: int) -> tuple[RawGraph, Split]:
    folder = source.base / "Planetoid" / short / "raw"
    source.ensure(folder / f"ind.{short.lower()}.graph", lambda: _download_planetoid(folder, short))
    return read_planetoid(folder, short.lower())


def _ogbn(source: _Source, short: str, seed: int) -> tuple[RawGraph, Split]:
    folder = source.base / f"ogbn_{short}"
    source.ensure(folder / "raw" / "edge.csv.gz", lambda: download_ogb(folder))
    return read_ogb(folder)


def _benchmark(names: Mapping[str, tuple[str, str]], *, connected: bool = False) -> _Reader:
    """Graphs of the GNN benchmark of Shchur et al.; `connected` keeps the largest component, as CPF does."""

    def read(source: _Source, short: str, seed: int) -> tuple[RawGraph, Split]:
        below, name = names[short]
        raw = read_raw(source.file(below, f"{_GNN_BENCHMARK}/{name}")).undirected()
        raw = raw.largest_component() if connected else raw
        return raw, per_class_split(raw.labels, seed)

    return read


def _download_planetoid(folder: Path, name: str) -> None:
    from torch_geometric.datasets import Planetoid

    # Only PyG's address is used, not its reader, which trusts the files and makes them dense.
    for part in ("tx", "allx", "y", "ty", "ally", "graph", "test.index"):
        _download_file(f"{Planetoid.url}/ind.{name.lower()}.{part}", folder / f"ind.{name.lower()}.{part}")


def _download_file(url: str, file: Path) -> None:
    from torch_geometric.data import download_url

    with tempfile.TemporaryDirectory() as folder:
        download_url(url, folder, log=False, filename=file.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary:
            shutil.copyfile(Path(folder) / file.name, temporary)


_Reader: TypeAlias = Callable[[_Source, str, int], tuple[RawGraph, Split]]
"""Where raw files are, the name within the family, and the seed of the split."""
_READERS: dict[str, _Reader] = {
    "cpf": _benchmark(_CPF, connected=True),
    "planetoid": _planetoid,
    "amazon": _benchmark(_AMAZON),
    "coauthor": _benchmark(_COAUTHOR),
    "ogbn": _ogbn,
    "actor": _actor,
    "webkb": _webkb,
    "heterophilous": _heterophilous,
    "twitch": _twitch,
}
