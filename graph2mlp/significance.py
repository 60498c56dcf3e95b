"""How sure a share of few nodes is, and whether two networks differ by more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import Any

__all__ = ["FEW", "calibration_error", "chance", "half_width", "wilson"]

FEW = 30
"""Below so many nodes a share is marked as uncertain: its interval is wider than a third of the scale."""

_Z = 1.959964


def wilson(right: int, nodes: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927): unlike the usual one it holds for few nodes and near 0 and 1."""
    if not nodes:
        return 0.0, 1.0
    share, z = right / nodes, _Z**2 / nodes
    middle = (share + z / 2) / (1 + z)
    half = _Z / (1 + z) * math.sqrt(share * (1 - share) / nodes + z / (4 * nodes))
    # At the ends rounding would leave the interval a hair beside the share itself.
    return (0.0 if right == 0 else middle - half), (1.0 if right == nodes else middle + half)


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean of n values, `t(0.975, n - 1) s / sqrt(n)` (Student); infinite for n = 1."""
    from scipy.stats import t

    n = len(values)
    return float(t.ppf(0.975, n - 1)) * stdev(values) / math.sqrt(n) if n > 1 else math.inf


def chance(gained: int, lost: int) -> float:
    """Exact two-sided McNemar test: how often two equally good networks would differ at least so unevenly.

    `gained` and `lost` are the nodes on which only the one, or only the other, is right.
    """
    total, fewer = gained + lost, min(gained, lost)
    if not total:
        return 1.0
    # In logarithms: 2^-n is no float any more for a few thousand nodes.
    terms = [math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) for k in range(fewer + 1)]
    largest = max(terms)
    tail = sum(math.exp(term - largest) for term in terms)
    return min(1.0, 2 * math.exp(largest + math.log(tail) - total * math.log(2)))


def calibration_error(bins: Sequence[Mapping[str, Any]]) -> float:
    """Expected calibration error: mean distance of accuracy and confidence over the bins, weighted by nodes."""
    nodes = sum(one["nodes"] for one in bins)
    return sum(abs(one["right"] - one["confidence"] * one["nodes"]) for one in bins) / nodes if nodes else 0.0
