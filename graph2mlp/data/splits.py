"""Who is labelled, who selects, who is tested, and who is unseen; drawn exactly as the published protocols do."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from graph2mlp.errors import DataError

__all__ = ["Split", "per_class_split", "production_split", "random_split"]

_EMPTY = torch.empty(0, dtype=torch.long)


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
    labels: np.ndarray, seed: int, *, train: int = 20, val: int | None = 30, val_total: int | None = None
) -> Split:
    """Draw `train` nodes per class, then `val` per class (or `val_total` in all) from the rest; all others test.

    This is the draw of the "CPF" protocol (GLNN, NOSMOG, VQGraph): one `numpy.random.RandomState(seed)`, class by
    class in ascending order, `choice` without replacement, so equal seeds give the published splits.
    """
    state = np.random.RandomState(seed)
    free = np.ones(len(labels), dtype=bool)

    def draw(count: int, pool: np.ndarray, what: str) -> np.ndarray:
        if len(pool) < count:
            raise DataError(
                f"{what} has {len(pool)} nodes left, but the split needs {count}. "
                "Store train, val and test in the graph's file to use a split of your own."
            )
        picked = state.choice(pool, count, replace=False)
        free[picked] = False
        return picked

    def each_class(count: int) -> np.ndarray:
        classes = range(int(labels.max()) + 1)
        pools = ((c, np.nonzero((labels == c) & free)[0]) for c in classes)
        return np.concatenate([draw(count, pool, f"Class {c}") for c, pool in pools])

    if not len(labels) or labels.max() < 0:
        raise DataError("No node has a label, so no split can be drawn.")

    def rest() -> np.ndarray:
        """Nodes not drawn yet; one without a label (-1) could only be answered wrongly."""
        return np.nonzero(free & (labels >= 0))[0]

    train_ids = each_class(train)
    val_ids = each_class(val or 0) if val_total is None else draw(val_total, rest(), "The graph")
    parts = (train_ids, val_ids, rest())
    return Split(*(torch.from_numpy(np.sort(part)).long() for part in parts))


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
