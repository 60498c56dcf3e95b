"""What a page of a bench says first where nothing but the server scenario was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graph2mlp.report.markup import Markup
from graph2mlp.report.page import key_figures
from graph2mlp.report.words import count, microseconds

__all__ = ["server_headline", "server_key"]

Row = Mapping[str, Any]


def server_headline(rows: Sequence[Row]) -> str:
    """The highest rate of a bundle, or that none keeps the promise."""
    best = _best(rows)
    promise = f"99 of 100 within {microseconds(best['slo_p99_us'])}"
    if best.get("rate") is None:
        return f"No rate of random arrivals is answered with {promise}."
    words = f"A bundle answers {best['rate']:,.0f} requests per second that arrive at random, {promise}"
    return words + (f" ({best['file']})." if best["file"] else ".")


def server_key(rows: Sequence[Row]) -> Markup:
    """The figures of that row."""
    best = _best(rows)
    figures = []
    if best.get("rate") is not None:
        failed = best.get("rate_failed")
        beyond = "" if failed is None else f"{failed:,.0f} were too many"
        figures.append(("requests per second", f"{best['rate']:,.0f}", [beyond]))
    for name, key in (("median", "p50_us"), ("99th percentile", "p99_us")):
        if best.get(key) is not None:
            figures.append((name, microseconds(best[key]), ["from arrival to answer, at that rate"]))
    if best.get("mean_batch") is not None:
        figures.append(("requests in a batch", f"{best['mean_batch']:.1f}", [count(best["threads"], "thread")]))
    return key_figures(figures)


def _best(rows: Sequence[Row]) -> Row:
    """The bundle that bears most; of files without a bundle, whoever does."""
    bundles = [row for row in rows if str(row["what"]).startswith("bundle")]
    return max(bundles or rows, key=lambda row: row.get("rate") or 0)
