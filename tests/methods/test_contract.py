"""What every method promises, whatever its paper. A new method is in these tests as soon as it is in the table."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from graph2mlp.cards import all_cards, method_card
from graph2mlp.config import load_config, resolve_config
from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError, MethodError
from graph2mlp.methods import METHODS, method_class
from graph2mlp.methods.base import Stage
from graph2mlp.students.base import StudentInput
from graph2mlp.training.student import answer, train_student
from tests.graphs import community_graph
from tests.pipeline import make_stage, run_method, same_weights, small_config

pytestmark = pytest.mark.parametrize("method", METHODS)


def test_trains_and_answers(method: str, tiny_graph: GraphData) -> None:
    """On dense and on sparse features, for known nodes, in evaluation mode, with finite numbers."""
    trained = run_method(method, tiny_graph)
    logits = answer(trained.student, tiny_graph, trained.table, torch.arange(61))
    assert logits.shape == (61, 3)
    assert bool(torch.isfinite(logits).all())
    assert not trained.student.training
    assert 1 <= trained.fitted.best_epoch <= trained.fitted.epochs <= 4


def test_learns(method: str, dense_graph: GraphData) -> None:
    """Far above chance (1/3) on the nodes it was trained on; a sign error in a loss shows here."""
    split = replace(dense_graph.split, val=torch.arange(12, 48), test=torch.arange(48, 61))
    graph = replace(dense_graph, split=split)
    trained = run_method(method, graph, overrides=["train.epochs=60", "teacher.epochs=40", "student.hidden=64"])
    logits = answer(trained.student, graph, trained.table, split.train)
    assert float((logits.argmax(1) == graph.y[split.train]).float().mean()) > 0.6


def test_same_seed_same_weights(method: str, tiny_graph: GraphData) -> None:
    """Two runs with one seed on one machine agree in every bit, and another seed is another run."""
    first, again, other = (run_method(method, tiny_graph, seed=seed) for seed in (0, 0, 1))
    assert same_weights(first.weights(), again.weights())
    assert not same_weights(first.weights(), other.weights())


def test_global_generator_is_left_alone(method: str, dense_graph: GraphData) -> None:
    """Nor does it depend on where that one stands."""
    first = run_method(method, dense_graph)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert same_weights(first.weights(), run_method(method, dense_graph).weights())
    assert torch.equal(torch.get_rng_state(), state)


def test_student_ignores_edges(method: str, dense_graph: GraphData) -> None:
    """The whole point: after training all edges may change, and no known node's answer does."""
    trained = run_method(method, dense_graph)
    ids = torch.arange(61)
    before = answer(trained.student, dense_graph, trained.table, ids)
    shuffled = dense_graph.edge_index[:, torch.randperm(dense_graph.num_edges)].flip(0)[:, :50]
    for edges in (shuffled, torch.empty(2, 0, dtype=torch.long)):
        other = replace(dense_graph, edge_index=edges)
        assert torch.equal(answer(trained.student, other, trained.table, ids), before)


def _changed_unseen(graph: GraphData) -> GraphData:
    """Other features, labels and edges for the unseen nodes; all else as it was."""
    unseen = graph.split.unseen
    x, y = graph.x.to_dense().clone(), graph.y.clone()
    x[unseen], y[unseen] = 7.0, (y[unseen] + 1) % 3
    touched = torch.isin(graph.edge_index, unseen).any(0)
    new = torch.stack([unseen.repeat_interleave(3), torch.arange(3 * len(unseen))])
    edges = torch.cat([graph.edge_index[:, ~touched], new, new.flip(0)], 1)
    return replace(graph, x=x.to_sparse_csr() if graph.is_sparse else x, y=y, edge_index=edges)


@pytest.mark.parametrize("sparse", [False, True])
def test_unseen_nodes_leave_no_trace(method: str, sparse: bool) -> None:
    """Production: features, labels and edges of unseen nodes touch neither teacher, structure nor student."""
    graph = community_graph(sparse=sparse, production=True)
    first, second = run_method(method, graph), run_method(method, _changed_unseen(graph))
    assert same_weights(first.weights(), second.weights())
    if first.table is not None:
        assert second.table is not None
        assert torch.equal(first.table.rows, second.table.rows)
        assert torch.equal(first.table.known, second.table.known)


