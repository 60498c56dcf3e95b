"""Teachers on edges with weights: what PyG's layers say, and the same from a server, in blocks, and in an ensemble."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import APPNP, GCN, GCNConv, GraphSAGE

from graph2mlp.data.graph import GraphData
from graph2mlp.run import open_run
from graph2mlp.teachers import blocks
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.ensemble import Ensemble
from graph2mlp.teachers.extract import answer_all
from graph2mlp.teachers.load_own import load_own_teacher
from graph2mlp.teachers.models import TEACHERS, Teacher, build_teacher
from graph2mlp.teachers.own import OwnTeacher, find_hops
from graph2mlp.teachers.serving import TeacherServer
from tests.cli import distill, invoke
from tests.graphs import CLASSES, FEATURES, weighted_graph
from tests.teachers.test_serving import random_graph

CONFIG = TeacherConfig(hidden=8, heads=2, steps=3, teleport=0.2, unit_rows=False, aggregator="mean")
CONFIGS = [config for name in TEACHERS for config in replace(CONFIG, name=name, aggregator="auto").candidates()]


def _named(config: TeacherConfig) -> str:
    return f"{config.name}-{config.aggregator}"


def _teacher(config: TeacherConfig, **changed: object) -> Teacher:
    torch.manual_seed(0)
    return build_teacher(FEATURES, CLASSES, replace(config, **changed)).eval()  # type: ignore[arg-type]


def _directed() -> GraphData:
    """With a hub, repeated and self edges, isolated nodes, and a weight of its own at every edge."""
    graph = random_graph(sparse=False)
    weight = torch.rand(graph.num_edges, generator=torch.Generator().manual_seed(1)) + 0.1
    return replace(graph, edge_weight=weight)


def _dense(graph: GraphData) -> Tensor:
    """`[target, source]`, repeats added up, no self edges."""
    assert graph.edge_weight is not None
    dense = torch.zeros(graph.num_nodes, graph.num_nodes)
    dense.index_put_((graph.edge_index[1], graph.edge_index[0]), graph.edge_weight, accumulate=True)
    return dense.fill_diagonal_(0)


@torch.no_grad()
def _by_hand(teacher: Teacher, graph: GraphData) -> Tensor:
    """Each layer as its formula says, over the dense adjacency."""
    config, adjacency = teacher.config, _dense(graph)
    looped = adjacency + torch.eye(graph.num_nodes)
    root = looped.sum(1).rsqrt()
    normal = root[:, None] * looped * root
    mean = adjacency / adjacency.sum(1, keepdim=True).clamp(min=1e-9)
    if config.name == "appnp":
        start = teacher.layers[0](F.relu(teacher.first(graph.x)))  # type: ignore[operator, index]
        out = start
        for _ in range(config.steps):
            out = (1 - config.teleport) * normal @ out + config.teleport * start
        return out  # type: ignore[no-any-return]
    h = graph.x
    for number, layer in enumerate(teacher.convs):  # type: ignore[arg-type]
        h = F.relu(h) if number else h
        if config.name == "sage" and config.aggregator == "mean":
            h = mean @ layer.lin_l(h) + (mean.sum(1, keepdim=True) == 0) * layer.lin_l.bias + layer.lin_r(h)
        elif config.name == "sage":
            h = looped / looped.sum(1, keepdim=True) @ layer.lin_l(h)
        elif config.name == "gat":
            h = _attention(layer, h, looped)
        else:
            h = normal @ layer.lin(h) + layer.bias
    return h


def _attention(layer: nn.Module, h: Tensor, looped: Tensor) -> Tensor:
    heads, out = layer.heads, []
    rows = layer.lin(h).view(len(h), heads, -1)  # type: ignore[operator]
    for head in range(heads):  # type: ignore[arg-type]
        one = rows[:, head]
        source, target = one @ layer.att_src[0, head], one @ layer.att_dst[0, head]  # type: ignore[index]
        score = looped * F.leaky_relu(target[:, None] + source, 0.2).exp()
        out.append(score / score.sum(1, keepdim=True) @ one)
    joined: Tensor = (torch.cat(out, 1) if layer.concat else torch.stack(out).mean(0)) + layer.bias
    return joined


@pytest.mark.parametrize("config", CONFIGS, ids=_named)
def test_equals_the_formula(config: TeacherConfig) -> None:
    """Directed edges with repeats, self edges and weights, against the formula over a dense matrix."""
    graph = _directed()
    teacher = _teacher(config)
    torch.testing.assert_close(answer_all(teacher, graph)[0], _by_hand(teacher, graph), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_equals_pyg_with_edge_weight() -> None:
    """The two of PyG's layers that take weights themselves."""
    graph = weighted_graph()
    assert graph.edge_weight is not None
    first = _teacher(CONFIG, name="gcn", layers=1)
    conv = GCNConv(FEATURES, CLASSES)
    conv.lin.weight.copy_(first.convs[0].lin.weight.T)  # type: ignore[index, union-attr, operator]
    conv.bias.copy_(first.convs[0].bias)  # type: ignore[index, union-attr, arg-type]
    want = conv(graph.x, graph.edge_index, graph.edge_weight)
    torch.testing.assert_close(answer_all(first, graph)[0], want, atol=1e-5, rtol=1e-4)
    spread = _teacher(CONFIG, name="appnp")
    start = spread.layers[0](F.relu(spread.first(graph.x)))  # type: ignore[operator, index]
    want = APPNP(3, 0.2)(start, graph.edge_index, graph.edge_weight)
    torch.testing.assert_close(answer_all(spread, graph)[0], want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", CONFIGS, ids=_named)
def test_weights_of_one_change_nothing(config: TeacherConfig, dense_graph: GraphData) -> None:
    """And other weights do."""
    teacher = _teacher(config)
    want = answer_all(teacher, dense_graph)[0]
    ones = replace(dense_graph, edge_weight=torch.ones(dense_graph.num_edges))
    torch.testing.assert_close(answer_all(teacher, ones)[0], want, atol=1e-6, rtol=0)
    assert not torch.allclose(answer_all(teacher, weighted_graph())[0], want, atol=1e-3)


@pytest.mark.parametrize("config", CONFIGS, ids=_named)
def test_served_as_the_whole_graph(config: TeacherConfig) -> None:
    """Weights must be cut out with their edges."""
    graph, teacher = _directed(), _teacher(config)
    server, want = TeacherServer(graph, teacher), answer_all(teacher, graph)[0]
    for batch in ([0], [79], [3, 0, 79], list(range(80))):
        for answer in (server.logits, server.pyg_logits, server.whole_graph_logits):
            torch.testing.assert_close(answer(np.array(batch)), want[batch], atol=1e-5, rtol=0)


def test_ensemble_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each member reads its own weights out of the common matrix; in blocks, too."""
    graph = _directed()
    members = [_teacher(CONFIG, name=name) for name in ("gat", "sage", "appnp")]
    ensemble = Ensemble(members).eval()
    want = sum(answer_all(member, graph)[0].softmax(1) for member in members) / 3
    torch.testing.assert_close(answer_all(ensemble, graph)[0].softmax(1), want, atol=1e-5, rtol=1e-4)
    plain = Ensemble(members[1:]).eval()
    whole = answer_all(plain, graph)[0]
    for constant, value in (("_NUMBERS", 0), ("_ROWS", 7), ("_COLUMNS", 5)):
        monkeypatch.setattr(blocks, constant, value)
    torch.testing.assert_close(answer_all(plain, graph)[0], whole, rtol=0, atol=1e-5)


class _Own(nn.Module):
    """Two layers of GCN, weighted or not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = GCNConv(FEATURES, 8), GCNConv(8, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x, edge_index, edge_weight).relu(), edge_index, edge_weight)
        return out


