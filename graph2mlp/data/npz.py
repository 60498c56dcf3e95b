"""Graphs in `.npz` files: the gnn-benchmark layout (CSR parts), or plain arrays `x, edge_index, y`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graph2mlp.atomic import atomic_path
from graph2mlp.data.arrays import DENSE_FROM, PARTS, assemble, feature_tensor
from graph2mlp.data.graph import GraphData
from graph2mlp.data.label_arrays import AUTO, class_count, numbered, whole_labels
from graph2mlp.data.mapped import UNREADABLE, map_member, write_aligned
from graph2mlp.data.splits import Split, per_class_split, rare_notes
from graph2mlp.errors import DataError
from graph2mlp.tasks import CLASSIFICATION

__all__ = ["DENSE_FROM", "RawGraph", "read_graph", "read_raw", "save_graph"]

_PLAIN = "adj_data is not used: this layout is for edges without weights; store edge_index and edge_weight instead"


@dataclass(frozen=True, eq=False)
class RawGraph:
    """A graph as a file holds it: `adjacency [N, N]` scipy CSR, `features [N, F]` scipy CSR or dense, `labels [N]`."""

    adjacency: sp.csr_matrix
    features: sp.csr_matrix | np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def undirected(self) -> RawGraph:
        """Unweighted, both directions, no self-loops."""
        adjacency = self.adjacency.tolil() if self.adjacency.nnz == 0 else self.adjacency
        both = ((adjacency + adjacency.T) != 0).astype(np.float32).tocsr()
        both.setdiag(0)
        both.eliminate_zeros()
        return RawGraph(both, self.features, self.labels, self.class_names)

    def largest_component(self) -> RawGraph:
        """The largest connected component, nodes in their order."""
        _, component = sp.csgraph.connected_components(self.adjacency, directed=False)
        keep = np.nonzero(component == np.bincount(component).argmax())[0]
        return RawGraph(self.adjacency[keep][:, keep], self.features[keep], self.labels[keep], self.class_names)

    def edge_index(self) -> Tensor:
        """`[2, E]` int64: row i of the adjacency lists the targets of node i."""
        coo = self.adjacency.tocoo()
        return torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))

    def x(self) -> Tensor:
        """`[N, F]` float32 with the stored values, CSR when sparse enough (see `DENSE_FROM`)."""
        return feature_tensor(self.features)

    def graph(self, name: str, split: Split) -> GraphData:
        """The validated graph."""
        return GraphData(
            name=name,
            x=self.x(),
            edge_index=self.edge_index(),
            y=torch.from_numpy(self.labels.astype(np.int64)),
            split=split,
            class_names=self.class_names,
        )


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file but those of Python objects, which would have to be unpickled.

    Large ones are mapped where the file allows (see `map_member`); a mapped file may be replaced, but not be cut short,
    while the graph is in use.
    """
    arrays = {}
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with loaded as file:
            members = {} if file.zip is None else {info.filename: info for info in file.zip.infolist()}
            for key in file.files:
                try:
                    member = members.get(f"{key}.npy")
                    mapped = None if member is None else map_member(path, member)
                    arrays[key] = file[key] if mapped is None else mapped
                except ValueError as error:
                    if "Object arrays" not in str(error):
                        raise
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} is not a readable .npz file ({reason}). Save it again with numpy.savez.") from None
    return arrays


def read_raw(path: Path) -> RawGraph:
    """Read the gnn-benchmark layout: `adj_*`, `attr_*` (CSR parts or `attr_matrix`), `labels`, `class_names`."""
    arrays = load_arrays(path)
    needed = {"adj_data", "adj_indices", "adj_indptr", "adj_shape", "labels"}
    if missing := sorted(needed - arrays.keys()):
        raise DataError(
            f"{path} lacks {', '.join(missing)}. Expected the gnn-benchmark layout (adj_*, attr_*, labels) "
            "or plain arrays x, edge_index, y."
        )
    if "attr_data" in arrays:
        features: sp.csr_matrix | np.ndarray = _csr(arrays, "attr", path)
    elif "attr_matrix" in arrays:
        features = arrays["attr_matrix"].astype(np.float32)
    else:
        raise DataError(f"{path} has no node features (attr_data or attr_matrix).")
    labels = whole_labels(arrays["labels"], "labels", str(path))
    count = class_count(labels, str(path))
    names = tuple(str(name) for name in np.ravel(arrays.get("class_names", ())))
    return RawGraph(_csr(arrays, "adj", path), features, labels, names if len(names) == count else numbered(count))


