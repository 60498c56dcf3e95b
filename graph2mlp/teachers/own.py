"""A teacher of the user's own: any module called as `module(x, edge_index)`, asked like a built-in one.

Of a graph with weights a module whose `forward` has an argument `edge_weight` is given them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from graph2mlp.data.features import Features, dense_rows
from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError, KnowledgeError, suggest
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.models import Teacher
from graph2mlp.teachers.serving import TeacherServer, as_stored, stored_edges

__all__ = ["OwnTeacher", "find_hops"]

_CHECKED = 8
"""Nodes on which a neighbour fetch is held against the whole graph."""


class OwnTeacher(Teacher):
    """`network(x [N, F] dense float32, edge_index [2, E] as stored) -> [N, C]`, or a tuple that begins with that.

    `hidden` is the outputs of the layers named in `config.hidden_layers` (joined by `+`), or with `auto` the input of
    the last layer with weights whose output has one column per class; with `none`, or where there is no such layer,
    empty. It is what flows there in evaluation mode, usually after the activation.

    A network that says probabilities is heard as logits, once `examine` has found out.
    """

    def __init__(self, network: nn.Module, graph: GraphData, config: TeacherConfig, *, program: bool = False) -> None:
        super().__init__(graph.num_features, graph.num_classes, config)
        self.targets = graph.targets
        self.network = network
        self._program = program
        self.hops = 0
        self._says_probabilities = False
        self._layers: tuple[str, ...] = ()
        self._reads_input = False
        takes = "edge_weight" in inspect.signature(network.forward).parameters
        self.takes_weights = takes and getattr(network, "supports_edge_weight", True)  # PyG's models say so themselves
        named = dict(network.named_modules())
        if program and config.hidden_layers not in ("auto", "none"):
            raise ConfigError(
                "An exported program keeps no layers to listen to, so teacher.hidden_layers must be auto or none. "
                "Give the module itself with --teacher-module for its hidden layers."
            )
        if config.hidden_layers not in ("auto", "none"):
            self._layers = tuple(config.hidden_layers.split("+"))
            for name in self._layers:
                if not name or name not in named:
                    known = [one for one in named if one]
                    raise ConfigError(
                        f"The teacher has no layer '{name}' (teacher.hidden_layers). {suggest(name, known)}"
                    )

    def train(self, mode: bool = True) -> OwnTeacher:
        """As of any module; an exported program has one mode, and answers this call with an error."""
        if not self._program:
            return super().train(mode)
        self.training = mode
        return self

    def adjacency(self, graph: GraphData) -> Tensor:
        """The edges as they are: what the module makes of them is its own affair."""
        return as_stored(graph.edge_index, graph.num_nodes, graph.edge_weight if self.takes_weights else None)

    def forward(self, x: Features, adjacency: Tensor, ids: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        heard: dict[str, Tensor] = {}

        def listen(name: str) -> Callable[..., None]:
            def hook(_module: nn.Module, inputs: Any, output: Any) -> None:
                heard[name] = _first_tensor(inputs if self._reads_input else output)

            return hook

        modules = dict(self.network.named_modules())
        with ExitStack() as hooks:
            for name in self._layers:
                handle = modules[name].register_forward_hook(listen(name))
                hooks.callback(handle.remove)
            logits = self._ask(dense_rows(x), adjacency)
        if self._says_probabilities:
            logits = self.targets.from_probabilities(logits)
        return logits, tuple(heard[name].float() for name in self._layers if name in heard)

    @torch.no_grad()
    def examine(self, graph: GraphData) -> None:
        """Ask about the whole observed `graph` once, to find out in which form the network answers; and with
        `hidden_layers = "auto"` which layer makes the answers, to listen to its input from now on.
        """
        calls: list[tuple[str, Tensor]] = []
        x = dense_rows(graph.features())

        def watch(name: str) -> Callable[..., None]:
            def hook(_module: nn.Module, inputs: Any, output: Any) -> None:
                try:
                    before, after = _first_tensor(inputs), _first_tensor(output)
                except KnowledgeError:
                    return
                rows = before.dim() == after.dim() == 2 and len(before) == len(after) == graph.num_nodes
                if rows and after.size(1) == graph.num_classes and before.data_ptr() != x.data_ptr():
                    calls.append((name, before))

            return hook

        with ExitStack() as hooks:
            if not self._program and self.config.hidden_layers == "auto":
                for name, module in _weighted_layers(self.network):
                    hooks.callback(module.register_forward_hook(watch(name)).remove)
            said = self._ask(x, self.adjacency(graph))
        self._says_probabilities = self.targets.are_probabilities(said)
        if calls:
            self._layers, self._reads_input = (calls[-1][0],), True

    def _ask(self, x: Tensor, adjacency: Tensor) -> Tensor:
        edge_index, weight = stored_edges(adjacency)
        inputs: tuple[Tensor, ...] = (x, edge_index)
        named: dict[str, Tensor] = {}
        if weight is not None and self._program:  # which takes its inputs as it was exported with them: in order
            inputs = (*inputs, weight)
        elif weight is not None:
            named = {"edge_weight": weight}
        try:
            answer = self.network(*inputs, **named)
        except Exception as error:  # the user's code may raise anything
            raise KnowledgeError(
                f"The teacher failed on x {list(x.shape)} and edge_index {list(edge_index.shape)}"
                f"{'' if weight is None else ' with edge_weight'}: "
                f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}. It is called as "
                "module(x, edge_index); wrap it in a module with that signature"
                + (", and export it with dynamic numbers of nodes and edges." if self._program else ".")
            ) from None
        logits = _first_tensor(answer)
        if logits.dim() != 2 or len(logits) != len(x) or logits.size(1) != self.widths[-1]:
            raise KnowledgeError(
                f"The teacher answers with shape {list(logits.shape)}, expected [{len(x)}, {self.widths[-1]}]: a row "
                f"for each node, a column for each {self.targets.task.unit} of the graph."
            )
        return logits.float()


def find_hops(teacher: OwnTeacher, graph: GraphData) -> int:
    """How far around a node the teacher looks: the least number of hops whose fetch gives the whole graph's answers.

    Tried are `teacher.hops` of the settings, or the number of message-passing steps and one more (which a
    normalisation by degree needs).

    Raises:
        KnowledgeError: none of them does.
    """
    steps = sum(int(getattr(one, "K", 1)) for one in teacher.network.modules() if isinstance(one, MessagePassing))
    tried = [teacher.config.hops] if teacher.config.hops else [steps, steps + 1]
    picked = np.linspace(0, graph.num_nodes - 1, _CHECKED).astype(np.int64)
    ids = np.unique(np.concatenate([picked, graph.split.test[:_CHECKED].numpy()]))
    for hops in tried:
        teacher.hops = hops
        server = TeacherServer(graph, teacher)
        # One by one: the surroundings of many nodes may be the whole graph.
        fetched = torch.cat([server.logits(ids[i : i + 1]) for i in range(len(ids))]) if hops else None
        if fetched is not None and torch.allclose(fetched, server.whole_graph_logits(ids), rtol=1e-3, atol=1e-4):
            return hops
    raise KnowledgeError(
        f"The teacher gives other answers from {' or '.join(map(str, tried))} hops around a node than from the whole "
        "graph, so it cannot serve requests. Set teacher.hops when distilling, if it looks farther."
    )


def _weighted_layers(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Graph layers and linear ones with weights of their own, those inside another graph layer left out."""
    found = []
    inside: tuple[str, ...] = ()
    for name, module in network.named_modules():
        if name.startswith(inside) and inside:
            continue
        is_graph = isinstance(module, MessagePassing)
        if is_graph:
            inside = (*inside, f"{name}.")
        if (is_graph or type(module).__name__.endswith("Linear")) and any(True for _ in module.parameters()):
            found.append((name, module))
    return found


def _first_tensor(value: Any) -> Tensor:
    """The tensor itself, or the first item of a tuple or list that is one."""
    for one in value if isinstance(value, tuple | list) else (value,):
        if isinstance(one, Tensor):
            return one
        if isinstance(one, tuple | list) and one and isinstance(one[0], Tensor):
            return one[0]
    raise KnowledgeError(f"The teacher answers with a {type(value).__name__}, expected a tensor [nodes, classes].")
