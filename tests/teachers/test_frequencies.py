"""Class frequencies of all nodes from a teacher of nodes drawn class by class, against what they are defined as."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from graph2mlp.data.graph import GraphData
from graph2mlp.teachers import frequencies
from graph2mlp.teachers.cache import load_teacher, obtain_teacher, save_teacher
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.ensemble import Ensemble
from graph2mlp.teachers.extract import answer_all
from graph2mlp.teachers.frequencies import (
    RIDGE,
    class_frequencies,
    fit_bias,
    frequency_shift,
    largest_change,
    sampled_nodes,
)
from graph2mlp.teachers.stacking import SHARPNESS

CONFIG = TeacherConfig(hidden=8, epochs=4, burn_in=0, steps=3)
TRUE = torch.tensor([0.6, 0.25, 0.1, 0.05])
"""Frequencies of four classes in the population; labels are drawn equally from each."""


@pytest.fixture
def graph(dense_graph: GraphData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GraphData:
    """An observed graph and an empty cache."""
    monkeypatch.setenv("GRAPH2MLP_CACHE", str(tmp_path / "cache"))
    return dense_graph.observed()


def _population(nodes: int, separation: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of a teacher that assumes equal classes and is right about them, the classes, and ids of 20 of each.

    Features are normal around the class's corner, so the logits of equal classes are the features times `separation`.
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.multinomial(TRUE, nodes, replacement=True, generator=generator)
    x = separation * F.one_hot(y, 4).float() + torch.randn(nodes, 4, generator=generator)
    labelled = torch.cat([torch.nonzero(y == c).squeeze(1)[:20] for c in range(4)])
    return separation * x, y, labelled


@pytest.mark.parametrize("separation", [1.0, 2.0, 4.0])
def test_frequencies_of_a_known_population_are_found(separation: float) -> None:
    """The estimate must come near the truth, from equal classes, even where a teacher is often wrong."""
    logits, y, labelled = _population(20_000, separation)
    found = class_frequencies(logits.softmax(1), torch.full((4,), 0.25), y, labelled)
    assert float(found.sum()) == pytest.approx(1)
    torch.testing.assert_close(found.float(), TRUE, atol=0.02, rtol=0)


def test_frequencies_maximise_the_likelihood() -> None:
    """At the estimate no small step towards a class makes the nodes likelier (one node more of each class included)."""
    logits, y, labelled = _population(500, 1.5)
    p, assumed = logits.softmax(1).double(), torch.tensor([0.4, 0.3, 0.2, 0.1])
    unlabelled = torch.ones(500, dtype=torch.bool)
    unlabelled[labelled] = False

    def likelihood(pi: torch.Tensor) -> float:
        mixed = (p[unlabelled] / assumed * pi).sum(1).log().sum()
        return float(mixed + pi[y[labelled]].log().sum() + pi.log().sum())

    found = class_frequencies(p, assumed, y, labelled)
    for step in (1e-2, -1e-2):
        for one in range(4):
            moved = found * (1 - step)
            moved[one] += step
            assert likelihood(moved) < likelihood(found)


def test_a_large_graph_is_known_from_some_of_its_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of some counts for several, but a label for itself: five thousand must not weigh as seven times as many."""
    logits, y, _few = _population(40_000, 2.0)
    labelled = torch.cat([torch.nonzero(y[:20_000] == 1).squeeze(1), torch.arange(50)]).unique()
    assumed = torch.full((4,), 0.25)
    whole = class_frequencies(logits.softmax(1), assumed, y, labelled)
    monkeypatch.setattr(frequencies, "_NODES", 5_000)
    asked, each = sampled_nodes(len(y), labelled)
    assert len(asked) == len(labelled) + 5_000
    places = torch.searchsorted(asked, labelled)
    some = class_frequencies(logits[asked].softmax(1), assumed, y[asked], places, each=each)
    torch.testing.assert_close(some, whole, atol=0.01, rtol=0)
    assert not torch.equal(some, whole)


def test_a_small_graph_is_asked_whole() -> None:
    asked, each = sampled_nodes(7, torch.tensor([5, 2]))
    assert asked.tolist() == list(range(7))
    assert each == 1


def test_labels_of_no_other_node_are_read() -> None:
    """The classes of test nodes are in `y` of some callers; reading one would make every figure worthless."""
    logits, y, labelled = _population(500, 1.5)
    other = torch.full_like(y, -1)
    other[labelled] = y[labelled]
    one, two = (frequency_shift(logits, truth, labelled, labelled) for truth in (y, other))
    assert one[0] == two[0]
    assert torch.equal(one[1], two[1])


