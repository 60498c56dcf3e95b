"""Comparing two benches: the test itself against scipy, verdicts on made-up files, bad files in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from graph2mlp.errors import DataError
from graph2mlp.latency.compare import compare_benches, mann_whitney
from graph2mlp.latency.summary import compare_table


@pytest.mark.parametrize("sizes", [(8, 8), (20, 20), (30, 9)])
@pytest.mark.parametrize("decimals", [6, 0], ids=["no ties", "ties"])
def test_mann_whitney_is_scipys(sizes: tuple[int, int], decimals: int) -> None:
    """A slip in ranks, ties or variance shifts every verdict."""
    rng = np.random.default_rng(sum(sizes))
    for shift in (0, 1, 5):
        a, b = rng.normal(10, 2, sizes[0]).round(decimals), rng.normal(10 + shift, 2, sizes[1]).round(decimals)
        expected = mannwhitneyu(a, b, method="asymptotic", alternative="two-sided").pvalue
        assert mann_whitney(a.tolist(), b.tolist()) == pytest.approx(expected, rel=1e-9)
    assert mann_whitney([1.0] * 9, [1.0] * 9) == 1


def bench_file(path: Path, *rows: dict[str, Any], **changes: Any) -> Path:
    """A bench file with rows of twenty blocks around their median."""
    noise = np.random.default_rng(len(path.name)).normal(1, 0.005, 20)
    base = {"scenario": "single", "batch": 1, "threads": 1, "model_sha256": "m", "noisy": False}
    base |= {"regime": "features", "n": 700, "size_kb": 1.0}
    value = {
        "schema": 2,
        "environment": {"cpu": "this one"},
        "settings": {"threads": 1},
        "rows": [base | row for row in rows],
        "server": [],
        "block_p50_us": [(row["p50_us"] * noise).tolist() for row in rows],
    }
    path.write_text(json.dumps(value | changes))
    return path


def server_row(rate: float | None, failed: float | None) -> dict[str, Any]:
    return {
        "what": "s", "scenario": "server", "slo_p99_us": 500.0, "threads": 1, "rate": rate, "rate_failed": failed,
    }  # fmt: skip


def test_verdicts(tmp_path: Path) -> None:
    """A real change is named, a small or absent one is not, and each row is matched with its own."""
    a = bench_file(tmp_path / "a", *({"what": w, "p50_us": 10.0} for w in "uvwx"))
    b = bench_file(
        tmp_path / "bb", *({"what": w, "p50_us": p} for w, p in {"x": 10.0, "w": 10.3, "v": 8.0, "u": 13.0}.items())
    )
    found = compare_benches(a, b)
    assert {row.what: row.verdict for row in found.rows} == {
        "u": "slower",
        "v": "faster",
        "w": "no difference",  # 3 %: significant, but two runs of one file differ that much
        "x": "no difference",
    }
    assert found.rows[0].ratio == pytest.approx(1.3)
    assert not found.differences
    swapped = compare_benches(b, a)
    assert {row.what: row.verdict for row in swapped.rows}["u"] == "faster"


def test_large_but_random_is_no_difference(tmp_path: Path) -> None:
    """Medians of wildly scattered blocks may differ by a tenth for no reason."""
    blocks = np.random.default_rng(1).lognormal(0, 1, (2, 20)) * 10
    files = [
        bench_file(tmp_path / name, {"what": "u", "p50_us": p}, block_p50_us=[part.tolist()])
        for name, p, part in zip("ab", (10.0, 11.5), blocks, strict=True)
    ]
    (row,) = compare_benches(*files).rows
    assert row.p_value is not None
    assert row.p_value > 0.01
    assert row.verdict == "no difference"


@pytest.mark.parametrize("flag", ["noisy", "unstable"])
def test_a_busy_machine_needs_a_larger_difference(tmp_path: Path, flag: str) -> None:
    """Two runs of one file between other people's work differ by a tenth, in every block alike."""
    a = bench_file(tmp_path / "a", *({"what": w, "p50_us": 10.0} for w in "uvw"))
    new = [
        {"what": "u", "p50_us": 11.5, flag: True},
        {"what": "v", "p50_us": 11.5},
        {"what": "w", "p50_us": 15, flag: True},
    ]
    verdicts = [row.verdict for row in compare_benches(a, bench_file(tmp_path / "b", *new)).rows]
    assert verdicts == ["no difference", "slower", "slower"]


