"""The GCN with structural embeddings: its formula, its penalty, and nodes that have no row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError
from graph2mlp.evaluation import evaluate_teacher
from graph2mlp.teachers.cache import load_teacher, save_teacher
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.extract import extract_knowledge
from graph2mlp.teachers.models import StructuralGCN, build_teacher
from graph2mlp.teachers.serving import TeacherServer
from graph2mlp.teachers.train import train_teacher
from tests.graphs import community_graph

CONFIG = TeacherConfig(name="gcn_se", hidden=8, epochs=6, burn_in=0, se_layers="first+last")


def _teacher(graph: GraphData, **changed: object) -> StructuralGCN:
    torch.manual_seed(0)
    config = replace(CONFIG, **changed)  # type: ignore[arg-type]
    made = build_teacher(graph.num_features, graph.num_classes, config, node_ids=graph.observed_ids()).eval()
    assert isinstance(made, StructuralGCN)
    return made


def _answer(teacher: StructuralGCN, graph: GraphData) -> Tensor:
    with torch.no_grad():
        logits: Tensor = teacher(graph.features(), teacher.adjacency(graph))[0]
    return logits


def test_equals_the_formula(tiny_graph: GraphData) -> None:
    """`A (H W + S) + b` per layer: S is spread like the rest, not added behind it."""
    teacher = _teacher(tiny_graph, unit_rows=False)
    spread = teacher.adjacency(tiny_graph).to_dense()
    first, last = teacher.convs
    hidden = spread @ (tiny_graph.x.to_dense() @ first.lin.weight + teacher.structural["0"]) + first.bias
    logits = spread @ (hidden.relu() @ last.lin.weight.T + teacher.structural["1"]) + last.bias
    torch.testing.assert_close(_answer(teacher, tiny_graph), logits, atol=1e-5, rtol=1e-4)


def test_without_embeddings_it_is_the_gcn(dense_graph: GraphData) -> None:
    """What a penalty without bound leaves."""
    teacher, plain = _teacher(dense_graph), build_teacher(12, 3, replace(CONFIG, name="gcn")).eval()
    with torch.no_grad():
        for table in teacher.structural.values():
            table.zero_()
    plain.load_state_dict({name: tensor for name, tensor in teacher.state_dict().items() if name.startswith("convs")})
    torch.testing.assert_close(_answer(teacher, dense_graph), _answer(plain, dense_graph))  # type: ignore[arg-type]


def test_penalty_is_the_norm_and_shrinks_the_embeddings(dense_graph: GraphData) -> None:
    """The Frobenius norm itself, not its square, summed over layers."""
    teacher = _teacher(dense_graph, se_reg=3.0)
    first, last = (table.detach() for table in teacher.structural.values())
    penalty = teacher.penalty()
    assert penalty is not None
    torch.testing.assert_close(penalty.detach(), 3 * (first.square().sum().sqrt() + last.square().sum().sqrt()))
    assert _teacher(dense_graph, se_reg=0.0).penalty() is None
    sizes = []
    for weight in (0.0, 100.0):
        config = replace(CONFIG, se_reg=weight, epochs=40, weight_decay=0.0)
        trained, _ = train_teacher(dense_graph, config, seed=0)
        assert isinstance(trained, StructuralGCN)
        sizes.append(float(trained.structural["0"].detach().norm()))
    assert sizes[1] < 0.9 * sizes[0]


@pytest.mark.parametrize(
    ("layers", "places", "expected"),
    [(2, "first", [0]), (2, "first+middle+last", [0, 1]), (4, "middle", [1, 2]), (1, "first+last", [0])],
)
def test_layers_that_carry_embeddings(layers: int, places: str, expected: list[int]) -> None:
    """Three switches, whatever the depth."""
    config = TeacherConfig(name="gcn_se", layers=layers, se_layers=places)
    assert config.structural_layers() == expected
    assert sorted(build_teacher(4, 3, config).structural) == [str(one) for one in expected]  # type: ignore[type-var,arg-type]


def test_settings_are_checked() -> None:
    """A misspelt place would train a plain GCN under another name."""
    with pytest.raises(ConfigError, match="Unknown place 'frist' in teacher.se_layers. Did you mean 'first'?"):
        TeacherConfig(se_layers="frist+last")
    with pytest.raises(ConfigError, match="se_reg must be at least 0"):
        TeacherConfig(se_reg=-1.0)


def test_unseen_nodes_have_no_row() -> None:
    """In production their S is zero: changing every row of others reaches them through their edges only."""
    graph = community_graph(production=True)
    teacher = _teacher(graph)
    unseen = graph.split.unseen
    assert not bool(torch.isin(teacher.node_ids, unseen).any())
    alone = replace(graph, edge_index=torch.empty(2, 0, dtype=torch.long))
    before = _answer(teacher, alone)
    with torch.no_grad():
        for table in teacher.structural.values():
            table.add_(1.0)
    after = _answer(teacher, alone)
    changed = (before != after).any(1)
    assert not bool(changed[unseen].any())
    assert bool(changed[teacher.node_ids].all())


def test_rows_follow_the_node_ids() -> None:
    """The observed graph is numbered anew; knowledge of a node must be what the full graph's row of it gives."""
    graph = community_graph(production=True)
    teacher, observed = _teacher(graph), graph.observed()
    knowledge = extract_knowledge(teacher, observed, name="x")
    hidden = torch.zeros(61, dtype=torch.bool)
    hidden[graph.split.unseen] = True
    kept = ~hidden[graph.edge_index].any(0)
    full = _answer(teacher, replace(graph, edge_index=graph.edge_index[:, kept]))
    torch.testing.assert_close(knowledge.logits, full[observed.node_ids])
    assert set(evaluate_teacher(teacher, knowledge, graph)) == {"tran", "ind", "prod", "cold"}


def test_server_gives_each_node_its_own_row(dense_graph: GraphData) -> None:
    """A part of the graph is numbered anew, too."""
    teacher = _teacher(dense_graph)
    server, expected = TeacherServer(dense_graph, teacher), _answer(teacher, dense_graph)
    ids = np.array([40, 3, 60])
    for answer in (server.logits, server.pyg_logits, server.whole_graph_logits):
        torch.testing.assert_close(answer(ids), expected[ids], atol=1e-5, rtol=0)


def test_saved_in_production_and_read_beside_the_full_graph(tmp_path) -> None:
    """A run opens its teacher with the full graph, the cache with the observed one; both must find M rows."""
    graph = community_graph(production=True)
    teacher = _teacher(graph)
    save_teacher(teacher, tmp_path / "t.safetensors")
    for one in (graph, graph.observed()):
        assert torch.equal(_answer(load_teacher(tmp_path / "t.safetensors", one), graph), _answer(teacher, graph))  # type: ignore[arg-type]
