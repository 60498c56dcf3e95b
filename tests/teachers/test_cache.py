"""A teacher is trained once, and again whenever anything it depends on has changed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from graph2mlp.data.graph import GraphData
from graph2mlp.errors import KnowledgeError
from graph2mlp.teachers import cache
from graph2mlp.teachers.cache import cache_folder, load_teacher, obtain_teacher, save_teacher
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.models import TEACHERS, build_teacher
from tests.pipeline import same_weights

CONFIG = TeacherConfig(aggregator="mean", hidden=8, epochs=2, burn_in=0, heads=2, steps=2)


class _TrainedError(Exception):
    """Raised in place of a training."""


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise _TrainedError


@pytest.fixture
def graph(dense_graph: GraphData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GraphData:
    """An observed graph and an empty cache."""
    monkeypatch.setenv("GRAPH2MLP_CACHE", str(tmp_path))
    return dense_graph.observed()


@pytest.mark.parametrize("name", TEACHERS)
def test_second_call_does_not_train(name: str, graph: GraphData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten methods on one graph need one teacher; what comes back is the same to the last bit."""
    config = replace(CONFIG, name=name)
    first = obtain_teacher(graph, config, seed=0)
    monkeypatch.setattr(cache, "train_teacher", _refuse)
    second = obtain_teacher(graph, config, seed=0)
    assert (first.cached, second.cached) == (False, True)
    assert same_weights(first.model.state_dict(), second.model.state_dict())
    assert torch.equal(first.knowledge.logits, second.knowledge.logits)
    assert (first.val, first.seconds) == (second.val, second.seconds)
    assert not second.model.training


def _other_features(graph: GraphData) -> GraphData:
    x = graph.x.clone()
    x[20, 3] += 1
    return replace(graph, x=x)


def _other_label(graph: GraphData) -> GraphData:
    y = graph.y.clone()
    y[0] = (y[0] + 1) % 3
    return replace(graph, y=y)


