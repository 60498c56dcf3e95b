"""Intervals, the test and the calibration error, against figures worked out elsewhere."""

from __future__ import annotations

import math

import pytest

from graph2mlp.significance import calibration_error, chance, wilson


def test_wilson_by_hand() -> None:
    """Published example (Newcombe 1998, table I): 81 of 263 and 15 of 148; and 0 of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@pytest.mark.parametrize("nodes", [1, 2, 29, 1000])
def test_wilson_holds_the_share(nodes: int) -> None:
    """A whisker beside its mark would be absurd; it happens by rounding at 0 and 1."""
    for right in range(nodes + 1):
        low, high = wilson(right, nodes)
        assert 0 <= low <= right / nodes <= high <= 1


def test_wilson_of_nothing() -> None:
    """No node says nothing, and does not divide by zero."""
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 5), (3, 12), (30, 8), (0, 9)])
def test_chance_is_the_binomial_tail(gained: int, lost: int) -> None:
    """Twice the tail of fair coins, at most 1."""
    total = gained + lost
    tail = sum(math.comb(total, k) for k in range(min(gained, lost) + 1)) / 2**total
    assert chance(gained, lost) == pytest.approx(min(1.0, 2 * tail))
    assert chance(gained, lost) == chance(lost, gained)


def test_chance_of_many_nodes() -> None:
    """2^-5000 is no float: the naive formula gives 0 or an error on a large graph."""
    assert chance(2500, 2500) == 1.0
    assert chance(2400, 2600) == pytest.approx(0.00489, abs=1e-4)  # normal approximation with correction
    assert chance(0, 5000) == pytest.approx(0.0, abs=1e-300)


def test_calibration_error_by_hand() -> None:
    """4 nodes at 0.5 of which 1 is right, 6 at 0.9 of which all are: (|1 - 2| + |6 - 5.4|) / 10."""
    bins = [{"nodes": 4, "confidence": 0.5, "right": 1}, {"nodes": 6, "confidence": 0.9, "right": 6}]
    assert calibration_error(bins) == pytest.approx(0.16)
    assert calibration_error([]) == 0.0
