"""Alignahead: golden values, the whole objective against its formula, and who may learn from whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError
from graph2mlp.kernels import NeighbourIndex
from graph2mlp.kernels.functional import lsp
from graph2mlp.losses.base import Batch
from graph2mlp.methods.alignahead import Alignahead, align_features, align_structure
from graph2mlp.methods.base import Team
from graph2mlp.students.mlp import MLPStudent
from tests.graphs import F4
from tests.pipeline import make_stage, run_method, same_weights, small_config


def _layers(f4: F4) -> tuple[list[Tensor], list[Tensor], NeighbourIndex]:
    """Hidden layers of a learner and of a peer, and the graph, as the golden values have them."""
    return [f4.T, f4.S, f4.T + f4.S], [f4.S, f4.T, 2 * f4.T], NeighbourIndex.from_edge_index(f4.edges, 4)


@pytest.mark.parametrize(
    ("offset", "layers"),
    [
        (1, [0, 0.00171457, 0.00273404]),
        (-1, [0.000607070, 0, 0.00101333]),
        (0, [0.000938886, 0.000938061, 0.000349370]),
    ],
)
def test_golden_values(offset: int, layers: list[float], f4: F4) -> None:
    """Mean over nodes; the sum over layers is what is minimised, the single ones show which copies which."""
    learner, peer, edges = _layers(f4)
    for number, want in enumerate(layers):
        target = peer[(number + offset) % 3]
        assert float(lsp(learner[number], target, edges, kernel="rbf")) == pytest.approx(want, rel=1e-5)
    got = align_structure(learner, [peer], edges, offset=offset, kernel="rbf")
    assert float(got) == pytest.approx(sum(layers), rel=1e-5)


def test_features_by_hand() -> None:
    """Two layers of two nodes: layer 0 copies layer 1 of the peer and the other way round."""
    learner = [torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([[1.0, 0], [1, 0]])]
    peer = [torch.tensor([[0.0, 2], [3, 0]]), torch.tensor([[-1.0, 0], [0, 5]])]
    # layer 0 against (-1, 0), (0, 5): 1 - (-1), 1 - 1; layer 1 against (0, 2), (3, 0): 1 - 0, 1 - 1
    assert float(align_features(learner, [peer], offset=1)) == pytest.approx((2 + 0) / 2 + (1 + 0) / 2)
    assert float(align_features(learner, [learner], offset=0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_equal_peers_of_the_same_depth_teach_nothing(offset: int, f4: F4) -> None:
    """What circulates is the difference between depths: without an offset equal peers have loss and gradient 0."""
    learner, _, edges = _layers(f4)
    leaves = [layer.clone().requires_grad_() for layer in learner]
    loss = align_structure(leaves, [learner], edges, offset=offset)
    gradients = torch.autograd.grad(loss, leaves)
    assert (float(loss.detach()) < 1e-12) is (offset == 0)
    assert all(float(gradient.abs().max()) < 1e-6 for gradient in gradients) is (offset == 0)


def test_one_layer_has_no_offset(f4: F4) -> None:
    """The cycle has one place."""
    edges = NeighbourIndex.from_edge_index(f4.edges, 4)
    for offset in (-1, 0, 1):
        assert float(align_structure([f4.S], [[f4.T]], edges, offset=offset)) == pytest.approx(0.0734939, rel=1e-5)


def test_number_and_order_of_peers_do_not_matter(f4: F4) -> None:
    """The mean over peers: a peer that stands twice in the group weighs no more than before."""
    learner, peer, edges = _layers(f4)
    other = [f4.Zt, f4.Zs, f4.S]
    one, twice = (align_structure(learner, peers, edges, offset=1) for peers in ([peer], [peer, peer]))
    torch.testing.assert_close(one, twice)
    there, back = (align_structure(learner, peers, edges, offset=1) for peers in ([peer, other], [other, peer]))
    torch.testing.assert_close(there, back)
    torch.testing.assert_close(*(align_features(learner, peers, offset=1) for peers in ([peer], [peer, peer])))


def _team(graph: GraphData, **changed: Any) -> tuple[Team, Batch]:
    """The group without dropout, and its first batch: 16 rows and some of their neighbours."""
    config = small_config("alignahead", overrides=["student.dropout=0", "loss.fanout=3"])
    stage, spec = make_stage(config, graph)
    torch.manual_seed(0)
    method = Alignahead(**changed)
    team = method.team(method.student(spec), stage, torch.Generator().manual_seed(0), {})
    batch = next(iter(team.batches()))
    return team, replace(batch, labels=torch.arange(len(batch.ids)) % 3)


def _formula(objective: Any, batch: Batch) -> dict[str, Tensor]:
    """The loss as the class writes it, with one other peer, over the batch's own rows."""
    method, (other,), own = objective.method, objective.others, batch.own
    assert own is not None
    assert batch.edges is not None
    out, taught = objective.peer(batch), other.teach(batch)
    layers = len(out.hidden)
    pairs = [(out.hidden[each], taught.hidden[(each + method.offset) % layers]) for each in range(layers)]
    labels = batch.labels[:own]
    heads = [head(layer[:own].relu()) for head, layer in zip(objective.heads, out.hidden, strict=True)]
    log_p, target = out.logits[:own].log_softmax(1), taught.logits[:own].softmax(1)
    values = {
        "structure": method.structure * sum(lsp(mine, theirs, batch.edges) for mine, theirs in pairs),
        "labels": F.cross_entropy(out.logits[:own], labels),
        "auxiliary": method.auxiliary * sum(F.cross_entropy(logits, labels) for logits in heads),
        "feature": method.feature
        * sum((1 - F.cosine_similarity(mine[:own], theirs[:own])).mean() for mine, theirs in pairs),
        "soft": method.soft * F.kl_div(log_p, target, reduction="batchmean"),
    }
    return {name: torch.as_tensor(value) for name, value in values.items()}


