"""GSDN: golden values, and the whole objective against its formula on plain inputs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graph2mlp.data.features import dense_rows
from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError
from graph2mlp.methods.gsdn import GSDN, pull, push
from graph2mlp.training.batches import EdgeBatch
from tests.graphs import F4
from tests.pipeline import make_stage, run_method, small_config


def test_golden_values(f4: F4) -> None:
    """One edge: y(x_s) = Zt[1], z(m_t) = Zs[0], y(x_t) = Zt[0], z(m_s) = Zs[1], z(x_n) = Zs[3]."""
    y_s, y_t, z_t, z_s, z_n = f4.Zt[1:2], f4.Zt[:1], f4.Zs[:1], f4.Zs[1:2], f4.Zs[3:]
    assert float(pull(y_s, z_t, y_t, z_s)) == pytest.approx(0.666667 + 4.0, abs=1e-6)
    assert float(push(y_s, y_t, z_n)) == pytest.approx(0.0885172 + 0.107990, abs=1e-6)
    assert float(pull(y_s, z_t, y_t, z_s) - push(y_s, y_t, z_n)) == pytest.approx(4.470159, abs=1e-6)


def test_push_is_bounded() -> None:
    """It is subtracted: without the bound of 2 / C per term the loss would have no minimum."""
    sure, opposite = torch.tensor([[100.0, 0, 0]]), torch.tensor([[0, 100.0, 0]])
    assert float(push(sure, sure, opposite)) == pytest.approx(4 / 3)


def test_equal_predictions_cost_nothing(f4: F4) -> None:
    """A constant prediction is the trivial solution; labels have to lead away from it."""
    same = f4.Zs[:1].expand(4, -1)
    assert float(pull(same, same, same, same) - push(same, same, same)) == 0


def _objective(graph: GraphData, **changed: Any) -> tuple[Any, EdgeBatch]:
    """Objective and first batch of a method without noise: no dropout, no norm, the mixer's norm fixed."""
    config = small_config("gsdn", overrides=["student.norm=none", "student.dropout=0", "train.batch_size=64"])
    stage, spec = make_stage(config, graph)
    torch.manual_seed(0)
    method = GSDN(**changed)
    team = method.team(method.student(replace(spec, layers=3)), stage, torch.Generator().manual_seed(0), {})
    objective: Any = team.players[0].objective
    with torch.no_grad():
        objective.mixer.norm.running_mean.uniform_(-1, 1)
    objective.mixer.eval()
    return objective, next(iter(team.batches()))


def test_mixes_leave_the_statistics_of_the_deployed_network_alone(dense_graph: GraphData) -> None:
    """With two norms the first is in the trunk, which the mixes pass through, too."""
    config = small_config("gsdn", overrides=["student.layers=3", "student.norm=batch", "train.batch_size=64"])
    stage, spec = make_stage(config, dense_graph)
    torch.manual_seed(0)
    student = GSDN().student(spec)
    team = GSDN().team(student, stage, torch.Generator().manual_seed(0), {})
    team.players[0].objective(next(iter(team.batches())))
    counts = [int(one.num_batches_tracked) for one in student.modules() if isinstance(one, torch.nn.BatchNorm1d)]
    assert counts == [1, 1]


def _formula(objective: Any, batch: EdgeBatch) -> dict[str, Tensor]:
    """The loss as the spec writes it: rows of features are mixed, then everything is computed per edge."""
    method, student = objective.method, objective.student
    x = dense_rows(batch.nodes.inputs.features)
    x_s, x_t, x_n = x[batch.source], x[batch.target], x[batch.negative]

    def y(rows: Tensor) -> Tensor:
        return student.head(rows @ student.first.weight + student.first.bias).logits

    def z(rows: Tensor) -> Tensor:
        return objective.z_head(student.head(rows @ student.first.weight + student.first.bias).hidden[-1])

    def beta(a: Tensor, b: Tensor) -> Tensor:
        mixer = objective.mixer
        parts = [mixer.norm(rows @ mixer.encode.weight + mixer.encode.bias) for rows in (a, b)]
        return method.rho + (1 - method.rho) * torch.sigmoid(mixer.score(torch.cat(parts, 1)))

    m_t = beta(x_t, x_s) * x_t + (1 - beta(x_t, x_s)) * x_s
    m_s = beta(x_s, x_t) * x_s + (1 - beta(x_s, x_t)) * x_t
    probability = [part.softmax(1) for part in (y(x_s), y(x_t), z(x_n))]
    label = batch.nodes.labels[batch.source]
    labels = sum(F.cross_entropy(logits[-batch.labelled :], label[-batch.labelled :]) for logits in (y(x_s), z(m_t)))
    return {
        "pull": F.mse_loss(y(x_s), z(m_t)) + F.mse_loss(y(x_t), z(m_s)),
        "push": -(F.mse_loss(probability[0], probability[2]) + F.mse_loss(probability[1], probability[2])),
        "labels": method.alpha * labels,
    }


