"""Structure encoders by name, and the table they fill. One file per encoder; one line here makes it known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType

import torch

from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError, suggest
from graph2mlp.structure.table import StructureTable

__all__ = ["ENCODERS", "check_encoder", "encode_structure"]

Encoder = Callable[..., tuple[torch.Tensor, torch.Tensor]]

ENCODERS: Mapping[str, str] = MappingProxyType(
    {
        "laplacian": "graph2mlp.structure.laplacian:laplacian_eigenvectors",
        "deepwalk": "graph2mlp.structure.deepwalk:deepwalk",
    }
)


def check_encoder(name: str) -> None:
    """Raise ConfigError unless there is an encoder called `name`."""
    if name not in ENCODERS:
        raise ConfigError(f"Unknown encoder '{name}' (structure.encoder). {suggest(name, ENCODERS)}")


def encode_structure(graph: GraphData, encoder: str, *, dim: int, seed: int, num_nodes: int) -> StructureTable:
    """Encode the observed `graph` into a table over all `num_nodes` ids of the full graph.

    Ids that the observed graph does not contain are not known to the table.
    """
    check_encoder(encoder)
    module, name = ENCODERS[encoder].split(":")
    encode: Encoder = getattr(import_module(module), name)
    rows, known = encode(graph, dim=dim, seed=seed)
    all_rows = torch.zeros(num_nodes, dim)
    all_known = torch.zeros(num_nodes, dtype=torch.bool)
    all_rows[graph.node_ids], all_known[graph.node_ids] = rows, known
    return StructureTable(encoder, all_rows, all_known)
