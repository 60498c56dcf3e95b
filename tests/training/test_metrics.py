"""Scores order models, and randomness has an owner."""

from __future__ import annotations

import math

import pytest
import torch

from graph2mlp.data.targets import Classes
from graph2mlp.training.metrics import Score, score
from graph2mlp.training.seed import seeded, stage_seed


def test_accuracy_then_loss() -> None:
    """Among equally accurate models the surer one is better."""
    assert Score(0.6, -9.0) > Score(0.5, -0.1)
    assert Score(0.5, -0.1) > Score(0.5, -0.2)


def test_figures_by_hand() -> None:
    """Three of four right; two models that name the same class twice in four."""
    logits = torch.tensor([[2.0, 0], [0, 1], [3, 1], [0, 1]])
    labels = torch.tensor([0, 1, 1, 1])
    assert Classes().score(logits, labels) == 0.75
    assert score(logits, labels, Classes()).value == 0.75
    want = sum(math.log(1 + math.exp(gap)) for gap in (-2, -1, 2, -1)) / 4
    assert score(logits, labels, Classes()).negative_loss == pytest.approx(-want)
    assert Classes().agreement(logits, logits[[1, 1, 2, 2]]) == 0.5
    assert math.isnan(Classes().score(logits[:0], labels[:0]))


def test_stages_do_not_shift_each_other() -> None:
    """Each stage starts from its own seed, whatever ran before it, and leaves the global state as it was."""
    assert len({stage_seed(seed, stage) for seed in range(20) for stage in ("teacher", "student")}) == 40
    torch.manual_seed(1)
    state = torch.get_rng_state()
    with seeded(3, "student") as generator:
        first = torch.rand(4), torch.rand(4, generator=generator)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(100)
    with seeded(3, "student") as generator:
        again = torch.rand(4, generator=generator)
        assert torch.equal(torch.rand(4), first[0]), "the two generators do not depend on each other"
    assert torch.equal(again, first[1])
    assert not torch.equal(first[0], first[1])
