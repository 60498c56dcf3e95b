"""Batches: every row once, and no label that training must not see."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from graph2mlp.data.features import dense_rows
from graph2mlp.data.graph import HIDDEN_LABEL, GraphData
from graph2mlp.losses.labels import SoftLabels
from graph2mlp.losses.structure import LocalStructure
from graph2mlp.methods.base import Stage
from graph2mlp.students.mlp import MLPStudent
from graph2mlp.training.batches import EdgeBatches, NodeBatches, RowReader
from graph2mlp.training.objective import DistillObjective
from tests.graphs import community_graph
from tests.pipeline import make_stage, small_config


def _stage(graph: GraphData, method: str = "nosmog") -> Stage:
    return make_stage(small_config(method), graph)[0]


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("every", [True, False])
def test_each_node_once_per_epoch(every: bool, tiny_graph: GraphData) -> None:
    """The last, smaller batch is not dropped: with few labelled nodes it may be all there is."""
    stage = _stage(tiny_graph)
    batches = NodeBatches(stage, _generator(), every=every)
    pool = list(range(61)) if every else stage.graph.split.train.tolist()
    orders = [[id_ for batch in batches() for id_ in batch.ids.tolist()] for _ in range(2)]
    assert [sorted(order) for order in orders] == [pool, pool]
    assert orders[0] != orders[1], "another order each epoch"
    again = NodeBatches(stage, _generator(), every=every)
    assert [id_ for batch in again() for id_ in batch.ids.tolist()] == orders[0]


def test_every_batch_may_hold_the_labelled_nodes(tiny_graph: GraphData) -> None:
    """Once each, beside those whose turn it is; all others still once per epoch."""
    stage = _stage(tiny_graph)
    stage = replace(stage, train=replace(stage.train, batch_size=20))
    train = set(stage.graph.split.train.tolist())
    seen: Counter[int] = Counter()
    batches = list(NodeBatches(stage, _generator(), every=True, labelled=True)())
    assert len(batches) == 4
    for batch in batches:
        ids = batch.ids.tolist()
        assert len(ids) == len(set(ids))
        assert train <= set(ids)
        assert torch.equal(batch.labelled(), torch.isin(batch.ids, stage.graph.split.train))
        seen.update(set(ids) - train)
    assert seen == Counter(set(range(61)) - train)


def test_of_many_labelled_nodes_a_batch_holds_some(tiny_graph: GraphData) -> None:
    """As many as its own rows at most."""
    stage = _stage(tiny_graph)
    stage = replace(stage, train=replace(stage.train, batch_size=2))
    assert len(stage.graph.split.train) > 4
    for batch in NodeBatches(stage, _generator(), every=True, labelled=True)():
        assert 2 <= len(batch.ids) <= 4


def test_labels_are_hidden_off_the_training_set(dense_graph: GraphData) -> None:
    """Even validation labels, which the observed graph still holds for model selection."""
    stage = _stage(dense_graph)
    train = set(stage.graph.split.train.tolist())
    for batch in NodeBatches(stage, _generator(), every=True)():
        for id_, label in zip(batch.ids.tolist(), batch.labels.tolist(), strict=True):
            assert label == (int(dense_graph.y[id_]) if id_ in train else HIDDEN_LABEL)


@pytest.mark.parametrize("sparse", [False, True])
def test_everything_in_a_batch_is_about_its_nodes(sparse: bool) -> None:
    """In the production setting positions and global ids differ; a mix-up pairs one node's features with another's."""
    graph = community_graph(sparse=sparse, production=True)
    stage = _stage(graph)
    stage = replace(stage, train=replace(stage.train, as_unseen=0.0))
    assert stage.structure is not None
    ids = torch.tensor([50, 3, 40, 3])
    assert not torch.equal(stage.graph.node_ids[ids], ids)
    batch, nodes = RowReader(stage, torch.Generator())(ids), stage.graph.node_ids[ids]
    assert torch.equal(dense_rows(batch.inputs.features), graph.x.to_dense()[nodes])
    assert batch.inputs.structure is not None
    assert torch.equal(batch.inputs.structure, stage.structure.rows[nodes])
    (knowledge,), (rows,) = stage.teachers, batch.teachers
    assert torch.equal(rows.logits, knowledge.logits[knowledge.rows(nodes)])
    assert torch.equal(knowledge.node_ids[ids], nodes)
    assert rows.hidden is not None
    assert torch.equal(rows.hidden, list(knowledge.hidden.values())[-1][ids])


def test_rows_described_as_unseen(dense_graph: GraphData) -> None:
    """A chosen row carries exactly what the table would say of it, were it new: the mean of its known neighbours."""
    stage = _stage(dense_graph)
    stage = replace(stage, train=replace(stage.train, as_unseen=0.5))
    assert stage.structure is not None
    ids = torch.arange(stage.graph.num_nodes)
    structure = RowReader(stage, _generator())(ids).inputs.structure
    assert structure is not None
    found = stage.graph.in_neighbours
    as_unseen = 0
    for i in range(len(ids)):
        near = stage.graph.node_ids[found.ids[found.pointer[i] : found.pointer[i + 1]]]
        mean = stage.structure.for_unseen(near.unsqueeze(0))[0] if len(near) else torch.zeros(stage.structure.width)
        own = stage.structure.for_known(stage.graph.node_ids[i : i + 1])[0]
        is_own, is_mean = torch.allclose(structure[i], own), torch.allclose(structure[i], mean, atol=1e-6)
        assert is_own or is_mean
        as_unseen += is_mean and not is_own
    assert 10 < as_unseen < 50


def test_each_node_once_per_epoch_with_one_neighbour(tiny_graph: GraphData) -> None:
    """Rows are computed once per node; the indices must lead back to an edge of the graph."""
    stage = _stage(tiny_graph, "gsdn")
    edges = set(zip(*stage.graph.edge_index.tolist(), strict=True))
    train = set(stage.graph.split.train.tolist())
    met: Counter[int] = Counter()
    for batch in EdgeBatches(stage, _generator())():
        ids, plain = batch.nodes.ids, len(batch.source) - batch.labelled
        assert len(ids.unique()) == len(ids)
        assert plain <= 16
        source, target = ids[batch.source].tolist(), ids[batch.target].tolist()
        assert all(pair[::-1] in edges for pair in zip(source, target, strict=True) if pair != (60, 60))
        met.update(source[:plain])
        assert batch.labelled == len(set(source[plain:])) == len(train)
        assert set(source[plain:]) <= train
        assert bool((batch.nodes.labels[batch.source[plain:]] != HIDDEN_LABEL).all())
    assert met == Counter(range(61))


def test_neighbours_are_drawn_anew(dense_graph: GraphData) -> None:
    """All neighbours of a node are met in time, each about as often: 200 epochs of a node with few of them."""
    stage = _stage(dense_graph, "gsdn")
    batches, met = EdgeBatches(stage, _generator()), Counter[int]()
    for _ in range(200):
        for batch in batches():
            ids, plain = batch.nodes.ids, len(batch.source) - batch.labelled
            pairs = zip(ids[batch.source[:plain]].tolist(), ids[batch.target[:plain]].tolist(), strict=True)
            met.update(target for source, target in pairs if source == 30)
    want = set(stage.graph.edge_index[0][stage.graph.edge_index[1] == 30].tolist())
    assert set(met) == want
    assert min(met.values()) > 0.4 * 200 / len(want)


def test_nodes_without_neighbours_meet_themselves(dense_graph: GraphData) -> None:
    """An isolated node, or a graph without any edge."""
    stage = _stage(replace(dense_graph, edge_index=torch.empty(2, 0, dtype=torch.long)), "gsdn")
    for batch in EdgeBatches(stage, _generator())():
        assert torch.equal(batch.source, batch.target)


@pytest.mark.parametrize("fanout", [2, 100])
def test_sampled_neighbours_are_in_neighbours(dense_graph: GraphData, fanout: int) -> None:
    """Each edge of a batch is one of the graph's into one of its own rows, none twice, `fanout` a node at most."""
    stage, _ = make_stage(small_config("lsp"), dense_graph)
    real = {(int(a), int(b)) for a, b in dense_graph.edge_index.T}
    seen: set[int] = set()
    for batch in NodeBatches(stage, _generator(), every=True, fanout=fanout)():
        assert batch.edges is not None
        assert batch.own is not None
        own = batch.ids[: batch.own].tolist()
        seen |= set(own)
        assert len(set(batch.ids.tolist())) == len(batch.ids), "a node must be computed once"
        edges = [
            (int(batch.ids[s]), int(batch.ids[t]))
            for s, t in zip(batch.edges.source.tolist(), batch.edges.target.tolist(), strict=True)
        ]
        assert len(set(edges)) == len(edges)
        assert set(edges) <= real
        for node in own:
            degree = sum(target == node for _, target in real)
            assert sum(target == node for _, target in edges) == min(degree, fanout)
        assert {target for _, target in edges} <= set(own)
    assert seen == set(range(dense_graph.num_nodes))


