"""The teacher's server must be exact: a comparison with a wrong answer is worth nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from graph2mlp.data.graph import GraphData
from graph2mlp.data.splits import Split
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.models import Teacher, build_teacher
from graph2mlp.teachers.serving import TeacherServer


def random_graph(*, sparse: bool, nodes: int = 80) -> GraphData:
    """A sparse random graph with a hub, repeated edges, self-loops and isolated nodes; directed, so sides matter."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(0, nodes - 5, (2, 150), generator=generator)  # the last five nodes are isolated
    hub = torch.stack([torch.arange(1, 40), torch.zeros(39, dtype=torch.long)])
    x = torch.rand(nodes, 12, generator=generator)
    x = torch.where(x < 0.4, x, 0.0)
    empty = torch.empty(0, dtype=torch.long)
    return GraphData(
        name="random",
        x=x.to_sparse_csr() if sparse else x,
        edge_index=torch.cat([edges, edges[:, :20], hub, hub.flip(0)], 1),
        y=torch.randint(0, 3, (nodes,), generator=generator),
        split=Split(train=torch.arange(10), val=torch.arange(10, 20), test=torch.arange(20, nodes), unseen=empty),
        class_names=("a", "b", "c"),
    )


CONFIGS = [config for name in ("sage", "gcn", "gat", "appnp") for config in TeacherConfig(name=name).candidates()]


def random_teacher(config: TeacherConfig = CONFIGS[0], layers: int = 2) -> Teacher:
    torch.manual_seed(0)
    return build_teacher(12, 3, replace(config, layers=layers, hidden=16, heads=4, steps=3)).eval()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.name}-{config.aggregator}")
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_equals_the_whole_graph(config: TeacherConfig, sparse: bool) -> None:
    """Part of the graph in, the answer of the whole graph out: for single nodes, the hub, isolated nodes, batches."""
    graph, teacher = random_graph(sparse=sparse), random_teacher(config)
    server = TeacherServer(graph, teacher)
    with torch.inference_mode():
        expected = teacher(graph.features(), teacher.adjacency(graph))[0]
    batches = [[0], [79], [3, 0, 79], list(range(80)), list(range(79, 20, -3))] + [[i] for i in range(5, 20)]
    for batch in batches:
        ids = np.array(batch)
        for answer in (server.logits, server.pyg_logits, server.whole_graph_logits):
            torch.testing.assert_close(answer(ids), expected[ids], atol=1e-5, rtol=0)


@pytest.mark.parametrize("layers", [1, 3])
def test_hops_follow_the_layers(layers: int) -> None:
    graph, teacher = random_graph(sparse=False), random_teacher(layers=layers)
    server = TeacherServer(graph, teacher)
    ids = np.arange(30)
    torch.testing.assert_close(server.logits(ids), server.whole_graph_logits(ids), atol=1e-5, rtol=0)


def test_repeated_ids_and_repeated_requests() -> None:
    """The array of positions is shared by all requests: what one leaves behind would be the next one's mistake."""
    server = TeacherServer(random_graph(sparse=True), random_teacher())
    first = server.logits(np.array([4, 4, 9, 4]))
    torch.testing.assert_close(first[0], first[3], rtol=0, atol=0)
    for _ in range(3):
        torch.testing.assert_close(server.logits(np.array([4, 4, 9, 4])), first, rtol=0, atol=0)
    assert server.logits(np.array([], dtype=np.int64)).shape == (0, 3)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.name}-{config.aggregator}")
def test_sampling_everything_is_exact(config: TeacherConfig) -> None:
    """A fan-out that no node exceeds must change nothing: a slip in the bookkeeping would pass as sampling noise."""
    server = TeacherServer(random_graph(sparse=True), random_teacher(config))
    ids = np.array([0, 5, 79, 3])
    torch.testing.assert_close(server.sampled_logits(ids, fanout=80), server.logits(ids), rtol=0, atol=1e-6)


def test_sampled_neighbours_are_few_and_fair() -> None:
    """Too many would make the row a second full fetch; an unfair draw would cost accuracy that sampling does not."""
    server = TeacherServer(random_graph(sparse=False), random_teacher(CONFIGS[1], layers=1))
    hub, seen = np.array([0]), np.zeros(80)
    full = server._expand(hub)
    for _ in range(2000):
        part = server._expand(hub, 4)
        assert part.counts[0] == 4
        assert len(set(part.edges.tolist())) == 4
        assert part.scale is not None
        assert np.allclose(part.scale[:4], full.counts[0] / 4)
        seen[part.nodes[part.columns]] += 1
    expected = 2000 * 4 / full.counts[0] * np.bincount(full.nodes[full.columns], minlength=80)
    assert np.all(np.abs(seen - expected) < 6 * np.sqrt(expected.clip(min=1)))


def test_sampled_sums_keep_their_expected_value() -> None:
    """A sum over a sample must be scaled by what was left out, or every hub would look like a small node."""
    server = TeacherServer(random_graph(sparse=False), random_teacher(CONFIGS[0], layers=1))
    hub = np.array([0])
    mean = torch.stack([server.sampled_logits(hub, fanout=4) for _ in range(2000)]).mean(0)
    torch.testing.assert_close(mean, server.logits(hub), atol=0.02, rtol=0)


def test_only_the_neighbourhood_is_fetched() -> None:
    """The cost is measured honestly only if the server does no more than it must."""
    server = TeacherServer(random_graph(sparse=False), random_teacher())
    part = server._expand(np.array([78]))  # isolated
    assert len(part.nodes) == 1
    assert len(part.edges) == 0
