"""PyG's `Data` in a `.pt` file, read without trusting it.

Only `torch.load(weights_only=True)` opens the file, with six more classes of PyG allowed while it does: containers of a
graph's attributes that do nothing when they are rebuilt. PyG's own reader is not used: where torch refuses a file, it
goes on without the protection, and what the file's author put in is executed.
"""

from __future__ import annotations

import errno
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data, HeteroData
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import BaseStorage, EdgeStorage, GlobalStorage, NodeStorage

from graph2mlp.data.convert import graph_from_pyg
from graph2mlp.data.graph import GraphData
from graph2mlp.data.label_arrays import AUTO
from graph2mlp.errors import DataError

__all__ = ["read_pt", "safe_torch_load"]

_CONTAINERS = [
    DataEdgeAttr, DataTensorAttr, BaseStorage, NodeStorage, EdgeStorage, GlobalStorage, Data, HeteroData
]  # fmt: skip
_REMEDY = "Save it with torch.save(Data(x=..., edge_index=..., y=...), FILE), tensors only."


def safe_torch_load(path: Path, allowed: list[Any] | None = None, *, remedy: str = _REMEDY) -> Any:
    """What `torch.save` wrote, if it is made of tensors, plain containers and classes in `allowed`; on the CPU.

    Raises:
        DataError: the file is missing, damaged, or would have to be executed to be read.
    """
    try:
        with torch.serialization.safe_globals(allowed or []):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"No such file: {path}.") from None
    except pickle.UnpicklingError as error:
        raise DataError(f"{path} was not opened: {_refusal(str(error), remedy)}") from None
    except OSError as error:
        cut = error.errno == errno.EINVAL  # torch looked for a place before the file's beginning
        what = "is not a file of torch.save, or is cut short" if cut else f"cannot be read: {error.strerror or error}"
        raise DataError(f"{path} {what}.") from None
    except (
        RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, AssertionError, OverflowError,
        MemoryError, NotImplementedError, ImportError, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        # A damaged file fails wherever its bytes lead torch's reader.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} is not a file of torch.save, or is damaged ({reason[:120]}). Save it again.") from None


def read_pt(path: Path, seed: int, *, undirected: bool = False, task: str = AUTO) -> GraphData:
    """The graph of a `Data`, of its dictionary, or of an `InMemoryDataset` that holds one graph.

    Raises:
        DataError: it holds something else, would have to be executed, or the graph is not valid.
    """
    try:
        data = _single_graph(safe_torch_load(path, _CONTAINERS), path)
        return graph_from_pyg(data, name=path.stem, seed=seed, undirected=undirected, task=task, where=str(path))
    except DataError:
        raise
    except Exception as error:  # the insides of PyG's containers come from the file, and may be anything
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
        raise DataError(f"{path} does not hold a whole graph ({reason}). {_REMEDY}") from None


def _single_graph(held: Any, path: Path) -> Any:
    if isinstance(held, tuple) and len(held) in (2, 3):  # InMemoryDataset: (graph, where each graph starts, class)
        if held[1] is not None:
            raise DataError(f"{path} is a dataset of several graphs. Save one of them: torch.save(dataset[0], FILE).")
        held = held[0]
    if isinstance(held, list):
        raise DataError(f"{path} is a list of {len(held)} objects, expected one graph. Save one of them.")
    if isinstance(held, Mapping):
        if not {"x", "edge_index", "y"} & held.keys():
            keys = ", ".join(map(str, list(held)[:8])) or "nothing"
            raise DataError(f"{path} holds {keys}, which looks like weights and not like a graph. {_REMEDY}")
        return Data.from_dict(dict(held))
    if not isinstance(held, Data | HeteroData):
        raise DataError(f"{path} holds a {type(held).__name__}, expected a graph. {_REMEDY}")
    return held


def _refusal(message: str, remedy: str) -> str:
    """What torch would have had to execute, out of its long message."""
    for mark in ("Unsupported global: GLOBAL ", "Unsupported class ", "unsupported GLOBAL "):
        if mark in message:
            name = message.split(mark)[1].split()[0]
            return f"to read it, {name} from the file would have to be run, which may do anything. {remedy}"
    return f"it is not made of tensors and plain containers, or is damaged. {remedy}"
