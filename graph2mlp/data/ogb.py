"""Node-classification graphs of the Open Graph Benchmark, read from OGB's raw csv files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graph2mlp.data.npz import RawGraph
from graph2mlp.data.splits import Split
from graph2mlp.errors import DataError, require

__all__ = ["download_ogb", "read_ogb"]


def read_ogb(folder: Path) -> tuple[RawGraph, Split]:
    """Graph (edges made undirected) and official split from `folder` (`raw/*.csv.gz`, `split/<rule>/*.csv.gz`).

    OGB's own dataset class unpickles the file it caches; the raw csv files hold the same and are only parsed.
    """
    edges = _csv(folder / "raw" / "edge.csv.gz", np.int64)
    features = _csv(folder / "raw" / "node-feat.csv.gz", np.float32)
    labels = _csv(folder / "raw" / "node-label.csv.gz", np.float64)
    if labels.shape[1] != 1:
        raise DataError(f"{folder.name} has {labels.shape[1]} labels per node; single-label graphs are supported.")
    count = len(features)
    adjacency = sp.csr_matrix((np.ones(len(edges), np.float32), (edges[:, 0], edges[:, 1])), (count, count))
    known = np.nan_to_num(labels[:, 0], nan=-1).astype(np.int64)
    names = tuple(str(c) for c in range(int(known.max()) + 1))
    return RawGraph(adjacency, features, known, names).undirected(), _split(folder / "split")


def download_ogb(folder: Path) -> None:
    """Fetch and unpack the archive of `folder.name` (`ogbn_arxiv`, ...) through OGB's own list and downloader."""
    url = require("ogb.utils.url", extra="ogb", purpose="Downloading an ogbn graph")
    package = Path(str(url.__file__)).parents[1]
    rows = list(csv.reader((package / "nodeproppred" / "master.csv").open(encoding="utf-8")))
    column = {name: index for index, name in enumerate(rows[0])}
    name = folder.name.replace("_", "-", 1)
    if name not in column:
        raise DataError(f"OGB has no node graph '{name}'. It has: {', '.join(rows[0][1:])}.")
    entry = {row[0]: row[column[name]] for row in rows[1:]}
    folder.parent.mkdir(parents=True, exist_ok=True)
    archive = url.download_url(entry["url"], str(folder.parent))
    url.extract_zip(archive, str(folder.parent))
    Path(archive).unlink()
    unpacked = folder.parent / entry["download_name"]
    if unpacked != folder:
        unpacked.rename(folder)


def _split(folder: Path) -> Split:
    rules = sorted(path for path in folder.glob("*") if path.is_dir())
    if not rules:
        raise DataError(f"No split found in {folder}. Delete the folder above it to download the graph again.")
    parts = (_csv(rules[0] / f"{part}.csv.gz", np.int64)[:, 0] for part in ("train", "valid", "test"))
    return Split(*(_sorted(part) for part in parts))


def _sorted(ids: np.ndarray) -> Tensor:
    return torch.from_numpy(np.sort(ids))


def _csv(path: Path, dtype: type) -> np.ndarray:
    try:
        return np.loadtxt(path, delimiter=",", dtype=dtype, ndmin=2)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"Cannot read {path}: {error}") from None
