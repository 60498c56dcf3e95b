"""The built-in teachers compute exactly what PyG's layers compute, on sparse and on dense features."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import APPNP, GATConv, GCNConv, SAGEConv
from torch_geometric.utils import add_self_loops

from graph2mlp.data.features import FeatureLinear
from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.models import TEACHERS, Teacher, build_teacher
from tests.graphs import community_graph

CONFIG = TeacherConfig(hidden=8, heads=2, steps=3, teleport=0.2, unit_rows=False, aggregator="mean")


def _teacher(name: str, graph: GraphData, **changed: object) -> Teacher:
    torch.manual_seed(0)
    return build_teacher(graph.num_features, graph.num_classes, replace(CONFIG, name=name, **changed)).eval()  # type: ignore[arg-type]


def _answers(teacher: Teacher, graph: GraphData) -> tuple[Tensor, tuple[Tensor, ...]]:
    with torch.no_grad():
        return teacher(graph.features(), teacher.adjacency(graph))


def _weight(layer: nn.Module) -> Tensor:
    """In torch's orientation, `[out, in]`; ours stores a layer that reads features the other way round."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight.T if isinstance(layer, FeatureLinear) else weight


@torch.no_grad()
def _pyg_sage(ours: Teacher, x: Tensor, edges: Tensor) -> Tensor:
    own = ours.config.aggregator == "mean"
    if not own:
        edges = add_self_loops(edges, num_nodes=len(x))[0]
    for number, layer in enumerate(ours.convs):  # type: ignore[arg-type]
        conv = SAGEConv(x.size(1), layer.out_channels, aggr="mean", root_weight=own)
        conv.lin_l.weight.copy_(_weight(layer.lin_l))
        biases = [part.bias for part in (layer.lin_l, getattr(layer, "lin_r", None)) if part is not None]
        conv.lin_l.bias.copy_(sum(bias for bias in biases if bias is not None))
        if own:
            conv.lin_r.weight.copy_(_weight(layer.lin_r))
        x = conv(F.relu(x) if number else x, edges)
    return x


@torch.no_grad()
def _pyg_gcn(ours: Teacher, x: Tensor, edges: Tensor) -> Tensor:
    for number, layer in enumerate(ours.convs):  # type: ignore[arg-type]
        conv = GCNConv(x.size(1), layer.out_channels)
        conv.lin.weight.copy_(_weight(layer.lin))
        conv.bias.copy_(layer.bias)
        x = conv(F.relu(x) if number else x, edges)
    return x


@torch.no_grad()
def _pyg_gat(ours: Teacher, x: Tensor, edges: Tensor) -> Tensor:
    for number, layer in enumerate(ours.convs):  # type: ignore[arg-type]
        conv = GATConv(x.size(1), layer.out_channels, heads=layer.heads, concat=layer.concat)
        weights = layer.state_dict()
        weights["lin.weight"] = _weight(layer.lin)
        conv.load_state_dict(weights)
        x = conv(F.relu(x) if number else x, edges)
    return x


@torch.no_grad()
def _pyg_appnp(ours: Teacher, x: Tensor, edges: Tensor) -> Tensor:
    first, (second,) = ours.first, ours.layers  # type: ignore[misc]
    return APPNP(3, 0.2)(second(F.relu(x @ first.weight + first.bias)), edges)


REFERENCE = {"sage": _pyg_sage, "gcn": _pyg_gcn, "gat": _pyg_gat, "appnp": _pyg_appnp, "gcn_se": _pyg_gcn}


@pytest.mark.parametrize("name", TEACHERS)
def test_equals_the_layers_of_pyg(name: str, tiny_graph: GraphData) -> None:
    """We reorder products and precompute the normalisation for speed; the numbers must be the published model's."""
    teacher = _teacher(name, tiny_graph)
    logits, _ = _answers(teacher, tiny_graph)
    want = REFERENCE[name](teacher, tiny_graph.x.to_dense(), tiny_graph.edge_index)
    torch.testing.assert_close(logits, want, atol=1e-5, rtol=1e-4)