CHANGES = {
    "features": _other_features,
    "label": _other_label,
    "split": lambda graph: replace(graph, split=replace(graph.split, val=graph.split.val[1:])),
    "edges": lambda graph: replace(graph, edge_index=graph.edge_index[:, 2:]),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed_graph_trains_again(what: str, graph: GraphData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stale knowledge is the worst error of all: everything works and the numbers are another graph's."""
    obtain_teacher(graph, CONFIG, seed=0)
    monkeypatch.setattr(cache, "train_teacher", _refuse)
    with pytest.raises(_TrainedError):
        obtain_teacher(CHANGES[what](graph), CONFIG, seed=0)


@pytest.mark.parametrize(
    ("config", "seed"), [(replace(CONFIG, dropout=0.1), 0), (replace(CONFIG, name="gcn"), 0), (CONFIG, 1)]
)
def test_changed_settings_train_again(
    config: TeacherConfig, seed: int, graph: GraphData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every setting is part of what the teacher is."""
    obtain_teacher(graph, CONFIG, seed=0)
    monkeypatch.setattr(cache, "train_teacher", _refuse)
    with pytest.raises(_TrainedError):
        obtain_teacher(graph, config, seed=seed)


@pytest.mark.parametrize("file", ["entry.json", "weights.safetensors", "knowledge.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "missing", "other"])
def test_damaged_entry_is_made_again(file: str, damage: str, graph: GraphData) -> None:
    """A cache entry can always be made again, so damage is no reason to stop; the new one is whole."""
    first = obtain_teacher(graph, CONFIG, seed=0)
    (path,) = cache_folder().rglob(file)
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-9])
    elif file == "entry.json":
        path.write_text("{}")
    else:  # weights and knowledge of two different trainings
        obtain_teacher(graph, CONFIG, seed=1)
        other = next(found for found in cache_folder().rglob(file) if found != path)
        path.write_bytes(other.read_bytes())
    again = obtain_teacher(graph, CONFIG, seed=0)
    assert not again.cached
    assert torch.equal(again.knowledge.logits, first.knowledge.logits)
    assert obtain_teacher(graph, CONFIG, seed=0).cached


def test_training_is_repeatable_and_leaves_the_global_generator_alone(graph: GraphData, tmp_path: Path) -> None:
    """A cached teacher must be exactly the one that training would give, and must not shift what comes after."""
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = obtain_teacher(graph, CONFIG, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    for file in tmp_path.rglob("*.*"):
        file.unlink()
    second = obtain_teacher(graph, CONFIG, seed=0)
    assert not second.cached
    assert same_weights(first.model.state_dict(), second.model.state_dict())


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared machines keep it elsewhere."""
    monkeypatch.setenv("GRAPH2MLP_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("GRAPH2MLP_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "graph2mlp"


def test_auto_keeps_the_better_candidate(graph: GraphData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both aggregators are trained, validation chooses, and what comes back from the cache is the chosen one."""
    both = [obtain_teacher(graph, replace(CONFIG, aggregator=name), seed=0) for name in ("mean", "gcn")]  # type: ignore[arg-type]
    auto = obtain_teacher(graph, replace(CONFIG, aggregator="auto"), seed=0)
    assert auto.val == max(one.val for one in both)
    assert any(same_weights(auto.model.state_dict(), one.model.state_dict()) for one in both)
    monkeypatch.setattr(cache, "train_teacher", _refuse)
    again = obtain_teacher(graph, replace(CONFIG, aggregator="auto"), seed=0)
    assert again.model.config == auto.model.config
    assert torch.equal(again.knowledge.logits, auto.knowledge.logits)


@pytest.mark.parametrize("name", TEACHERS)
def test_saved_teacher_is_rebuilt_from_its_file(name: str, graph: GraphData, tmp_path: Path) -> None:
    """Settings travel with the weights; reading them must not use up the caller's random numbers."""
    teacher = build_teacher(12, 3, replace(CONFIG, name=name, layers=3), node_ids=graph.observed_ids())
    save_teacher(teacher, tmp_path / "w.safetensors")
    state = torch.get_rng_state()
    loaded = load_teacher(tmp_path / "w.safetensors", graph)
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.config == teacher.config
    assert same_weights(loaded.state_dict(), teacher.state_dict())
    assert not loaded.training


@pytest.mark.parametrize("damage", ["missing", "truncated", "another graph", "unknown settings"])
def test_weights_that_do_not_fit_are_refused(damage: str, graph: GraphData, tmp_path: Path) -> None:
    """One line that names the file."""
    from safetensors.torch import save_file

    file = tmp_path / "w.safetensors"
    if damage == "unknown settings":
        save_file({"a": torch.zeros(1)}, file, {"config": '{"name": "sage", "colour": "red"}'})
    elif damage != "missing":
        save_teacher(build_teacher(9 if damage == "another graph" else 12, 3, CONFIG), file)
        if damage == "truncated":
            file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(KnowledgeError, match="w.safetensors is not a teacher of graph 'tiny'") as caught:
        load_teacher(file, graph)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_train_the_same_teacher(
    graph: GraphData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds that run side by side share the cache: neither may read or leave a mixture of two entries."""
    config = TeacherConfig(hidden=8, epochs=2, burn_in=0)
    alone = obtain_teacher(graph, config, seed=0)
    for attempt in range(4):
        monkeypatch.setenv("GRAPH2MLP_CACHE", str(tmp_path / str(attempt)))
        children = []
        for _ in range(3):
            if not (child := os.fork()):
                same = False
                try:
                    found = obtain_teacher(graph, config, seed=0)
                    same = torch.equal(found.knowledge.logits, alone.knowledge.logits)
                finally:
                    os._exit(0 if same else 1)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        kept = obtain_teacher(graph, config, seed=0)
        assert kept.cached
        assert torch.equal(kept.knowledge.logits, alone.knowledge.logits)
        assert not list((tmp_path / str(attempt)).rglob(".*"))