@pytest.mark.parametrize("offset", [-1, 1])
def test_objective_equals_the_formula(offset: Any, tiny_graph: GraphData) -> None:
    """For the MLP and for the GNN; sampled neighbours take part in the structure term only."""
    weights = {"structure": 0.7, "feature": 0.9, "auxiliary": 0.2, "soft": 0.4}
    team, batch = _team(tiny_graph, offset=offset, **weights)
    team.players[1].modules["model"].config = replace(team.players[1].modules["model"].config, input_dropout=0)
    for player in team.players:
        got, want = player.objective(batch), _formula(player.objective, batch)
        assert got.keys() == want.keys()
        for name in want:
            where = f"{player.name}.{name}"
            torch.testing.assert_close(got[name], want[name], msg=lambda text, where=where: f"{where}: {text}")


@pytest.mark.parametrize("gnn_peers", [0, 1, 2])
def test_only_the_learner_gets_a_gradient(gnn_peers: int, dense_graph: GraphData) -> None:
    """Peers are read as they are; a gradient into them would train two networks to meet half-way."""
    team, batch = _team(dense_graph, peers=3, gnn_peers=gnn_peers)
    for player in team.players:
        torch.autograd.backward(sum(player.objective(batch).values()))
        for other in team.players:
            weights = [weight for module in other.modules.values() for weight in module.parameters()]
            assert all((weight.grad is not None) is (other is player) for weight in weights)
            for weight in weights:
                weight.grad = None


@pytest.mark.parametrize("gnn", ["gcn", "sage"])
def test_the_group_is_what_was_asked_for(gnn: Any, dense_graph: GraphData) -> None:
    """MLPs first, the deployed one at their head; GNNs as deep and wide as they are."""
    team, batch = _team(dense_graph, peers=4, gnn_peers=2, gnn=gnn)
    models = [player.modules["model"] for player in team.players]
    assert [isinstance(model, MLPStudent) for model in models] == [True, True, False, False]
    shapes = [[layer.shape for layer in player.objective.peer(batch).hidden] for player in team.players]
    assert all(each == shapes[0] for each in shapes)
    weights = [next(model.parameters()) for model in models[:2]]
    assert not torch.equal(*weights), "peers that start alike stay alike"


