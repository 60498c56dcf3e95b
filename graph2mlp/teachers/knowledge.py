"""`TeacherKnowledge`: what one teacher said about every observed node, read-only, addressed by global node id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from graph2mlp.data.features import all_finite
from graph2mlp.data.graph import GraphData
from graph2mlp.errors import KnowledgeError
from graph2mlp.tensor_files import save_tensors

__all__ = ["TeacherKnowledge"]

_SCHEMA = "1"


@dataclass(frozen=True, eq=False, kw_only=True)
class TeacherKnowledge:
    """One teacher's words on M nodes.

    Shapes: `node_ids [M]` int64, ascending, global; `logits [M, C]` float32, raw, so any temperature can be applied
    later; `hidden` maps a layer's name to its pre-activation output `[M, D_T]`, first to last. `graph` and `weights`
    are fingerprints of what the teacher saw and what it was.
    """

    name: str
    node_ids: Tensor
    logits: Tensor
    hidden: Mapping[str, Tensor]
    graph: str
    weights: str

    def __post_init__(self) -> None:
        if self.node_ids.dtype != torch.long or self.node_ids.dim() != 1:
            raise KnowledgeError(
                f"Teacher '{self.name}': node ids must be int64 [nodes], got {self.node_ids.dtype} "
                f"{list(self.node_ids.shape)}."
            )
        if bool((self.node_ids.diff() <= 0).any()):
            raise KnowledgeError(f"Teacher '{self.name}': node ids must be in ascending order, each once.")
        for name, tensor in {"logits": self.logits, **self.hidden}.items():
            if tensor.dim() != 2 or len(tensor) != len(self.node_ids):
                raise KnowledgeError(
                    f"Teacher '{self.name}': {name} must have one row for each of the {len(self.node_ids)} node ids, "
                    f"got shape {list(tensor.shape)}."
                )
            if not tensor.is_floating_point():
                raise KnowledgeError(
                    f"Teacher '{self.name}': {name} must be raw scores in floating point, got {tensor.dtype}. "
                    "Classes or counts do not say how sure the teacher is."
                )
            if not all_finite(tensor):
                raise KnowledgeError(f"Teacher '{self.name}': {name} holds NaN or infinite numbers.")

    def rows(self, ids: Tensor) -> Tensor:
        """Row numbers of global node ids `ids [B]`.

        Raises:
            KnowledgeError: the teacher has not seen one of them.
        """
        rows = torch.searchsorted(self.node_ids, ids).clamp(max=len(self.node_ids) - 1)
        if bool((self.node_ids[rows] != ids).any()):
            missing = ids[self.node_ids[rows] != ids]
            raise KnowledgeError(
                f"Teacher '{self.name}' knows nothing of node {int(missing[0])} ({len(missing)} such nodes). "
                "Extract the knowledge again from this graph, or pass the graph it came from."
            )
        return rows

    def aligned(self, graph: GraphData) -> TeacherKnowledge:
        """The same words, row i about node i of `graph`.

        Raises:
            KnowledgeError: the classes differ, or a node is missing.
        """
        if self.logits.size(1) != graph.num_classes:
            raise KnowledgeError(
                f"Teacher '{self.name}' has logits for {self.logits.size(1)} {graph.task.units}, but graph "
                f"'{graph.name}' has {graph.num_classes}."
            )
        if torch.equal(self.node_ids, graph.node_ids):
            return self
        rows = self.rows(graph.node_ids)
        return TeacherKnowledge(
            name=self.name,
            node_ids=graph.node_ids,
            logits=self.logits[rows],
            hidden={name: tensor[rows] for name, tensor in self.hidden.items()},
            graph=self.graph,
            weights=self.weights,
        )

    def save(self, path: Path) -> None:
        """Write as safetensors, in one step."""
        tensors = {"node_ids": self.node_ids, "logits": self.logits}
        tensors |= {f"hidden.{name}": tensor for name, tensor in self.hidden.items()}
        metadata = {
            "schema": _SCHEMA,
            "name": self.name,
            "graph": self.graph,
            "weights": self.weights,
            "hidden": "\n".join(self.hidden),
        }
        save_tensors(path, _apart(tensors), metadata)

    @classmethod
    def load(cls, path: Path) -> TeacherKnowledge:
        """Read what `save` wrote.

        Raises:
            KnowledgeError: the file is missing, damaged or of another version.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                if about.get("schema") != _SCHEMA:
                    raise KnowledgeError(f"{path} has schema {about.get('schema')}, expected {_SCHEMA}.")
                names = about["hidden"].split("\n") if about["hidden"] else []
                return cls(
                    name=about["name"],
                    node_ids=file.get_tensor("node_ids"),
                    logits=file.get_tensor("logits"),
                    hidden={name: file.get_tensor(f"hidden.{name}") for name in names},
                    graph=about["graph"],
                    weights=about["weights"],
                )
        except (SafetensorError, OSError, KeyError) as error:
            raise KnowledgeError(f"{path} is not a knowledge file ({error}). Run distill again to make it.") from None


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, none in another's memory, which safetensors refuses: a hidden layer may be the logits."""
    apart: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.contiguous()
        apart[name] = own.clone() if own.untyped_storage().data_ptr() in taken else own
        taken.add(own.untyped_storage().data_ptr())
    return apart