@pytest.mark.parametrize("rho", [0.3, 1.0])
def test_objective_equals_the_formula(rho: float, tiny_graph: GraphData) -> None:
    """Ours computes each node once and mixes behind the first layer; being affine, it must change nothing."""
    objective, batch = _objective(tiny_graph, rho=rho, alpha=0.6)
    got, want = objective(batch), _formula(objective, batch)
    assert got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(
            got[name], want[name], atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    modules = (objective.student, objective.z_head, objective.mixer)
    weights = [parameter for module in modules for parameter in module.parameters()]
    pairs = zip(*(torch.autograd.grad(sum(t.values()), weights) for t in (got, want)), strict=True)
    for ours, exact in pairs:
        torch.testing.assert_close(ours, exact, atol=1e-5, rtol=1e-3)


def test_rho_of_one_does_not_mix(dense_graph: GraphData) -> None:
    """Then m_t = x_t, and the mixing network gets no gradient."""
    objective, batch = _objective(dense_graph, rho=1.0)
    loss = sum(objective(batch).values())
    gradients = torch.autograd.grad(loss, list(objective.mixer.parameters()), allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_direction_of_edges_does_not_matter(dense_graph: GraphData) -> None:
    """Swapping both ends of every edge, with the same random nodes, leaves pull and push as they are."""
    objective, batch = _objective(dense_graph)
    batch = replace(batch, nodes=replace(batch.nodes, labels=torch.zeros_like(batch.nodes.labels)))
    swapped = objective(replace(batch, source=batch.target, target=batch.source))
    for name in ("pull", "push"):
        torch.testing.assert_close(swapped[name], objective(batch)[name])


def test_node_paired_with_itself_is_not_mixed(dense_graph: GraphData) -> None:
    """m = x, so pull is 2 MSE(y(x), z(x)); a node without neighbours is taught that way."""
    objective, batch = _objective(dense_graph, rho=0.2)
    alone = replace(batch, target=batch.source)
    embedded = objective.student.embed(batch.nodes.inputs)
    out = objective.student.head(embedded)
    z = objective.z_head(out.hidden[-1])
    want = 2 * F.mse_loss(out.logits[batch.source], z[batch.source])
    torch.testing.assert_close(objective(alone)["pull"], want)


def test_graph_without_edges_trains(dense_graph: GraphData) -> None:
    """Nothing to distil from, but nothing breaks: labels still teach."""
    graph = replace(dense_graph, edge_index=torch.empty(2, 0, dtype=torch.long))
    assert run_method("gsdn", graph, overrides=["train.epochs=2"]).fitted.epochs == 2


@pytest.mark.parametrize("size", [60, 20, 1])
def test_small_last_batch(size: int, dense_graph: GraphData) -> None:
    """61 nodes leave one in the last batch; batch normalisation has no variance over a single row."""
    overrides = ["train.epochs=2", f"train.batch_size={size}"]
    assert run_method("gsdn", dense_graph, overrides=overrides).fitted.epochs == 2


@pytest.mark.parametrize(
    "values", [{"rho": 0.0}, {"rho": 1.1}, {"alpha": -1}, {"mixer_hidden": 0}, {"mixer_lr": math.inf}]
)
def test_impossible_settings_are_refused(values: dict[str, Any]) -> None:
    """At once, with the values in the message."""
    with pytest.raises(ConfigError, match="gsdn"):
        GSDN(**values)