def test_sage_with_the_gcn_aggregator(tiny_graph: GraphData) -> None:
    """GLNN and NOSMOG report this form: one mean over the neighbours and the node itself."""
    teacher = _teacher("sage", tiny_graph, aggregator="gcn")
    want = _pyg_sage(teacher, tiny_graph.x.to_dense(), tiny_graph.edge_index)
    torch.testing.assert_close(_answers(teacher, tiny_graph)[0], want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", TEACHERS)
def test_unit_rows_scale_sparse_features(name: str) -> None:
    """The length of a document is not its topic; a document without words stays empty and does not become NaN."""
    graph = community_graph(sparse=True)
    scaled = F.normalize(graph.x.to_dense(), dim=1).to_sparse_csr()
    got = _answers(_teacher(name, graph, unit_rows=True), graph)[0]
    want = _answers(_teacher(name, graph), replace(graph, x=scaled))[0]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", TEACHERS)
def test_hidden_layers_are_taken_before_the_activation(name: str, tiny_graph: GraphData) -> None:
    """Methods compare them by inner products, where a ReLU would lose half."""
    logits, hidden = _answers(_teacher(name, tiny_graph, layers=3), tiny_graph)
    assert logits.shape == (61, 3)
    assert [tuple(layer.shape) for layer in hidden] == [(61, 8)] * 2
    assert float(hidden[0].min()) < 0


@pytest.mark.parametrize("name", TEACHERS)
def test_repeated_edges_and_self_loops_change_nothing(name: str, dense_graph: GraphData) -> None:
    """A file may list an edge twice; the mean over neighbours counts each of them once."""
    loops = torch.arange(5).repeat(2, 1)
    noisy = torch.cat([dense_graph.edge_index, dense_graph.edge_index[:, :40], loops], 1)
    teacher = _teacher(name, dense_graph)
    want = _answers(teacher, dense_graph)[0]
    torch.testing.assert_close(_answers(teacher, replace(dense_graph, edge_index=noisy))[0], want)


@pytest.mark.parametrize("name", TEACHERS)
def test_gradients_are_the_same_for_sparse_features(name: str) -> None:
    """Training reads CSR; a wrong gradient would show only as a bad teacher."""
    gradients = []
    for sparse in (False, True):
        graph = community_graph(sparse=sparse)
        teacher = _teacher(name, graph)
        logits, _ = teacher(graph.features(), teacher.adjacency(graph))
        gradients.append(torch.autograd.grad(logits.square().sum(), list(teacher.parameters())))
    for dense, sparse_gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(sparse_gradient, dense, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["sage", "gcn", "gat"])
def test_hops_is_how_far_an_answer_sees(name: str, dense_graph: GraphData) -> None:
    """A server fetches that many hops, so a feature further away must not matter, and one at that distance must."""
    path = torch.tensor([[0, 1, 2], [1, 2, 3]])
    graph = replace(dense_graph, edge_index=torch.cat([path, path.flip(0)], 1))
    teacher = _teacher(name, graph)
    assert teacher.hops == 2
    before = _answers(teacher, graph)[0]
    x = graph.x.clone()
    x[3] += 10
    changed = (_answers(teacher, replace(graph, x=x))[0] != before).any(1)
    assert changed[:4].tolist() == [False, True, True, True]


def test_unknown_teacher_suggests() -> None:
    """A typing mistake is answered with the nearest name."""
    with pytest.raises(ConfigError, match="Did you mean 'sage'?"):
        build_teacher(3, 2, TeacherConfig(name="saga"))


def test_heads_must_divide_the_width() -> None:
    """Otherwise the hidden layer would silently be narrower than asked for."""
    with pytest.raises(ConfigError, match="multiple of teacher.heads"):
        build_teacher(3, 2, TeacherConfig(name="gat", hidden=10, heads=4))
