"""Feature contribution ratio: how much of what a GNN knows the features alone could say (Cold Brew, ICLR 2022).

    propagated = label_propagation(graph)
    ratio = feature_contribution(gnn=0.82, mlp=0.61, propagation=accuracy(propagated[val], graph.y[val]))

All three accuracies must be of the same nodes, validation nodes when the figure is to advise; of a subset such as the
nodes without edges, the ratio is about that subset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError
from graph2mlp.structure.tall import column_blocks

__all__ = ["FeatureContribution", "feature_contribution", "label_propagation"]

_NUMBERS = 1 << 22
"""Nodes times classes up to which all classes are propagated at once; of a larger graph `_COLUMNS` of them."""
_COLUMNS = 8


@dataclass(frozen=True)
class FeatureContribution:
    """`percent`: 0 when edges alone explain the GNN, 50 when both do equally, 100 when features alone match it, more
    when edges hurt. NaN when it means nothing, and then `reason` says why.
    """

    percent: float
    reason: str = ""

    @property
    def known(self) -> bool:
        return not math.isnan(self.percent)


def feature_contribution(*, gnn: float, mlp: float, propagation: float) -> FeatureContribution:
    """The ratio from three accuracies on one scale, of a GNN, an MLP and label propagation on the same nodes.

    With `a = gnn - mlp` and `b = gnn - propagation`: `100 b / (a + b)` while the GNN is the better of the first two,
    `100 (1 + |a| / (|a| + b))` when the MLP is.
    """
    values = {"gnn": gnn, "mlp": mlp, "propagation": propagation}
    if missing := [name for name, value in values.items() if not math.isfinite(value)]:
        return FeatureContribution(math.nan, f"no accuracy is known for {', '.join(missing)}")
    behind_mlp, behind_propagation = gnn - mlp, gnn - propagation
    if behind_propagation < 0:
        return FeatureContribution(math.nan, "label propagation beats the GNN, which leaves nothing to share out")
    if not behind_mlp and not behind_propagation:
        return FeatureContribution(math.nan, "GNN, MLP and label propagation are equally good")
    if behind_mlp >= 0:
        return FeatureContribution(100 * behind_propagation / (behind_mlp + behind_propagation))
    return FeatureContribution(100 * (1 - behind_mlp / (behind_propagation - behind_mlp)))


def label_propagation(graph: GraphData, *, iterations: int = 50, alpha: float = 0.5) -> Tensor:
    """What edges and training labels say without any feature, `[N, C]`: the largest entry of a row is its class.

    `F <- alpha D^-1/2 A D^-1/2 F + (1 - alpha) F_0`, with F_0 the training labels as one-hot rows and A without
    self-loops; a node listens to its in-neighbours. A node that no label reaches gets the shares of the classes among
    the training labels. No label off the training set is read.

    Raises:
        ConfigError: `iterations` is below 1 or `alpha` outside (0, 1).
    """
    if iterations < 1 or not 0 < alpha < 1:
        raise ConfigError(f"label propagation needs iterations >= 1 and alpha in (0, 1) (got {iterations}, {alpha})")
    train = graph.split.train
    out = torch.zeros(graph.num_nodes, graph.num_classes)
    out[train, graph.y[train]] = 1.0
    shares = out[train].mean(0)
    found = graph.in_neighbours
    weight = found.values()
    # In- and out-degree are the same where edges are stored both ways; elsewhere each end has its own.
    scale_in = found.strength().rsqrt()
    scale_out = torch.zeros(graph.num_nodes).index_add_(0, found.ids, weight).rsqrt()
    spread = found.matrix(scale_in[found.targets()] * scale_out[found.ids] * weight)
    # Classes do not meet, so those of a large graph need not be there at once.
    for columns in column_blocks(out, graph.num_classes if out.numel() <= _NUMBERS else _COLUMNS):
        part = out[:, columns]
        back = (1 - alpha) * part
        for _ in range(iterations):
            part = (spread @ part).mul_(alpha).add_(back)
        out[:, columns] = part
    out[~(out.sum(1) > 0)] = shares
    return out
