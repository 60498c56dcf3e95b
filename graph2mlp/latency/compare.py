"""Two files of `graph2mlp bench --json`: which rows differ, and whether that is more than chance. No torch.

Rows with the same name, batch and threads are matched. Each carries the medians of the blocks in which it had its turn;
the Mann-Whitney test (1947; normal approximation, corrected for ties and continuity) says how likely such a difference
between the two sets of medians would be without a cause. It knows nothing of what changes from one run to the next on
the same machine (where memory lies, who else works), so a difference also has to exceed 5 % to be called one, and 20 %
where either side was marked as noisy or unstable: four runs of one file on two cores with a load of 10 differed by up
to 13 %, and the test alone would have called that certain.

In the server scenario each side has found a rate that held and one that did not: rates differ if those ranges do not
overlap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graph2mlp.errors import DataError
from graph2mlp.latency.bench_file import read_bench
from graph2mlp.latency.rows import SCHEMA

__all__ = ["Comparison", "MatchedRow", "compare_benches", "mann_whitney"]

ALPHA = 0.01
LEAST_DIFFERENCE, LEAST_ON_BUSY_MACHINE = 0.05, 0.2
_LEAST_BLOCKS = 8
"""Medians per side below which the test could not reach `ALPHA` with anything to spare."""
_MACHINE = ("cpu", "cores", "governor", "os", "python", "numpy", "onnxruntime", "torch")
_SETTINGS = ("threads", "seconds")

Key = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class MatchedRow:
    """One row of both files. For the server scenario the values are rates (higher is better), else microseconds."""

    what: str
    scenario: str
    batch: str
    first: float | None
    second: float | None
    ratio: float | None
    """Second divided by first."""
    p_value: float | None
    verdict: str
    """`faster`, `slower` (the second than the first), `no difference`, or why nothing can be said."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two files say about each other."""

    rows: list[MatchedRow]
    only_first: list[str]
    only_second: list[str]
    differences: list[str]
    """What else differs (machine, versions, model, settings): lines to read before the rows."""


def compare_benches(first: Path, second: Path) -> Comparison:
    """Match the rows of two bench files and judge each pair.

    Raises:
        DataError: a file cannot be read, is not one of ours or of another version, or no row is in both.
    """
    a, b = read_bench(first, (SCHEMA,)), read_bench(second, (SCHEMA,))
    rows_a, rows_b = _rows(a, first), _rows(b, second)
    both = [key for key in rows_a if key in rows_b]
    if not both:
        raise DataError(f"{first} and {second} have no row in common: names, batch sizes and threads must be the same.")
    return Comparison(
        rows=[_match(key, rows_a[key], rows_b[key]) for key in both],
        only_first=[", ".join(key) for key in rows_a if key not in rows_b],
        only_second=[", ".join(key) for key in rows_b if key not in rows_a],
        differences=_differences(a, b, [(rows_a[key], rows_b[key]) for key in both]),
    )


def mann_whitney(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p-value that two samples come from one distribution: normal approximation with ties and continuity."""
    n, m = len(first), len(second)
    together = np.concatenate([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)])
    _values, inverse, counts = np.unique(together, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[inverse]
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    total = n + m
    variance = n * m / 12 * ((total + 1) - float((counts**3 - counts).sum()) / (total * (total - 1)))
    if variance <= 0:  # all equal
        return 1.0
    z = max(0.0, abs(u - n * m / 2) - 0.5) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))


def _rows(bench: Mapping[str, Any], path: Path) -> dict[Key, dict[str, Any]]:
    """Rows by what they are, each with its `value` and the `blocks` behind it."""
    rows, found = [], {}
    blocks = bench.get("block_p50_us")
    server = bench.get("server")
    if not isinstance(blocks, list) or len(blocks) != len(bench["rows"]) or not isinstance(server, list):
        raise DataError(f"{path} is damaged: 'block_p50_us' or 'server' does not fit its rows. Measure again.")
    for row, medians in zip(bench["rows"], blocks, strict=True):
        if row.get("p50_us") is None or not all(one > 0 for one in medians):
            raise DataError(f"{path} is damaged: a row has no times. Measure again.")
        rows.append(row | {"scenario": "calls", "value": row["p50_us"], "blocks": medians})
    for row in server:
        rows.append(row | {"scenario": "server", "value": row.get("rate"), "batch": f"p99 {row['slo_p99_us']} us"})
    for row in rows:
        found[(row["what"], row["scenario"], f"{row['batch']}, {row['threads']} thread(s)")] = row
    return found


def _match(key: Key, a: Mapping[str, Any], b: Mapping[str, Any]) -> MatchedRow:
    what, scenario, batch = key
    ratio = b["value"] / a["value"] if a["value"] and b["value"] else None
    p_value = None
    if scenario == "server":
        verdict = _server_verdict(a, b)
    elif min(len(a["blocks"]), len(b["blocks"])) < _LEAST_BLOCKS:
        verdict = "too few blocks to say"
    else:
        p_value = mann_whitney(a["blocks"], b["blocks"])
        assert ratio is not None  # both were checked to be above 0
        busy = any(row.get("noisy") or row.get("unstable") for row in (a, b))
        large = abs(math.log(ratio)) > math.log1p(LEAST_ON_BUSY_MACHINE if busy else LEAST_DIFFERENCE)
        verdict = "no difference" if p_value >= ALPHA or not large else "faster" if ratio < 1 else "slower"
    return MatchedRow(
        what=what,
        scenario=scenario,
        batch=batch,
        first=a["value"],
        second=b["value"],
        ratio=ratio,
        p_value=p_value,
        verdict=verdict,
    )


def _server_verdict(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    ranges = [(row["value"] or 0.0, row.get("rate_failed") or math.inf) for row in (a, b)]
    if not a["value"] and not b["value"]:
        return "neither held"
    if not a["value"] or not b["value"]:
        return "faster" if b["value"] else "slower"
    (low_a, high_a), (low_b, high_b) = ranges
    if low_b >= high_a:
        return "faster"
    return "slower" if low_a >= high_b else "no difference"


def _differences(
    a: Mapping[str, Any], b: Mapping[str, Any], pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> list[str]:
    found = []
    for part, names, remark in (("environment", _MACHINE, "machines"), ("settings", _SETTINGS, "settings")):
        ours, theirs = (one.get(part, {}) for one in (a, b))
        unlike = [f"{n}: {ours.get(n)} / {theirs.get(n)}" for n in names if ours.get(n) != theirs.get(n)]
        if unlike:
            found.append(f"different {remark}: {'; '.join(unlike)}")
    models = sorted({str(x.get("what")) for x, y in pairs if x.get("model_sha256") != y.get("model_sha256")})
    if models:
        found.append(f"different model files: {', '.join(models)}")
    busy = [name for name, one in (("first", 0), ("second", 1)) if any(pair[one].get("noisy") for pair in pairs)]
    if busy:
        found.append(
            f"others used the machine during the {' and the '.join(busy)}: repeat before you believe a verdict"
        )
    return found
