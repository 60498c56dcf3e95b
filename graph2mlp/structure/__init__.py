"""Structure encoders by name, and the table they fill. One file per encoder; one line here makes it known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType

import numpy as np
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
        "smoothed": "graph2mlp.structure.smoothed:smoothed_features",
    }
)


def check_encoder(encoder: str) -> None:
    """Raise ConfigError unless `encoder` is a known name, or several different ones joined by `+`."""
    parts = encoder.split("+")
    for name in parts:
        if name not in ENCODERS:
            raise ConfigError(f"Unknown encoder '{name}' (structure.encoder). {suggest(name, ENCODERS)}")
    if len(set(parts)) < len(parts):
        raise ConfigError(f"Encoder '{encoder}' (structure.encoder) names a part twice; name each once.")


def encode_structure(graph: GraphData, encoder: str, *, dim: int, seed: int, num_nodes: int) -> StructureTable:
    """Encode the observed `graph` into a table over all `num_nodes` ids of the full graph.

    Ids that the observed graph does not contain are not known to the table. With `laplacian+smoothed` the tables of
    both stand side by side, `dim` columns in all; a node is known when one part knows it.
    """
    check_encoder(encoder)
    names = encoder.split("+")
    all_rows = torch.from_numpy(np.zeros((num_nodes, dim), np.float32))  # takes memory as it is filled, not before
    all_known = torch.zeros(num_nodes, dtype=torch.bool)
    filled = 0
    for i, name in enumerate(names):
        module, function = ENCODERS[name].split(":")
        encode: Encoder = getattr(import_module(module), function)
        # Columns left over by the division go to the first parts.
        part, part_known = encode(graph, dim=dim // len(names) + (i < dim % len(names)), seed=seed)
        all_rows[graph.node_ids, filled : filled + part.size(1)] = part
        all_known[graph.node_ids] |= part_known
        filled += part.size(1)
    return StructureTable(encoder, all_rows, all_known)