def test_bias_is_the_minimum_of_its_objective() -> None:
    logits, y, labelled = _population(500, 1.5)
    logits, y = logits[labelled].double(), y[labelled]

    def objective(scale: float, bias: torch.Tensor) -> float:
        ridge = (scale - 1) ** 2 + float(bias.square().sum())
        return float(F.cross_entropy(scale * logits + bias, y)) + RIDGE * ridge

    scale, bias = fit_bias(logits.float(), y)
    best = objective(scale, bias.double())
    for step in (1e-2, -1e-2):
        assert objective(scale + step, bias.double()) > best
        for one in range(4):
            assert objective(scale, bias.double() + step * F.one_hot(torch.tensor(one), 4)) > best


def test_wrong_answers_are_not_turned_round() -> None:
    """A teacher that is mostly wrong on validation nodes is a bad teacher, not the opposite of one."""
    y = torch.arange(40) % 4
    assert fit_bias(-5 * F.one_hot(y, 4).float(), y)[0] == SHARPNESS[0]


@pytest.mark.parametrize("y", [torch.arange(4), torch.zeros(4, dtype=torch.long)])
def test_few_nodes_and_missing_classes_leave_numbers(y: torch.Tensor) -> None:
    """All answers right, or validation nodes of one class only: no scale and no shift may become infinite."""
    every = torch.arange(4)
    scale, shift = frequency_shift(50 * torch.eye(4), y, every, every)
    assert 0 < scale < 10
    assert bool(torch.isfinite(shift).all())


def test_answers_improve_where_labels_were_drawn_class_by_class() -> None:
    """What it is for: the same teacher, told how frequent the classes are, is right more often."""
    logits, y, labelled = _population(20_000, 1.5)
    scale, shift = frequency_shift(logits, y, labelled, labelled)
    before = float((logits.argmax(1) == y).double().mean())
    after = float(((scale * logits + shift).argmax(1) == y).double().mean())
    best = float(((logits + TRUE.log()).argmax(1) == y).double().mean())
    assert after - before > 0.05
    assert best - after < 0.02


def test_the_class_that_changed_most_is_named() -> None:
    logits = torch.tensor([0.7, 0.2, 0.1]).log().expand(50, 3)
    found = largest_change(logits, torch.tensor([0, 1, 2, 2]), ["a", "b", "c"])
    assert found["class"] == "a"
    assert found["labelled"] == pytest.approx(0.25)
    assert found["observed"] == pytest.approx(0.7)
    assert found["moved"] == pytest.approx(0.45)


@pytest.mark.parametrize("name", ["gcn", "gcn+appnp"])
def test_the_setting_changes_the_answer_alone(graph: GraphData, name: str, tmp_path: Path) -> None:
    """No member is trained again; one teacher works like several; a kept teacher answers as it did."""
    config = replace(CONFIG, name=name)
    first = obtain_teacher(graph, config, seed=0)
    told = obtain_teacher(graph, replace(config, frequencies="observed"), seed=0)
    assert told.cached
    assert isinstance(told.model, Ensemble)
    assert not torch.equal(told.knowledge.logits, first.knowledge.logits)
    save_teacher(told.model, tmp_path / "teacher.safetensors")
    kept = load_teacher(tmp_path / "teacher.safetensors", graph)
    torch.testing.assert_close(answer_all(kept, graph)[0], told.knowledge.logits)
    before = graph.targets.score(first.knowledge.logits[graph.split.val], graph.y[graph.split.val])
    assert told.val_as_labelled == pytest.approx(before)
    for layer, hidden in first.knowledge.hidden.items():
        assert torch.equal(told.knowledge.hidden[layer], hidden)
    scale, shift = told.model.scale, told.model.shift
    raw = (told.knowledge.logits - shift) / scale
    labelled = torch.cat([graph.split.train, graph.split.val])
    want = frequency_shift(raw, graph.y, graph.split.val, labelled)
    assert float(scale) == pytest.approx(want[0], abs=1e-3)
    torch.testing.assert_close(shift, want[1], atol=1e-2, rtol=0)


def test_a_teacher_kept_before_there_was_a_shift_opens(graph: GraphData, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    told = obtain_teacher(graph, replace(CONFIG, name="gcn+appnp"), seed=0)
    path = tmp_path / "teacher.safetensors"
    save_teacher(told.model, path)
    with safe_open(path, framework="pt") as file:
        old = {name: file.get_tensor(name) for name in file.keys() if name not in {"scale", "shift"}}  # noqa: SIM118
        about = file.metadata()
    save_file(old, path, about)
    torch.testing.assert_close(answer_all(load_teacher(path, graph), graph)[0], told.knowledge.logits)
