"""Any trained module becomes knowledge: logits and hidden layers of every node, full neighbourhood, no gradient."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from graph2mlp.data.graph import GraphData
from graph2mlp.teachers.blocks import answer_in_blocks, needs_blocks
from graph2mlp.teachers.knowledge import TeacherKnowledge
from graph2mlp.teachers.models import Teacher

__all__ = ["answer_all", "extract_knowledge", "weights_fingerprint"]


@torch.no_grad()
def extract_knowledge(teacher: Teacher, graph: GraphData, *, name: str) -> TeacherKnowledge:
    """What `teacher` says of every node of the observed `graph`, in evaluation mode."""
    logits, hidden = answer_all(teacher, graph, graph.node_ids)
    return TeacherKnowledge(
        name=name,
        node_ids=graph.node_ids,
        logits=logits,
        hidden={f"layer{number}": layer for number, layer in enumerate(hidden)},
        graph=graph.fingerprint(),
        weights=weights_fingerprint(teacher),
    )


@torch.no_grad()
def answer_all(teacher: Teacher, graph: GraphData, ids: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Logits `[N, C]` and hidden layers of every node, evaluation mode; in blocks where it must be."""
    teacher.eval()
    if needs_blocks(teacher, graph.num_nodes):
        return answer_in_blocks(teacher, graph)
    found: tuple[Tensor, tuple[Tensor, ...]] = teacher(graph.features(), teacher.adjacency(graph), ids)
    return found


def weights_fingerprint(module: nn.Module) -> str:
    """A short hash of all parameters and buffers."""
    digest = hashlib.blake2b(digest_size=16)
    # A user's module may keep state that is no tensor.
    tensors = {name: value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
