"""Who is labelled, who selects, who is tested, and who is unseen; drawn exactly as the published protocols do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graph2mlp.errors import DataError

__all__ = ["Split", "per_class_split", "production_split", "random_split", "rare_notes"]

_EMPTY = torch.empty(0, dtype=torch.long)
_TRAIN, _VAL = 20, 30
"""Nodes of each class to learn from and to select by, in the published protocol."""
_SHOWN = 5
"""Rare classes that are told one by one."""


@dataclass(frozen=True, eq=False)
class Split:
    """Disjoint sets of node positions, each `[n]` int64.

    `test` holds the observed test nodes; `unseen` the nodes that are hidden, with all their edges, from teacher,
    structure and student (empty in the transductive setting).
    """

    train: Tensor
    val: Tensor
    test: Tensor
    unseen: Tensor = _EMPTY

    def parts(self) -> dict[str, Tensor]:
        """Name to positions, in a fixed order."""
        return {"train": self.train, "val": self.val, "test": self.test, "unseen": self.unseen}

    def check(self, num_nodes: int) -> None:
        """Raise DataError unless every part is in range and no node is in two parts."""
        seen = torch.zeros(num_nodes, dtype=torch.long)
        for name, part in self.parts().items():
            if part.dtype != torch.long or part.dim() != 1:
                raise DataError(
                    f"Split '{name}' must be a list of int64 node positions, got {part.dtype} {list(part.shape)}."
                )
            if part.numel() and (int(part.min()) < 0 or int(part.max()) >= num_nodes):
                bad = int(part[(part < 0) | (part >= num_nodes)][0])
                raise DataError(f"Split '{name}' names node {bad}, but the graph has nodes 0 to {num_nodes - 1}.")
            seen.index_add_(0, part, torch.ones_like(part))
        if bool((seen > 1).any()):
            node = int(torch.nonzero(seen > 1)[0])
            names = [name for name, part in self.parts().items() if node in part]
            raise DataError(
                f"Node {node} appears more than once in the split (in {', '.join(names)}); "
                "each node may be in one part, once."
            )
        for name, why in (("train", "to learn from"), ("val", "to select by"), ("test", "to report")):
            if not self.parts()[name].numel():
                raise DataError(f"The split has no node in '{name}': there is nothing {why}. Put at least one there.")

    def of(self, nodes: Tensor) -> Split:
        """The split of `nodes [M]` whose positions among those nodes this one names."""
        return Split(**{name: nodes[part] for name, part in self.parts().items()})

    def relabel(self, position: Tensor) -> Split:
        """The split after moving node i to `position[i]`; nodes with position -1 are dropped."""

        def move(part: Tensor) -> Tensor:
            moved = position[part]
            return moved[moved >= 0]

        return Split(**{name: move(part) for name, part in self.parts().items()})


def per_class_split(
    labels: NDArray[np.int64],
    seed: int,
    *,
    names: Sequence[str] = (),
    train: int = _TRAIN,
    val: int = _VAL,
    val_total: int | None = None,
) -> Split:
    """Draw `train` nodes per class, then `val` per class (or `val_total` in all) from the rest; all others test.

    This is the draw of the "CPF" protocol (GLNN, NOSMOG, VQGraph): one `numpy.random.RandomState(seed)`, class by
    class in ascending order, `choice` without replacement, so equal seeds give the published splits. A class too small
    for that gives a share (see `_shares`), drawn apart, so that the others get what they would get without it.

    Raises:
        DataError: a class, called as in `names`, has fewer than 2 nodes, or a part would be empty.
    """
    sizes = np.bincount(labels[labels >= 0])
    _check_sizes(sizes, names)
    order = np.argsort(labels, kind="stable")[-sizes.sum() :]  # a node without a label could only be answered wrongly
    pools = np.split(order, np.cumsum(sizes)[:-1])
    least = train + (val if val_total is None else 0)
    large = [pool for pool in pools if len(pool) >= least]
    rare = _shares([pool for pool in pools if len(pool) < least], np.random.RandomState(seed))
    state, free = np.random.RandomState(seed), labels >= 0
    free[np.concatenate(rare)] = False

    def draw(pool: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        picked: NDArray[np.int64] = state.choice(pool[free[pool]], count, replace=False)
        free[picked] = False
        return picked

    train_ids = np.concatenate([rare[0], *(draw(pool, train) for pool in large)])
    whole = np.arange(len(labels))
    wanted = [(pool, val) for pool in large] if val_total is None else [(whole, val_total - len(rare[1]))]
    val_ids = np.concatenate([rare[1], *(draw(*one) for one in wanted)])
    split = Split(*(torch.from_numpy(np.sort(part)) for part in (train_ids, val_ids, np.nonzero(free)[0])))
    for name, part in split.parts().items():
        if name != "unseen" and not len(part):
            raise DataError(
                f"The split drawn by the seed leaves no node in '{name}': classes have {sizes.min()} to {sizes.max()} "
                "nodes. Store train, val and test in the graph's file to use a split of your own."
            )
    return split


def rare_notes(labels: NDArray[np.int64], split: Split, names: Sequence[str]) -> tuple[str, ...]:
    """What a drawn `split` gave classes that are too small for 20 and 30 nodes each, in a line; none where none is."""
    parts = (split.train, split.val, split.test)
    counts = np.stack([np.bincount(labels[part.numpy()], minlength=len(names)) for part in parts])
    rare = np.nonzero((counts.sum(0) > 0) & (counts.sum(0) < _TRAIN + _VAL))[0]
    if not len(rare):
        return ()
    told = ", ".join(f"'{names[c]}' {' / '.join(map(str, counts[:, c]))}" for c in rare[:_SHOWN])
    more = f", and {len(rare) - _SHOWN} more" if len(rare) > _SHOWN else ""
    return (
        f"of a class of fewer than {_TRAIN + _VAL} nodes about 40 / 30 / 30 % train, validate and test: {told}{more}",
    )


def _check_sizes(sizes: NDArray[np.int64], names: Sequence[str]) -> None:
    if not len(sizes):
        raise DataError("No node has a label, so no split can be drawn.")
    few = np.nonzero(sizes < 2)[0]
    if len(few):
        called = ", ".join(f"'{names[c] if len(names) else c}'" for c in few[:3])
        raise DataError(
            f"{len(few)} of {len(sizes)} classes ({called}) have fewer than 2 nodes: one to learn from, one to test. "
            "Label such nodes -1 (unknown) and number classes without gaps, or store train, val and test yourself."
        )


def _shares(
    pools: Sequence[NDArray[np.int64]], state: np.random.RandomState
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each class 40 % to train and 30 % to validate, rounded down, but one at least, and one left to test."""
    train, val = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for pool in pools:
        first = max(1, 2 * len(pool) // 5)
        last = first + min(max(1, 3 * len(pool) // 10), len(pool) - 2)
        order = state.permutation(pool)
        train.append(order[:first])
        val.append(order[first:last])
    return np.concatenate(train), np.concatenate(val)


def random_split(nodes: int, seed: int, *, train: float = 0.6, val: float = 0.2) -> Split:
    """A random `train` share of all `nodes`, then a `val` share, by `seed`; all others test."""
    order = torch.randperm(nodes, generator=torch.Generator().manual_seed(seed))
    first, second = int(train * nodes), int((train + val) * nodes)
    return Split(*(part.sort().values for part in (order[:first], order[first:second], order[second:])))


def production_split(split: Split, seed: int, *, rate: float = 0.2) -> Split:
    """Hide the first `rate` of a random order of the test nodes (GLNN's protocol: `torch.manual_seed`, `randperm`)."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(split.test.numel(), generator=generator)
    hidden = int(split.test.numel() * rate)
    if not hidden:
        raise DataError(
            f"The production setting hides {rate:.0%} of the test nodes, but {split.test.numel()} test nodes "
            "are too few. Use the transductive setting."
        )
    test, unseen = split.test[order[hidden:]], split.test[order[:hidden]]
    return replace(split, test=test.sort().values, unseen=unseen.sort().values)