def test_neighbours_do_not_enter_the_label_terms(dense_graph: GraphData) -> None:
    """Nodes with many neighbours would be learned many times per epoch."""
    stage, spec = make_stage(small_config("lsp", overrides=["student.dropout=0"]), dense_graph)
    student = MLPStudent(spec)
    batch = next(iter(NodeBatches(stage, _generator(), every=True, fanout=5)()))
    values = DistillObjective(student, {"soft": (1.0, SoftLabels()), "local": (1.0, LocalStructure())})(batch)
    alone = RowReader(stage, _generator())(batch.ids[: batch.own])
    want = DistillObjective(student, {"soft": (1.0, SoftLabels())})(alone)
    torch.testing.assert_close(values["soft"], want["soft"])


def test_an_epoch_of_a_large_graph_is_cut_and_drawn_anew(tiny_graph: GraphData) -> None:
    """Without the cut an epoch of a billion nodes never validates; without a new draw the rest is never learned."""
    stage = _stage(tiny_graph)
    stage = replace(stage, train=replace(stage.train, epoch_rows=20, batch_size=8))
    batches = NodeBatches(stage, _generator(), every=True)
    epochs = [[id_ for batch in batches() for id_ in batch.ids.tolist()] for _ in range(30)]
    assert all(len(set(epoch)) == len(epoch) == 20 for epoch in epochs)
    assert len(set().union(*epochs)) == 61
    assert sum(len(batch.source) - batch.labelled for batch in EdgeBatches(stage, _generator())()) == 20


def test_large_graphs_describe_rows_as_unseen_by_the_same_means(tiny_graph: GraphData) -> None:
    """Means made for one batch must be those of the table's rule, and must not be written into the table."""
    stage = _stage(tiny_graph)
    assert stage.structure is not None
    table = stage.structure.rows.clone()
    ids, whole = torch.arange(61), stage.structure.neighbour_means(stage.graph)
    torch.testing.assert_close(stage.structure.neighbour_means(stage.graph, ids.flip(0)), whole.flip(0))
    small, large = (
        RowReader(replace(stage, train=replace(stage.train, as_unseen=0.5, epoch_rows=rows)), _generator())
        for rows in (100, 60)
    )
    expected, found = small(ids).inputs.structure, large(ids).inputs.structure
    torch.testing.assert_close(found, expected)
    assert torch.equal(stage.structure.rows, table)
