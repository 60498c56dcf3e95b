"""Equal seeds must give the published splits, or no figure of ours compares with a published one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graph2mlp.data.splits import Split, per_class_split, production_split, rare_notes
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
    """Every node is in exactly one part, every class is learned, or the draw says why it cannot be made."""
    counts = np.bincount(labels, minlength=max(labels) + 1)
    if counts.min() < 2:
        with pytest.raises(DataError, match="have fewer than 2 nodes"):
            per_class_split(np.array(labels), seed, train=4, val=3)
        return
    split = per_class_split(np.array(labels), seed, train=4, val=3)
    assert {labels[node] for node in split.train.tolist()} == set(labels)
    together = torch.cat(list(split.parts().values()))
    assert sorted(together.tolist()) == list(range(len(labels)))
    split.check(len(labels))


@pytest.mark.parametrize(
    ("nodes", "shares"),
    [(2, [1, 0, 1]), (3, [1, 1, 1]), (4, [1, 1, 2]), (12, [4, 3, 5]), (49, [19, 14, 16]), (50, [20, 30, 0])],
)
def test_a_rare_class_gives_shares(nodes: int, shares: list[int]) -> None:
    """An ordinary graph has a rare class: it is learned and tested, too, and costs the others none of their nodes."""
    labels = np.r_[np.zeros(60, int), np.ones(nodes, int), np.full(70, 2)]
    split = per_class_split(labels, 4)
    assert [int((labels[part.numpy()] == 1).sum()) for part in (split.train, split.val, split.test)] == shares
    if nodes < 50:
        without = per_class_split(np.where(labels == 1, -1, np.where(labels == 2, 1, labels)), 4)
        for part, alone in zip(split.parts().values(), without.parts().values(), strict=True):
            assert part[labels[part.numpy()] != 1].tolist() == alone.tolist()
    assert len({tuple(per_class_split(labels, seed).train.tolist()) for seed in range(3)}) == 3


def test_a_rare_class_counts_among_all_validation_nodes() -> None:
    """`val_total` is a total."""
    labels = np.r_[np.arange(500) % 5, np.full(12, 5)]
    split = per_class_split(labels, 0, val_total=300)
    assert len(split.val) == 300
    assert int((labels[split.train.numpy()] == 5).sum()) == 4


def test_what_rare_classes_got_is_noted() -> None:
    """By name, and not a line for each of a thousand."""
    labels = np.r_[np.zeros(60, int), np.repeat(np.arange(1, 8), 12)]
    split = per_class_split(labels, 0)
    (note,) = rare_notes(labels, split, ["many", "pink", *"cdefgh"])
    assert "fewer than 50 nodes" in note
    assert "'pink' 4 / 3 / 5, 'c' 4 / 3 / 5" in note
    assert note.endswith(", and 2 more")
    assert "many" not in note
    assert rare_notes(labels[:60], per_class_split(labels[:60], 0), ["many"]) == ()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([60, 1, 60], r"1 of 3 classes \('b'\) have fewer than 2 nodes.*Label such nodes -1"),
        ([60, 0, 60], r"1 of 3 classes \('b'\).*number classes without gaps"),
        ([2, 2, 2], "no node in 'val': classes have 2 to 2 nodes. Store train, val and test"),
        ([50, 50, 50], "no node in 'test': classes have 50 to 50 nodes"),
        ([], "No node has a label"),
    ],
)
def test_what_cannot_be_drawn_is_refused(sizes: list[int], message: str) -> None:
    """A class that is never tested, or a part that is empty, would give figures of something else."""
    with pytest.raises(DataError, match=message):
        per_class_split(np.r_[-1, np.repeat(np.arange(len(sizes)), sizes)], 0, names="abc")


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
