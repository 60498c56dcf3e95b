"""What `graph2mlp bench --json` wrote, as it is read: every field that somebody uses is what it should be. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from graph2mlp.errors import DataError, one_line
from graph2mlp.json_file import read_json, unfit
from graph2mlp.latency.rows import SCHEMA, Failure, Row, ServerRow

__all__ = ["read_bench"]

_WRITER = "Expected a file that 'graph2mlp bench --json' wrote."
_NEEDED = {
    "rows": ("what", "regime", "batch", "threads", "n", "size_kb"),
    "server": ("what", "slo_p99_us", "threads"),
    "failed": ("what",),
}
"""What a line of each part may not be without."""
_ABOVE_ZERO = ("batch", "threads", "ratio", "rate", "rate_failed")
"""And every time: they are divided by, and drawn on logarithmic axes."""
_LEAST = 1e-100
"""A ratio of two smaller numbers may be 0 or infinite."""


class _File(TypedDict, total=False):
    bundle: str
    environment: dict[str, Any]
    settings: dict[str, Any]
    rows: list[Row]
    server: list[ServerRow]
    failed: list[Failure]
    block_p50_us: list[list[float]]


def read_bench(path: Path, schemas: Sequence[int] = (1, SCHEMA)) -> dict[str, Any]:
    """The content of a file: at least one row, of calls or of the server scenario.

    Raises:
        DataError: it cannot be read, is no bench or damaged, or its schema is none of `schemas`.
    """
    bench = read_json(path, DataError, _WRITER)
    if not isinstance(bench, dict) or not isinstance(bench.get("rows"), list) or "schema" not in bench:
        raise DataError(f"{path} is not a bench. {_WRITER}")
    if bench["schema"] not in schemas or isinstance(bench["schema"], bool):
        found, wanted = one_line(bench["schema"], 20), " or ".join(map(str, schemas))
        raise DataError(f"{path} has bench schema {found}, expected {wanted}. Measure again with this version.")
    if problem := unfit(bench, _File, "") or _odd_line(bench):
        raise DataError(f"{path} is damaged: {problem}. Measure again.")
    if not bench["rows"] and not bench.get("server"):
        raise DataError(f"{path} holds no measurement: it has no rows. Measure again.")
    return bench


def _odd_line(bench: Mapping[str, Any]) -> str:
    """The first line that lacks something, or has a number that cannot be."""
    for part, needed in _NEEDED.items():
        for number, line in enumerate(bench.get(part) or ()):
            if missing := [name for name in needed if line.get(name) is None]:
                return f"{part}[{number}] has no '{missing[0]}'"
            times = [name for name in line if name.endswith("_us")]
            for name in (*times, *_ABOVE_ZERO):
                value = line.get(name)
                if value is not None and (unfit(value, float, name) or value < _LEAST):
                    return f"{part}[{number}].{name} must be a number above 0, got {one_line(value, 40)}"
    return ""
