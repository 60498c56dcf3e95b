"""Numbers and names as a reader wants them."""

from __future__ import annotations

from collections.abc import Iterable
from unicodedata import east_asian_width

__all__ = [
    "PARTS",
    "ROLES",
    "capital",
    "count",
    "listed",
    "microseconds",
    "percent",
    "points",
    "shortened",
    "significance",
]

PARTS = {
    "test": "test nodes",
    "tran": "observed test nodes",
    "ind": "unseen nodes, with their edges",
    "prod": "production mix",
    "cold": "unseen nodes, without edges",
}
"""What is asked about in each column of a result."""


ROLES = {"mlp": "plain MLP", "teacher": "teacher", "student": "student"}
"""Who answers, in the order of tables."""


def capital(word: str) -> str:
    """`accuracy` as `Accuracy`, the rest as it is."""
    return word[:1].upper() + word[1:]


def percent(share: float, digits: int = 1) -> str:
    """A fraction in %."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def points(difference: float, digits: int = 1) -> str:
    """A difference of two fractions in percentage points, always with its sign."""
    value = round(100 * difference, digits)
    sign = "+" if value > 0 else "−" if value < 0 else "±"
    return f"{sign}{abs(value):.{digits}f}"


def count(value: int, one: str, many: str | None = None) -> str:
    """`1 node`, `1,177 nodes`."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def microseconds(value: float) -> str:
    """Three digits, in the unit that keeps them readable."""
    if value >= 1e6:
        return f"{value / 1e6:.3g} s"
    if value >= 1e4:
        return f"{value / 1e3:.3g} ms"
    return f"{value:,.0f} µs" if value >= 100 else f"{value:.1f} µs"


def listed(words: Iterable[str]) -> str:
    """`a, b and c`."""
    *before, last = list(words)
    return f"{', '.join(before)} and {last}" if before else last


def shortened(name: str, length: int) -> str:
    """At most as wide as `length` Latin characters; those of East Asian scripts are twice as wide."""
    reached = 0
    for number, one in enumerate(name):
        reached += 2 if east_asian_width(one) in "WF" else 1
        if reached > length:
            return name[: number - 1].rstrip() + "…"
    return name


def significance(probability: float) -> str:
    """A probability in an English bracket."""
    return (
        "p\N{NO-BREAK SPACE}<\N{NO-BREAK SPACE}0.001"
        if probability < 0.001
        else f"p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{probability:.3f}"
        if probability < 0.1
        else f"p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{probability:.2f}"
    )
