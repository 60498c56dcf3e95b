"""The tiny graph in every form a user may bring it in."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from graph2mlp.data.graph import GraphData

__all__ = ["Bomb", "node_ids", "pyg_data", "save_folder", "write_table"]


class Bomb:
    """Creates `mark` when it is unpickled, through a module that torch blocks by name, or through another."""

    def __init__(self, mark: Path, *, blocked: bool = False) -> None:
        self.mark, self.blocked = mark, blocked

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),)) if self.blocked else (shutil.copyfile, (__file__, str(self.mark)))


def node_ids(count: int) -> list[str]:
    """Ids that are no row numbers: `user-0`, `user-7`, ..."""
    return [f"user-{7 * node}" for node in range(count)]


def pyg_data(graph: GraphData) -> Data:
    """As PyG's users have it: masks instead of positions."""
    masks = {f"{name}_mask": torch.zeros(graph.num_nodes, dtype=torch.bool) for name in ("train", "val", "test")}
    for name in ("train", "val", "test"):
        masks[f"{name}_mask"][getattr(graph.split, name)] = True
    return Data(x=graph.x.to_dense(), edge_index=graph.edge_index, y=graph.y, **masks)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """A csv or parquet file, by suffix; parquet columns get the type of their values."""
    rows = list(rows)
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    columns = zip(*rows, strict=True) if rows else ([] for _ in header)
    parquet.write_table(arrow.table([list(column) for column in columns], names=list(header)), path)
    return path


def save_folder(graph: GraphData, folder: Path, *, suffix: str = ".csv", ids: Sequence[Any] | None = None) -> Path:
    """`nodes` and `edges` with words for classes; `ids` names the nodes (default: `node_ids`)."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = node_ids(graph.num_nodes) if ids is None else ids
    part = np.full(graph.num_nodes, "", dtype=object)
    for name in ("train", "val", "test"):
        part[getattr(graph.split, name).numpy()] = name
    x = graph.x.to_dense().double().numpy()
    header = ["id", "label", "split", *(f"f{i}" for i in range(x.shape[1]))]
    rows = [
        [ids[node], f"class {graph.class_names[graph.y[node]]}", part[node], *x[node].tolist()]
        for node in range(graph.num_nodes)
    ]
    write_table(folder / f"nodes{suffix}", header, rows)
    edges = [[ids[a], ids[b]] for a, b in graph.edge_index.T.tolist()]
    if graph.edge_weight is not None:
        edges = [[*ends, weight] for ends, weight in zip(edges, graph.edge_weight.tolist(), strict=True)]
    header = ["source", "target", "weight"] if graph.edge_weight is not None else ["source", "target"]
    write_table(folder / f"edges{suffix}", header, edges)
    return folder
