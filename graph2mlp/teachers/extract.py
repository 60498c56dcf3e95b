"""Any trained module becomes knowledge: logits and hidden layers of every node, full neighbourhood, no gradient."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from graph2mlp.data.graph import GraphData
from graph2mlp.teachers.knowledge import TeacherKnowledge
from graph2mlp.teachers.models import Teacher

__all__ = ["extract_knowledge", "weights_fingerprint"]


@torch.no_grad()
def extract_knowledge(teacher: Teacher, graph: GraphData, *, name: str) -> TeacherKnowledge:
    """What `teacher` says of every node of the observed `graph`, in evaluation mode."""
    teacher.eval()
    adjacency = teacher.adjacency(graph.edge_index, graph.num_nodes)
    logits, hidden = teacher(graph.features(), adjacency, graph.node_ids)
    return TeacherKnowledge(
        name=name,
        node_ids=graph.node_ids,
        logits=logits,
        hidden={f"layer{number}": layer for number, layer in enumerate(hidden)},
        graph=graph.fingerprint(),
        weights=weights_fingerprint(teacher),
    )


def weights_fingerprint(module: nn.Module) -> str:
    """A short hash of all parameters and buffers."""
    digest = hashlib.blake2b(digest_size=16)
    # A user's module may keep state that is no tensor.
    tensors = {name: value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
