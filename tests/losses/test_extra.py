"""Terms added to any method from the settings."""

from __future__ import annotations

import itertools

import pytest
import torch

from graph2mlp.config import resolve_config
from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError, MethodError
from graph2mlp.losses.extra import LossConfig
from graph2mlp.training.student import answer, train_student
from tests.pipeline import make_stage, run_method, same_weights, small_config

TERMS = ("similarity", "lsp", "gsp", "gcrd")


@pytest.mark.parametrize("method", ["glnn", "nosmog", "lsp", "g_crd"])
@pytest.mark.parametrize("pair", list(itertools.combinations(TERMS, 2)), ids="+".join)
def test_any_pair_goes_with_any_method(method: str, pair: tuple[str, str], dense_graph: GraphData) -> None:
    """No method-specific loops: both terms train, the answer is finite, and the student is another."""
    added = run_method(method, dense_graph, overrides=[f"loss.{name}=0.5" for name in pair])
    logits = answer(added.student, dense_graph, added.table, torch.arange(61))
    assert bool(torch.isfinite(logits).all())
    assert not same_weights(added.weights(), run_method(method, dense_graph).weights())


def test_a_term_without_weight_changes_nothing(dense_graph: GraphData) -> None:
    """Not even which random numbers are drawn: a head that is built draws some."""
    plain = run_method("nosmog", dense_graph)
    zero = run_method("nosmog", dense_graph, overrides=["loss.gcrd=0.0", "loss.tau=0.2", "loss.fanout=3"])
    assert same_weights(plain.weights(), zero.weights())


def test_a_term_needs_a_teacher(dense_graph: GraphData) -> None:
    """Said before anything is trained if the method has none, and by the stage if there is no hidden layer."""
    with pytest.raises(ConfigError, match="loss.gsp compares with a teacher, but method 'gsdn' learns from none"):
        resolve_config(graph="digits", method="gsdn", overrides=["loss.gsp=1"])
    config = small_config("glnn", overrides=["loss.gcrd=1"])
    stage, spec = make_stage(config, dense_graph)
    for teacher in stage.teachers:
        object.__setattr__(teacher, "hidden", {})
    with pytest.raises(MethodError, match="holds logits only"):
        train_student(config.hyper, spec, stage)


@pytest.mark.parametrize("setting", ["gcrd=-1", "lsp=nan", "tau=0", "tau=inf", "fanout=0", "gcdr=1"])
def test_wrong_settings_are_refused(setting: str) -> None:
    """Before the teacher is trained, with the name of the setting."""
    with pytest.raises(ConfigError, match=r"loss\."):
        resolve_config(graph="digits", overrides=[f"loss.{setting}"])


def test_settings_are_kept_with_the_run() -> None:
    """`config.toml` must reproduce the result."""
    config = resolve_config(graph="digits", overrides=["loss.gcrd=0.1", "loss.lsp=2"])
    assert config.loss == LossConfig(gcrd=0.1, lsp=2)
    assert config.loss.used == ["lsp", "gcrd"]
    assert "gcrd = 0.1" in config.to_toml()
