"""Several teachers answer as one: a weighted mean of their calibrated probabilities."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from graph2mlp.data.graph import GraphData
from graph2mlp.data.targets import Classes
from graph2mlp.errors import ConfigError, KnowledgeError
from graph2mlp.teachers import train
from graph2mlp.teachers.cache import load_teacher, obtain_teacher, save_teacher
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.ensemble import Ensemble
from graph2mlp.teachers.models import build_teacher
from graph2mlp.teachers.serving import TeacherServer
from graph2mlp.training.loop import EpochLog
from tests.graphs import task_graph
from tests.pipeline import same_weights
from tests.teachers.test_serving import random_graph

CONFIG = TeacherConfig(aggregator="mean", hidden=8, epochs=4, burn_in=0, heads=2, steps=3)
CONFIG_GCN = replace(CONFIG, name="gcn")


@pytest.fixture
def graph(dense_graph: GraphData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GraphData:
    """An observed graph and an empty cache."""
    monkeypatch.setenv("GRAPH2MLP_CACHE", str(tmp_path / "cache"))
    return dense_graph.observed()


def _ensemble(name: str = "sage+gcn+gat+appnp", *, sage: str = "mean", **changed: Any) -> Ensemble:
    """Members with random weights."""
    torch.manual_seed(0)
    config = replace(CONFIG, name=name, aggregator=sage, **changed)
    return Ensemble([build_teacher(12, 3, one).eval() for one in config.members()]).eval()


@torch.no_grad()
def _answers(teacher: Any, graph: GraphData) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    answers: tuple[torch.Tensor, tuple[torch.Tensor, ...]] = teacher(graph.features(), teacher.adjacency(graph))
    return answers


@pytest.mark.parametrize("sage", ["mean", "gcn"])
def test_mean_of_probabilities_by_hand(sage: str, tiny_graph: GraphData) -> None:
    """Each member must read its own normalisation out of the common matrix, and probabilities, not logits, are meant:
    the mean of logits would let the surest member decide."""
    ensemble = _ensemble(sage=sage)
    logits, _hidden = _answers(ensemble, tiny_graph)
    probabilities = [_answers(member, tiny_graph)[0].softmax(1) for member in ensemble.teachers()]
    torch.testing.assert_close(logits.softmax(1), sum(probabilities) / 4, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(61), atol=1e-6, rtol=0)


def test_calibrated_mean_by_hand(tiny_graph: GraphData) -> None:
    """Weights and temperatures must be those of the member they were fitted to, and travel with the network's state."""
    ensemble = _ensemble("gcn+appnp+sage")
    ensemble.sharpness.copy_(torch.tensor([0.5, 2.0, 1.0]))
    ensemble.weights.copy_(torch.tensor([0.2, 0.7, 0.1]))
    logits, _hidden = _answers(ensemble, tiny_graph)
    own = [_answers(member, tiny_graph)[0] for member in ensemble.teachers()]
    want = 0.2 * (own[0] * 0.5).softmax(1) + 0.7 * (own[1] * 2).softmax(1) + 0.1 * own[2].softmax(1)
    torch.testing.assert_close(logits.softmax(1), want, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_weights_of_labels_and_quantities_are_fitted_too(task: str) -> None:
    """A member that knows nothing must not have the weight of one that does."""
    graph = task_graph(task)
    members = [build_teacher(12, graph.num_classes, CONFIG_GCN, targets=graph.targets) for _ in range(2)]
    ensemble = Ensemble(members)
    val = graph.split.val
    y = graph.y[val].float()
    good = 4 * y - 2 if task == "multilabel" else y + 0.1 * y.std(0)
    ensemble.calibrate(
        [good, good[torch.randperm(len(good), generator=torch.Generator().manual_seed(0))]], graph.y[val]
    )
    assert float(ensemble.weights[0]) > 0.8
    assert float(ensemble.weights.sum()) == pytest.approx(1)
    assert ensemble.sharpness.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("calibrate", [True, False])
def test_calibration_is_a_setting_of_the_ensemble_alone(graph: GraphData, calibrate: bool) -> None:
    """Switching it must not train a member again, and without it the answer is the plain mean."""
    config = replace(CONFIG, name="gcn+appnp")
    first = obtain_teacher(graph, config, seed=0)
    other = obtain_teacher(graph, replace(config, calibrate=calibrate), seed=0)
    assert other.cached
    plain = torch.full((2,), 0.5)
    assert isinstance(other.model, Ensemble)
    assert torch.equal(other.model.weights, plain) is not calibrate
    assert torch.equal(other.knowledge.logits, first.knowledge.logits) is calibrate


def test_no_label_but_those_of_validation_fits_the_weights(graph: GraphData) -> None:
    """Weights fitted to test labels would make every figure after them worthless."""
    config = replace(CONFIG, name="gcn+appnp")
    first = obtain_teacher(graph, config, seed=0).model
    y = graph.y.clone()
    y[graph.split.test] = (y[graph.split.test] + 1) % graph.num_classes
    changed = obtain_teacher(replace(graph, y=y), config, seed=0).model
    assert same_weights(first.state_dict(), changed.state_dict())


def test_logits_stay_finite_when_members_are_certain(dense_graph: GraphData) -> None:
    """A probability that underflows to 0 in all members must not become the logarithm of 0."""
    ensemble = _ensemble("gcn+appnp")
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter.mul_(100)
    logits, _hidden = _answers(ensemble, dense_graph)
    assert float(logits.min()) < -200
    assert bool(torch.isfinite(logits).all())


def test_cosines_of_hidden_rows_are_the_mean_of_the_members(dense_graph: GraphData) -> None:
    """A member with large numbers must not outweigh the others in a loss that compares rows."""
    ensemble = _ensemble()
    with torch.no_grad():
        ensemble.teachers()[1].convs[0].lin.weight.mul_(50)  # type: ignore[union-attr]
    _logits, (hidden,) = _answers(ensemble, dense_graph)
    assert hidden.shape == (61, 4 * 8)
    own = [F.normalize(_answers(member, dense_graph)[1][-1], dim=1) for member in ensemble.teachers()]
    rows = [0, 1, 2, 20, 40]  # node 5 has no words, so that sage knows nothing of it but its neighbours
    want = sum(one[rows] @ one[rows].T for one in own) / 4
    got = F.normalize(hidden[rows], dim=1)
    torch.testing.assert_close(got @ got.T, want, atol=1e-5, rtol=0)


def test_members_without_hidden_layer(dense_graph: GraphData) -> None:
    """One layer of weights has nothing hidden; then the ensemble says so, and methods that need it can refuse."""
    assert _answers(_ensemble("sage+gcn", layers=1), dense_graph)[1] == ()


def test_member_trained_alone_is_used_again(graph: GraphData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is the expensive part: one teacher more costs one training, the other way round none."""
    alone = obtain_teacher(graph, replace(CONFIG, name="appnp"), seed=3)
    trained: list[str] = []
    whole = train.train_teacher

    def watched(graph: GraphData, config: TeacherConfig, **named: Any) -> Any:
        trained.append(config.name)
        return whole(graph, config, **named)

    monkeypatch.setattr("graph2mlp.teachers.cache.train_teacher", watched)
    both = obtain_teacher(graph, replace(CONFIG, name="gcn+appnp"), seed=3)
    assert trained == ["gcn"]
    assert [one.cached for one in both.members] == [False, True]
    assert not both.cached
    assert both.seconds == sum(one.seconds for one in both.members)
    assert both.cpu_seconds == sum(one.cpu_seconds or 0.0 for one in both.members) > 0
    assert same_weights(both.members[1].model.state_dict(), alone.model.state_dict())
    assert obtain_teacher(graph, replace(CONFIG, name="gcn"), seed=3).cached
    again = obtain_teacher(graph, replace(CONFIG, name="gcn+appnp"), seed=3)
    assert again.cached
    assert again.val == both.val == Classes().score(again.knowledge.logits[graph.split.val], graph.y[graph.split.val])
    assert again.knowledge.weights == both.knowledge.weights
    assert torch.equal(again.knowledge.logits, both.knowledge.logits)
    assert trained == ["gcn"]


def test_old_entries_without_cpu_seconds_are_still_used(graph: GraphData, tmp_path: Path) -> None:
    """The cost of a teacher from an older version is not known; that is no reason to train it again."""
    config = replace(CONFIG, name="gcn+appnp")
    obtain_teacher(graph, config, seed=0)
    entry = next((tmp_path / "cache").rglob("entry.json"))
    entry.write_text(json.dumps({k: v for k, v in json.loads(entry.read_text()).items() if k != "cpu_seconds"}))
    again = obtain_teacher(graph, config, seed=0)
    assert again.cached
    assert again.cpu_seconds is None


def test_repeated_names_are_different_trainings(graph: GraphData) -> None:
    """Twice the same network would be one teacher at double price; nor may seed 0's second be seed 1's first."""
    config = replace(CONFIG, name="gcn+gcn+gcn")
    names: list[str] = []

    def log(name: str) -> EpochLog:
        names.append(name)
        return lambda epoch, figures: None

    trained = [obtain_teacher(graph, config, seed=seed, log=log) for seed in (0, 1)]
    prints = [one.knowledge.weights for ensemble in trained for one in ensemble.members]
    assert len(set(prints)) == 6
    assert names == ["gcn", "gcn copy-2", "gcn copy-3"] * 2, "each has its own lines and checkpoint"
    assert obtain_teacher(graph, config, seed=0).cached
    assert trained[0].members[0].knowledge.weights == obtain_teacher(graph, CONFIG_GCN, seed=0).knowledge.weights


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("appnp+gnc", r"Unknown teacher 'gnc' in 'appnp\+gnc' \(teacher.name\). Did you mean 'gcn'?"),
        ("appnp+", r"Unknown teacher '' in 'appnp\+' \(teacher.name\). Known: appnp, gat, gcn, gcn_se, sage"),
        ("appnp + gcn", r"Unknown teacher 'appnp ' in 'appnp \+ gcn'.* Did you mean 'appnp'?"),
        ("+".join(["gcn"] * 9), r"joins 9 teachers, expected at most 8 \(got 'gcn\+.*Name fewer"),
    ],
)
def test_names_are_checked(name: str, message: str) -> None:
    """A typing mistake in the last name must not show after the others are trained."""
    with pytest.raises(ConfigError, match=message):
        TeacherConfig(name=name)


def test_settings_are_checked_for_every_member() -> None:
    """What only one member cannot take is said before another one is trained."""
    with pytest.raises(ConfigError, match="multiple of teacher.heads"):
        TeacherConfig(name="appnp+gat", hidden=10, heads=4)


def test_ensemble_is_not_one_network() -> None:
    """Settings that name several networks cannot be built as one."""
    with pytest.raises(ConfigError, match=r"names several networks; build one of config.members\(\)"):
        build_teacher(12, 3, replace(CONFIG, name="gcn+appnp"))


def test_saved_ensemble_is_rebuilt_from_its_file(graph: GraphData, tmp_path: Path) -> None:
    """Two members called sage may have different aggregators, so each one's settings travel with the weights."""
    pair = [build_teacher(12, 3, replace(CONFIG, aggregator=name)) for name in ("gcn", "mean")]  # type: ignore[arg-type]
    ensemble = Ensemble([*pair, build_teacher(12, 3, CONFIG_GCN)]).eval()
    save_teacher(ensemble, tmp_path / "w.safetensors")
    state = torch.get_rng_state()
    loaded = load_teacher(tmp_path / "w.safetensors", graph)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(loaded, Ensemble)
    assert loaded.config.name == "sage+sage+gcn"
    assert [one.config for one in loaded.teachers()] == [one.config for one in ensemble.teachers()]
    assert same_weights(loaded.state_dict(), ensemble.state_dict())
    assert not any(module.training for module in loaded.modules())
    assert torch.equal(_answers(loaded, graph)[0], _answers(ensemble, graph)[0])


def test_file_of_an_empty_ensemble_is_refused(graph: GraphData, tmp_path: Path) -> None:
    """A damaged header is one line that names the file."""
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", {"config": "[]"})
    with pytest.raises(KnowledgeError, match="w.safetensors is not a teacher of graph 'tiny'"):
        load_teacher(tmp_path / "w.safetensors", graph)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("name", ["sage+gcn+gat+appnp", "gat+gat", "gcn+sage"])
def test_served_part_equals_the_whole_graph(name: str, sparse: bool) -> None:
    """The server cuts the neighbourhood out once for all members; each must find its full-graph answer in it."""
    graph, ensemble = random_graph(sparse=sparse), _ensemble(name)
    assert ensemble.hops == (3 if "appnp" in name else 2)
    server = TeacherServer(graph, ensemble)
    expected = _answers(ensemble, graph)[0]
    for batch in ([0], [79], [3, 0, 79, 3], list(range(80)), *[[i] for i in range(5, 20)]):
        ids = np.array(batch)
        for answer in (server.logits, server.pyg_logits, server.whole_graph_logits):
            torch.testing.assert_close(answer(ids), expected[ids], atol=1e-5, rtol=0)