def test_few_blocks_say_nothing(tmp_path: Path) -> None:
    """Three against three can never be significant; calling that 'no difference' would be wrong."""
    files = [
        bench_file(tmp_path / n, {"what": "u", "p50_us": p}, block_p50_us=[[p] * 3])
        for n, p in (("a", 1.0), ("b", 9.0))
    ]
    (row,) = compare_benches(*files).rows
    assert row.verdict == "too few blocks to say"
    assert row.p_value is None


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ((100.0, 105.0), (106.0, 111.0), "faster"),
        ((100.0, 105.0), (104.0, 109.0), "no difference"),
        ((106.0, 111.0), (100.0, 105.0), "slower"),
        ((100.0, None), (200.0, 210.0), "no difference"),
        ((None, 5.0), (100.0, 105.0), "faster"),
        ((None, None), (None, None), "neither held"),
    ],
)
def test_rates(tmp_path: Path, first: tuple[Any, Any], second: tuple[Any, Any], verdict: str) -> None:
    """A rate is known up to a range; overlapping ranges are no difference."""
    files = [bench_file(tmp_path / name, server=[server_row(*rates)]) for name, rates in (("a", first), ("b", second))]
    (row,) = compare_benches(*files).rows
    assert row.verdict == verdict


def test_what_else_differs_is_said(tmp_path: Path) -> None:
    """Another machine, other settings, another model, a busy machine: the reader must know before the verdicts."""
    a = bench_file(tmp_path / "a", {"what": "u", "p50_us": 1.0}, {"what": "gone", "p50_us": 1.0})
    other = {"what": "u", "p50_us": 2.0, "model_sha256": "n", "noisy": True}
    b = bench_file(tmp_path / "b", other, environment={"cpu": "that one"}, settings={"threads": 4})
    found = compare_benches(a, b)
    text = "\n".join(found.differences)
    assert "cpu: this one / that one" in text
    assert "threads: 1 / 4" in text
    assert "model files: u" in text
    assert "during the second" in text
    assert found.only_first == ["gone, calls, 1, 1 thread(s)"]
    assert compare_table(found).title is not None


ROW = '{"what": "u", "regime": "features", "batch": 1, "threads": 1, "n": 1, "size_kb": 1}'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("what,p50\n", "not JSON"),
        ("[]", "not a bench"),
        ('{"schema": 1, "rows": []}', "schema 1"),
        (f'{{"schema": 2, "rows": [{ROW}], "server": [], "block_p50_us": []}}', "does not fit"),
        (f'{{"schema": 2, "rows": [{ROW}], "server": [], "block_p50_us": [[1]]}}', "no times"),
        ('{"schema": 2, "rows": [{}], "server": [], "block_p50_us": [[1]]}', r"rows\[0\] has no 'what'"),
        ('{"schema": 2, "rows": [3], "server": [], "block_p50_us": [[1]]}', r"rows\[0\] must be an object, got 3"),
        (
            '{"schema": 2, "rows": [], "server": [], "block_p50_us": [["x"]]}',
            r"block_p50_us\[0\]\[0\] must be",
        ),
        ('{"schema": 2, "rows": [{"p50_us": NaN}]}', r"rows\[0\].p50_us must be a number, got nan"),
        ('{"schema": 2, "rows": [], "server": [{"rate": "fast"}]}', r"server\[0\].rate must be a number, got 'fast'"),
        ('{"schema": 2, "rows": [], "server": [], "block_p50_us": []}', "no measurement"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, words: str) -> None:
    """Any file may be given; a traceback would be the tool's fault."""
    good = bench_file(tmp_path / "good", {"what": "u", "p50_us": 1.0})
    bad = tmp_path / "bad"
    bad.write_text(text)
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(DataError, match=words):
            compare_benches(*pair)
    with pytest.raises(DataError, match="cannot be read"):
        compare_benches(good, tmp_path / "absent")
