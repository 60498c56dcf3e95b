"""Equal seeds must give the published splits, or no figure of ours compares with a published one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graph2mlp.data.splits import Split, per_class_split, production_split
from graph2mlp.errors import DataError


def _published_cpf_draw(labels: np.ndarray, seed: int, train: int, val: int) -> tuple[list[int], list[int], list[int]]:
    """The protocol as its text says it, with sets and loops."""
    state = np.random.RandomState(seed)
    remaining = set(range(len(labels)))
    drawn: list[list[int]] = []
    for count in (train, val):
        part: list[int] = []
        for c in range(max(labels) + 1):
            pool = [node for node in sorted(remaining) if labels[node] == c]
            part += list(state.choice(pool, count, replace=False))
        remaining -= set(part)
        drawn.append(sorted(part))
    return drawn[0], drawn[1], sorted(remaining)


@pytest.mark.parametrize("seed", [0, 1, 9])
def test_cpf_draw_equals_the_published_one(seed: int) -> None:
    """Class by class in order, one generator for train and then val, without replacement."""
    labels = np.random.RandomState(3).randint(0, 4, 400)
    split = per_class_split(labels, seed)
    got = tuple(part.tolist() for part in (split.train, split.val, split.test))
    assert got == _published_cpf_draw(labels, seed, 20, 30)


def test_validation_drawn_from_all_classes_together() -> None:
    """`digits` has 300 validation nodes in all, not per class."""
    labels = np.arange(500) % 5
    split = per_class_split(labels, 0, train=20, val_total=300)
    assert (len(split.train), len(split.val), len(split.test)) == (100, 300, 100)


@given(labels=st.lists(st.integers(0, 2), min_size=40, max_size=80), seed=st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=40)
def test_parts_are_disjoint_and_complete(labels: list[int], seed: int) -> None:
    """Every node is in exactly one part, or the draw says why it cannot be made."""
    counts = np.bincount(labels, minlength=max(labels) + 1)
    if counts.min() < 7:
        with pytest.raises(DataError, match="nodes left, but the split needs"):
            per_class_split(np.array(labels), seed, train=4, val=3)
        return
    split = per_class_split(np.array(labels), seed, train=4, val=3)
    together = torch.cat(list(split.parts().values()))
    assert sorted(together.tolist()) == list(range(len(labels)))
    split.check(len(labels))


@pytest.mark.parametrize("seed", [0, 5])
def test_production_split_equals_the_published_one(seed: int) -> None:
    """GLNN seeds torch's global generator and hides the first fifth of a permutation of the test nodes."""
    test = torch.arange(100, 203)
    split = production_split(Split(torch.tensor([0]), torch.tensor([1]), test), seed)
    torch.manual_seed(seed)
    order = torch.randperm(103)
    assert split.unseen.tolist() == sorted(test[order[:20]].tolist())
    assert split.test.tolist() == sorted(test[order[20:]].tolist())
    assert split.train.tolist() == [0]


def test_production_split_leaves_the_global_generator_alone() -> None:
    """Randomness has an owner: a split must not shift the weights that are drawn after it."""
    torch.manual_seed(1)
    want = torch.rand(3)
    torch.manual_seed(1)
    production_split(Split(torch.tensor([0]), torch.tensor([1]), torch.arange(2, 20)), 0)
    assert torch.equal(torch.rand(3), want)


def test_too_few_test_nodes_for_production() -> None:
    """An empty unseen set would report the transductive setting under the wrong name."""
    with pytest.raises(DataError, match="4 test nodes are too few"):
        production_split(Split(torch.tensor([0]), torch.tensor([1]), torch.arange(2, 6)), 0)


def test_relabel_moves_and_drops() -> None:
    """Cutting nodes out of a graph shifts all positions behind them."""
    split = Split(torch.tensor([0]), torch.tensor([2]), torch.tensor([4]), torch.tensor([1]))
    moved = split.relabel(torch.tensor([0, -1, 1, -1, 2]))
    assert [part.tolist() for part in moved.parts().values()] == [[0], [1], [2], []]