def test_teaching_leaves_no_trace(dense_graph: GraphData) -> None:
    """Neither in the statistics of batch normalisation nor in the mode; and without dropout, so twice is the same."""
    config = small_config("alignahead", overrides=["student.norm=batch"])
    stage, spec = make_stage(config, dense_graph)
    method = Alignahead()
    team = method.team(method.student(spec), stage, torch.Generator().manual_seed(0), {})
    batch = next(iter(team.batches()))
    for player in team.players:
        model, peer = player.modules["model"], player.objective.peer
        before = {name: value.clone() for name, value in model.state_dict().items()}
        first, second = peer.teach(batch), peer.teach(batch)
        assert torch.equal(first.logits, second.logits)
        assert not first.logits.requires_grad
        assert model.training
        assert same_weights(before, model.state_dict())


@pytest.mark.parametrize("off", ["structure", "feature", "auxiliary", "soft"])
def test_a_weight_of_zero_leaves_the_term_out(off: str, dense_graph: GraphData) -> None:
    """Also its heads and its sampled neighbours: what cannot matter must cost nothing."""
    team, batch = _team(dense_graph, **{off: 0.0})
    for player in team.players:
        assert off not in player.objective(batch)
        assert (len(player.modules["heads"]) == 0) is (off == "auxiliary")
    assert (batch.own is None) is (off == "structure")


def test_heads_are_not_exported(dense_graph: GraphData) -> None:
    """They change what is learned, but the deployed network has the same parts."""
    with_heads = run_method("alignahead", dense_graph)
    without = run_method("alignahead", dense_graph, overrides=["alignahead.auxiliary=0"])
    assert with_heads.weights().keys() == without.weights().keys()
    assert not same_weights(with_heads.weights(), without.weights())


@pytest.mark.parametrize("gnn_peers", [0, 2])
def test_other_groups_are_repeatable(gnn_peers: int, tiny_graph: GraphData) -> None:
    """The contract holds for groups other than the default one too."""
    overrides = ["alignahead.peers=3", f"alignahead.gnn_peers={gnn_peers}", "student.norm=batch"]
    first, again = (run_method("alignahead", tiny_graph, overrides=overrides) for _ in range(2))
    assert same_weights(first.weights(), again.weights())


def test_graph_without_edges_trains(dense_graph: GraphData) -> None:
    """There is no structure to align; labels and the peers' features still teach."""
    graph = replace(dense_graph, edge_index=torch.empty(2, 0, dtype=torch.long))
    assert run_method("alignahead", graph, overrides=["train.epochs=2"]).fitted.epochs == 2


@pytest.mark.parametrize(
    "values",
    [
        {"peers": 1, "gnn_peers": 0},
        {"gnn_peers": 2},
        {"gnn_peers": -1},
        {"structure": -1.0},
        {"soft": float("inf")},
        {"feature": float("nan")},
        {"structure": 0.0, "feature": 0.0, "soft": 0.0},
    ],
)
def test_impossible_settings_are_refused(values: dict[str, Any]) -> None:
    """At once, with the values in the message."""
    with pytest.raises(ConfigError, match="alignahead"):
        Alignahead(**values)


def test_every_batch_holds_labelled_nodes(dense_graph: GraphData) -> None:
    """Where they are few, soft labels of networks that know nothing yet would otherwise outweigh them."""
    config = small_config("alignahead", overrides=["train.batch_size=12"])
    stage, spec = make_stage(config, dense_graph)
    generator = torch.Generator().manual_seed(0)
    team = config.hyper.team(config.hyper.student(spec), stage, generator, {})
    assert team is not None
    batches = list(team.batches())
    assert len(batches) > 1
    assert all(torch.isin(stage.graph.split.train, batch.ids).all() for batch in batches)