def test_test_labels_leave_no_trace(method: str, dense_graph: GraphData) -> None:
    """Test labels are read once, in the final report."""
    y = dense_graph.y.clone()
    y[dense_graph.split.test] = 0
    first, second = run_method(method, dense_graph), run_method(method, replace(dense_graph, y=y))
    assert same_weights(first.weights(), second.weights())
    assert first.fitted.best == second.fitted.best


def test_validation_labels_select_only(method: str, dense_graph: GraphData) -> None:
    """They may change which epoch is kept, but not what an epoch does: with one epoch nothing changes."""
    config = small_config(method, overrides=["train.epochs=1"])
    stage, spec = make_stage(config, dense_graph)
    y = stage.graph.y.clone()
    y[stage.graph.split.val] = 0
    other = replace(stage, graph=replace(stage.graph, y=y))
    weights = [train_student(config.hyper, spec, one)[0].state_dict() for one in (stage, other)]
    assert same_weights(*weights)


def test_regime_is_what_the_card_says(method: str, dense_graph: GraphData) -> None:
    """Regimes are never mixed in one column, so the label must be true."""
    trained = run_method(method, dense_graph)
    assert trained.student.regime == method_card(method).regime
    assert (trained.table is not None) is method_class(method).reads_structure
    structure = torch.zeros(2, trained.table.width) if trained.table else None
    logits = trained.student(StudentInput(torch.zeros(2, 12), structure)).logits
    assert logits.shape == (2, 3)


def test_needs_a_teacher_or_looks_at_none(method: str, dense_graph: GraphData) -> None:
    """A method without teacher must give the same student when one is at hand; the others must say what is missing."""
    config = small_config(method)
    teachers = make_stage(small_config("glnn"), dense_graph)[0].teachers
    stage, spec = make_stage(config, dense_graph)
    bare: Stage = replace(stage, teachers=())
    if config.hyper.needs_teacher:
        with pytest.raises(MethodError, match="teacher"):
            train_student(config.hyper, spec, bare)
        return
    weights = [
        train_student(config.hyper, spec, one)[0].state_dict() for one in (bare, replace(stage, teachers=teachers))
    ]
    assert same_weights(*weights)


def test_config_round_trip(method: str, tmp_path: Path) -> None:
    """`config.toml` beside a result must reproduce it: every setting, also those that are not defaults."""
    name = fields(method_class(method))
    config = resolve_config(
        graph="cpf:cora", method=method, setting="production", seed=3, root="/data",
        overrides=["teacher.name=gcn", "train.lr=0.0071", "student.norm=batch", "structure.encoder=deepwalk"],
    )  # fmt: skip
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert load_config(tmp_path / "config.toml") == config
    assert config.train.lr == 0.0071
    assert all(field.name in config.to_toml() for field in name)


def test_card_is_complete(method: str) -> None:
    """`graph2mlp methods NAME` is the documentation: paper, formula, shapes, cost, and what can be set."""
    card = method_card(method)
    assert card in all_cards()
    assert card.summary.endswith((".", ":")) or len(card.summary) > 20
    assert card.paper
    assert card.inference
    assert "L = " in card.text or "pull" in card.text
    assert "[B, " in card.text or "[E, " in card.text
    undocumented = [name for name, _, meaning in card.settings if not meaning]
    assert not undocumented, f"settings without a line of documentation: {undocumented}"
    assert {name.split(".")[0] for name, _, _ in card.settings} <= {method}


def test_defaults_of_the_method_are_valid_settings(method: str) -> None:
    """They are applied before the user's; a typing mistake there would break every run of the method."""
    config = resolve_config(graph="digits", method=method)
    for group, values in method_class(method).defaults.items():
        for key, value in values.items():
            assert getattr(getattr(config, group), key) == value
    changed = resolve_config(graph="digits", method=method, overrides=["student.hidden=7"])
    assert changed.student.hidden == 7, "a user's value wins over the method's"


def test_unknown_setting_of_the_method_is_refused(method: str) -> None:
    """A misspelt hyper-parameter that is silently ignored gives a wrong row in a table."""
    with pytest.raises(ConfigError, match=f"Unknown setting '{method}.temprature'"):
        resolve_config(graph="digits", method=method, overrides=[f"{method}.temprature=2"])