def test_own_teacher_is_given_weights() -> None:
    """As they are stored, repeats and all; cut out with their edges when it serves."""
    graph, network = _directed(), _Own().eval()
    teacher = OwnTeacher(network, graph, TeacherConfig(module="m:Own")).eval()
    teacher.examine(graph)
    with torch.no_grad():
        want = network(graph.x, graph.edge_index, graph.edge_weight)
    logits, hidden = answer_all(teacher, graph)
    torch.testing.assert_close(logits, want)
    assert hidden[0].shape == (80, 8)
    assert find_hops(teacher, graph) == 3
    server = TeacherServer(graph, teacher)
    for answer in (server.logits, server.pyg_logits):
        torch.testing.assert_close(answer(np.array([0, 5, 79])), want[[0, 5, 79]], atol=1e-5, rtol=0)
    # A fan-out that nothing exceeds leaves the weights alone.
    torch.testing.assert_close(server.sampled_logits(np.array([5]), fanout=80), want[[5]], atol=1e-5, rtol=0)


def test_who_takes_weights(tmp_path: Path) -> None:
    """Its signature says it, or PyG's model does; an exported program has one, too."""
    graph = weighted_graph()
    config = TeacherConfig(module="m:X")
    shape = (FEATURES, 8, 2, CLASSES)
    assert OwnTeacher(GCN(*shape), graph, config).takes_weights
    assert not OwnTeacher(GraphSAGE(*shape), graph, config).takes_weights
    assert not OwnTeacher(nn.Linear(FEATURES, CLASSES), graph, config).takes_weights
    edges = torch.export.Dim("edges", min=2)
    shapes = {"x": {0: torch.export.Dim("nodes", min=2)}, "edge_index": {1: edges}, "edge_weight": {0: edges}}
    network = _Own().eval()
    program = torch.export.export(network, (graph.x, graph.edge_index, graph.edge_weight), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "net.pt2")
    teacher = load_own_teacher(TeacherConfig(weights=str(tmp_path / "net.pt2")), graph)
    assert teacher.takes_weights
    with torch.no_grad():
        want = network(graph.x, graph.edge_index, graph.edge_weight)
    torch.testing.assert_close(answer_all(teacher, graph)[0], want)


@pytest.mark.parametrize("method", ["blend", "nosmog", "gsdn", "cold_brew", "lsp"])
def test_from_weights_to_a_bundle(method: str, tmp_path: Path) -> None:
    """The whole way, with unseen nodes; the run reads the weights again."""
    file = weighted_graph().save(tmp_path / "g.npz")
    out = tmp_path / "run"
    done = distill(file, out, "--method", method, "--setting", "production")
    assert done.exit_code == 0, done.output
    assert open_run(out).graph().edge_weight is not None
    assert invoke("export", out, "--onnx").exit_code == 0


def test_own_teacher_without_weights_is_said(tmp_path: Path) -> None:
    """It is asked as it was trained, but its owner should know."""
    file = weighted_graph().save(tmp_path / "g.npz")
    given = ("--teacher-module", "torch_geometric.nn:GraphSAGE", "--set", "teacher.force=true")
    done = distill(file, tmp_path / "run", "--method", "glnn", *given)
    assert done.exit_code == 0, done.output
    assert "has no argument edge_weight" in " ".join(done.output.split())