def read_graph(path: Path, seed: int, *, undirected: bool = False, task: str = AUTO) -> GraphData:
    """A user's `.npz` file as a graph; without stored masks `seed` draws the split (see `assemble`).

    Plain layout: `x [N, F]` (or `x_data`, `x_indices`, `x_indptr`, `x_shape`, the parts of a CSR matrix), `edge_index
    [2, E]`, `y [N]` or `[N, C]`, optionally `edge_weight [E]`, `train`, `val`, `test` (positions, or masks of length
    N), `class_names [C]`, `node_names [N]`, `feature_names [F]` and `task`, which holds unless another is given. Edges
    are taken as they are, unless `undirected` adds the directions that are missing. The gnn-benchmark layout is for
    unweighted graphs.
    """
    arrays = load_arrays(path)
    if "adj_data" in arrays:
        if task not in (AUTO, CLASSIFICATION.name):
            raise DataError(f"{path} has the gnn-benchmark layout, whose labels are classes (got --task {task}).")
        raw = read_raw(path)
        split = per_class_split(raw.labels, seed, names=raw.class_names)
        notes = () if bool((arrays["adj_data"] == 1).all()) else (_PLAIN,)
        rare = rare_notes(raw.labels, split, raw.class_names)
        return replace(raw.undirected().graph(path.stem, split), notes=(*notes, *rare))
    sparse = "x_data" in arrays
    if missing := sorted({"edge_index", "y", *(() if sparse else ("x",))} - arrays.keys()):
        raise DataError(
            f"{path} lacks {', '.join(missing)} (it has: {', '.join(sorted(arrays)) or 'nothing'}). Expected "
            "x [nodes, features], edge_index [2, edges] and y [nodes], or the gnn-benchmark layout."
        )
    return assemble(
        name=path.stem,
        where=str(path),
        x=_csr(arrays, "x", path) if sparse else arrays["x"],
        edge_index=arrays["edge_index"],
        y=arrays["y"],
        parts={name: arrays[name] for name in PARTS if name in arrays},
        seed=seed,
        class_names=tuple(str(name) for name in np.ravel(arrays.get("class_names", ()))),
        names=arrays.get("node_names"),
        feature_names=tuple(map(str, np.ravel(arrays["feature_names"]))) if "feature_names" in arrays else None,
        undirected=undirected,
        edge_weight=arrays.get("edge_weight"),
        task=str(arrays["task"]) if task == AUTO and "task" in arrays else task,
    )


def save_graph(graph: GraphData, path: Path) -> Path:
    """Write the plain layout, in one step; `read_graph` gives the same graph back, with another `name` at most.

    Raises:
        DataError: the file's name does not end in `.npz`, or nodes are hidden, which the layout has no place for.
    """
    if path.suffix != ".npz":
        raise DataError(f"A graph is saved as an .npz file, got '{path}'.")
    if unseen := len(graph.split.unseen):
        # Read again they would be in no part, and training would see them.
        raise DataError(
            f"Graph '{graph.name}' hides {unseen} unseen nodes; a file has train, val and test only. Save it before "
            "they are drawn: --setting production draws them again, by the seed."
        )
    arrays = {"edge_index": graph.edge_index.numpy(), "y": graph.y.numpy(), "class_names": np.array(graph.class_names)}
    arrays |= {name: graph.split.parts()[name].numpy() for name in PARTS} | {"task": np.array(graph.task.name)}
    if graph.names is not None:
        arrays["node_names"] = graph.names
    if graph.feature_names is not None:
        arrays["feature_names"] = np.array(graph.feature_names)
    if graph.edge_weight is not None:
        arrays["edge_weight"] = graph.edge_weight.numpy()
    if graph.is_sparse:
        x = graph.x
        arrays |= {"x_data": x.values().numpy(), "x_indices": x.col_indices().numpy()}
        arrays |= {"x_indptr": x.crow_indices().numpy(), "x_shape": np.array(x.shape)}
    else:
        arrays["x"] = graph.x.numpy()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        write_aligned(file, arrays)
    return path


def _csr(arrays: dict[str, np.ndarray], prefix: str, path: Path) -> sp.csr_matrix:
    try:
        parts = [arrays[f"{prefix}_{part}"] for part in ("data", "indices", "indptr")]
        matrix = sp.csr_matrix(tuple(parts), shape=tuple(int(n) for n in arrays[f"{prefix}_shape"]))
        matrix.check_format(full_check=True)
        return matrix
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DataError(f"{path}: the {prefix} matrix is broken ({error}).") from None
