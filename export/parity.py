"""When two sets of logits count as the same; one rule for export, self-check and tests. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.errors import ParityError
from graph2mlp.tasks import CLASSIFICATION, Task

__all__ = [
    "ATOL",
    "ROUNDED",
    "Difference",
    "Similarity",
    "check_rounded",
    "compare_answers",
    "compare_logits",
]

ATOL = 1e-5
"""Largest difference allowed between two logits of size up to 1; grows in proportion above that."""

ROUNDED = {"min_agreement": 0.99, "max_total_variation": 0.005}
"""What a file that rounds activations must keep of its own answers on another machine: a number that falls on the other
side of a rounding step moves a few probabilities a little, while a processor that multiplies wrongly moves all."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far two sets of logits are apart."""

    rows: int
    max_abs: float
    """Largest absolute difference."""
    max_scaled: float
    """Largest difference divided by `max(1, |expected|)`, or by the `unit`; what is held against the tolerance."""
    ties: int
    """Rows whose label differs although the two best expected logits are within the tolerance of each other."""


def compare_logits(
    expected: NDArray[np.floating[Any]],
    got: NDArray[np.floating[Any]],
    *,
    atol: float = ATOL,
    what: str = "The exported file",
    unit: NDArray[np.floating[Any]] | None = None,
) -> Difference:
    """Hold `got [B, C]` against `expected [B, C]`: differences stay within `atol * max(1, |expected|)`.

    A float32 logit of 50 has a spacing of 4e-6, so an absolute 1e-5 would be noise there: large logits are compared
    relative to their size. It follows that labels are equal, except where two expected logits tie within the tolerance.

    Quantities have units of their own: with `unit [C]` differences of a column stay within `atol * unit`. Of a large
    unit a number near zero is as inexact as any other, and of a small one an absolute 1e-5 may be all there is.

    Raises:
        ParityError: shapes differ, a number is not finite, or a difference is too large.
    """
    if expected.shape != got.shape:
        raise ParityError(f"{what} gives logits of shape {got.shape}, expected {expected.shape}.")
    if not len(expected):
        return Difference(rows=0, max_abs=0.0, max_scaled=0.0, ties=0)
    wanted = expected.astype(np.float64)
    gap = np.abs(wanted - got)
    if not np.isfinite(gap).all():
        row = int(np.nonzero(~np.isfinite(gap).all(1))[0][0])
        raise ParityError(f"{what} gives a number that is not finite for request {row}.")
    scale = np.maximum(1.0, np.abs(wanted)) if unit is None else unit.astype(np.float64)
    scaled = gap / scale
    if scaled.max() > atol:
        row = int(scaled.max(1).argmax())
        raise ParityError(
            f"{what} differs by {scaled.max():.2e} (request {row} of {len(gap)}), more than the allowed {atol:.0e} "
            f"per unit of {'logit' if unit is None else 'its deviation'}."
        )
    # Within these bounds another label is possible only where the two logits tie, so ties are counted, not refused.
    other = int((wanted.argmax(1) != got.argmax(1)).sum())
    return Difference(rows=len(gap), max_abs=float(gap.max()), max_scaled=float(scaled.max()), ties=other)


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """How alike two sets of answers are when digits are expected to differ."""

    rows: int
    agreement: float
    """How far the answers are equal: of classes, the share of rows."""
    total_variation: float
    """Half the L1 distance between the probabilities of a row, mean over rows; see `Task.distance`."""
    max_abs: float
    """Largest absolute difference between two logits."""


def compare_answers(
    expected: NDArray[np.floating[Any]],
    got: NDArray[np.floating[Any]],
    *,
    what: str,
    kind: Task = CLASSIFICATION,
) -> Similarity:
    """How alike the answers of two sets of logits `[B, C]` are.

    Raises:
        ParityError: shapes differ, or a number is not finite.
    """
    if expected.shape != got.shape:
        raise ParityError(f"{what} gives logits of shape {got.shape}, expected {expected.shape}.")
    if not (np.isfinite(expected).all() and np.isfinite(got).all()):
        raise ParityError(f"{what} gives a number that is not finite.")
    if not len(expected):
        return Similarity(rows=0, agreement=1.0, total_variation=0.0, max_abs=0.0)
    return Similarity(
        rows=len(expected),
        agreement=kind.agreement(kind.labels(got), kind.labels(expected)),
        total_variation=kind.distance(expected, got),
        max_abs=float(np.abs(expected.astype(np.float64) - got).max()),
    )


def check_rounded(
    expected: NDArray[np.floating[Any]],
    got: NDArray[np.floating[Any]],
    tolerance: Mapping[str, float],
    *,
    what: str,
    kind: Task = CLASSIFICATION,
) -> Similarity:
    """Hold `got` against the file's own answers from the machine it was made on; one other label is always allowed.

    Raises:
        ParityError: answers agree less, or lie further apart, than `tolerance` (see `ROUNDED`) allows.
    """
    found = compare_answers(expected, got, what=what, kind=kind)
    other = round((1 - found.agreement) * found.rows)
    least, most = tolerance["min_agreement"], tolerance["max_total_variation"]
    if other > max(1, (1 - least) * found.rows):
        raise ParityError(
            f"{what} gives other answers to {found.rows} sample requests: {kind.same.format('those at export')}: "
            f"{found.agreement:.2%}, less than the {least:.2%} it must have."
        )
    if found.total_variation > most:
        raise ParityError(
            f"{what} gives other answers to {found.rows} sample requests: {kind.apart.format(found.total_variation)}, "
            f"more than the allowed {most:.4f}."
        )
    return found
