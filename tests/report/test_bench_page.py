"""The page of a bench, and of several bundles together."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from graph2mlp.errors import DataError
from graph2mlp.report import write_bench_report
from tests.cli import assert_one_line_error
from tests.report.folders import bench, tree, words


def _page(tmp_path: Path, *records: dict[str, Any]) -> str:
    files = []
    for number, record in enumerate(records):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(record))
    write_bench_report(tmp_path / "page.html", files)
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_headline_and_key_figures(tmp_path: Path) -> None:
    """The bundle at its smallest batch, against the teacher of that batch."""
    shown = words(_page(tmp_path, bench()))
    assert "The bundle answers one request in 5.4 µs, 31.4 times faster than its teacher" in shown
    assert "with neighbour fetch (169 µs)" in shown
    assert "99th percentile 11.3 µs of 5,001 calls" in shown
    assert "with checks 16.1 µs" in shown
    assert "accuracy 82.1 %" in shown


def test_large_ratios_and_shares_are_written_out(tmp_path: Path) -> None:
    """An ensemble of ten hops is thousands of times slower, once "3.82e+03"; and shares were cut to "0.9" and "1.0"."""
    record = bench()
    record["rows"][0] |= {"ratio": 3819.6, "agreement": 0.9722, "reported_accuracy": 0.9427, "same_labels": 1.0}
    shown = words(_page(tmp_path, record))
    assert "5.4 µs, 3,820 times faster than its teacher" in shown
    assert "agreement, % reported accuracy, % as at export, %" in shown
    assert "97.22 94.27 100.00" in shown


def test_every_figure_is_on_the_page(tmp_path: Path) -> None:
    """A figure that does not follow its file is a constant somebody left in."""
    record = bench()
    page = _page(tmp_path, record)
    for number, row in enumerate(record["rows"]):
        for key, value in row.items():
            changed = copy.deepcopy(record)
            if isinstance(value, bool) or value is None:
                continue
            changed["rows"][number][key] = value * 2 if not isinstance(value, str) else value + " two"
            assert _page(tmp_path, changed) != page, (row["what"], key)


SERVED = {
    "what": "bundle, with checks", "bundle": "here/bundle", "scenario": "server", "slo_p99_us": 1000.0, "threads": 1,
    "rate": 41000.0, "rate_failed": 43050.0, "p50_us": 12.3, "p99_us": 812.0, "mean_batch": 3.4, "valid": True,
}  # fmt: skip


def test_server_scenario_alone(tmp_path: Path) -> None:
    """It has no rows of calls: the whole measurement was refused as "not a bench"."""
    record = bench(bundle="here/bundle") | {"schema": 2, "rows": [], "server": [SERVED]}
    shown = words(_page(tmp_path, record))
    assert "graph2mlp bench · here/bundle" in shown
    assert "A bundle answers 41,000 requests per second that arrive at random, 99 of 100 within 1,000 µs." in shown
    assert "requests per second 41,000 43,050 were too many" in shown
    assert "Under load" in shown
    assert "Nothing was measured" not in shown
    assert "Every row" not in shown
    never = SERVED | {"rate": None, "rate_failed": None, "p50_us": None, "p99_us": None, "mean_batch": None}
    shown = words(_page(tmp_path, record | {"server": [never]}))
    assert "No rate of random arrivals is answered with 99 of 100 within 1,000 µs." in shown


ODD = [None, "x", [1], {}, -1, 0, True, float("nan"), 1e308, 10**400]


@pytest.mark.parametrize("part", ["rows", "server", "failed"])
def test_edited_files_are_drawn_or_refused(part: str, tmp_path: Path) -> None:
    """Whatever a field holds, there is a page or one line; a traceback would be the tool's fault."""
    record = bench() | {"schema": 2, "server": [SERVED], "failed": [FAILED]}
    changes = [{key: value} for key in (*record[part][0], "task", "bundle", "ratio_to", "p999_us") for value in ODD]
    lines = [record[part][0] | change for change in changes]
    lines += [{k: v for k, v in record[part][0].items() if k != key} for key in record[part][0]]
    for line in [*lines, *ODD]:
        _drawn_or_refused(tmp_path, record | {part: [line, *record[part][1:]]})
    for value in ODD:
        for key in (part, "environment", "bundle", "schema"):
            _drawn_or_refused(tmp_path, record | {key: value})


FAILED = {"what": "bundle, int4", "scenario": "batch", "batch": 1, "reason": "no such kernel"}


def _drawn_or_refused(tmp_path: Path, record: dict[str, Any]) -> None:
    with contextlib.suppress(DataError):
        tree(_page(tmp_path, record))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": "x"}, r"rows\[0\].batch must be a whole number, got 'x'. Measure again"),
        ({"batch": 0}, r"rows\[0\].batch must be a number above 0, got 0"),
        ({"p50_us": "fast"}, r"rows\[0\].p50_us must be a number, got 'fast'"),
        ({"accuracy": [1]}, r"rows\[0\].accuracy must be a number, got \[1\]"),
        ({"ratio": 0}, r"rows\[0\].ratio must be a number above 0, got 0"),
        ({"size_kb": None}, r"rows\[0\] has no 'size_kb'"),
    ],
)
def test_odd_figures_are_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    """The line says which row and what is wrong with it."""
    record = bench()
    record["rows"][0] |= change
    with pytest.raises(DataError, match=said):
        _page(tmp_path, record)


def test_later_form_of_the_file(tmp_path: Path) -> None:
    """Rows name their bundle and their yardstick; arrivals and failures have tables; empty columns are left out."""
    record = bench()
    record |= {"schema": 2, "settings": {}, "block_p50_us": []}
    for row in record["rows"]:
        row |= {"bundle": "" if "teacher" in row["what"] else "here/bundle", "ratio_to": "teacher, k-hop fetch"}
        row |= {"preset": "", "energy_uj": None, "accuracy_n": 427}
    record["server"] = [SERVED]
    record["failed"] = [{"what": "bundle, int4", "scenario": "batch", "batch": 1, "reason": "no <such> kernel"}]
    shown = words(_page(tmp_path, record))
    assert "graph2mlp bench · here/bundle" in shown
    assert "31.4 times faster" in shown
    assert "41,000" in shown
    assert "no <such> kernel" in shown
    assert "measured here, 427 requests" in shown
    assert "energy" not in shown
    for row in record["rows"]:
        row["ratio_to"] = "bundle, with checks"
    shown = words(_page(tmp_path, record))
    assert "than its teacher" not in shown
    assert "how many times faster than: bundle, with checks" in shown


def test_several_files(tmp_path: Path) -> None:
    """Each file has its name at its rows, in charts and tables; rows of two machines come with a warning."""
    other = bench(bundle="runs/wide/int8.zip", scale=2.0)
    page = _page(tmp_path, bench(), other)
    shown = words(page)
    assert "graph2mlp bench · 2 bundles · 2 files" in shown
    assert "bundle, the fastest of 2 bundles, answers one request in 5.4 µs (0.json)" in shown
    for batch in (1, 64):
        for chart in ("cost", "spread"):
            assert _labels(page, f"{chart}-{batch}", "heading") == ["0.json", "1.json"]
    assert "bundle, run only 1.json runs/wide/int8.zip" in shown
    assert "several machines" not in shown
    other["environment"] = {"cpu": "another"}
    assert "several machines" in words(_page(tmp_path, bench(), other))
    tree(page)


def _labels(page: str, chart: str, class_: str) -> list[str]:
    """The words of one class in a chart."""
    drawing = next(one for one in tree(page).iter() if one.get("id") == chart)
    return [one.text or "" for one in drawing.iter() if one.tag.endswith("}text") and one.get("class") == class_]


def test_bundles_of_several_files_are_counted_once(tmp_path: Path) -> None:
    """The student before export belongs to no bundle: with it, two files of two bundles had six."""
    records = []
    for run in ("here", "there"):
        record = bench()
        record |= {"bundle": f"{run}/fp32, {run}/int8"}
        for row in record["rows"]:
            row["bundle"] = f"{run}/fp32" if row["what"] == "bundle, run only" else ""
            row["bundle"] = f"{run}/int8" if row["what"] == "bundle, with checks" else row["bundle"]
        record["rows"].append(record["rows"][0] | {"what": "student, torch", "bundle": ""})
        records.append(record)
    shown = words(_page(tmp_path, *records))
    assert "graph2mlp bench · 4 bundles · 2 files" in shown
    assert "student, torch 0.json -" in shown


def test_each_file_has_its_own_yardstick(tmp_path: Path) -> None:
    """One file without a teacher, one with: "1.0x" and "977x" of the same bundle stood in one list, unexplained."""
    alone, against = bench(), bench(scale=2.0)
    alone["rows"] = [row for row in alone["rows"] if row["what"].startswith("bundle")]
    for record, base in ((alone, "bundle, run only"), (against, "teacher, k-hop fetch")):
        for row in record["rows"]:
            row["ratio_to"] = base
    page = _page(tmp_path, alone, against)
    assert _labels(page, "cost-1", "tick") == ["× against bundle, run only", "× against teacher, k-hop fetch"]
    assert "row 1 of the same file at the same batch" in words(page)
    assert "row 1 of the same file" not in words(_page(tmp_path, against))


def test_headline_compares_within_one_file(tmp_path: Path) -> None:
    """The fastest bundle beside the teacher of another file, on another machine, would be a made-up ratio."""
    slow, fast = bench(scale=3.0), bench()
    shown = words(_page(tmp_path, slow, fast))
    assert "5.4 µs (1.json), 31.4 times faster than its teacher with neighbour fetch (169 µs)" in shown
    assert "with checks 16.1 µs" in shown


def test_load_is_no_other_machine(tmp_path: Path) -> None:
    """It differs from minute to minute: the warning about several machines stood on every page of two files."""
    records = bench(), bench(scale=2.0)
    for number, record in enumerate(records):
        record["environment"] = {"cpu": "a processor", "load": f"{number}.5"}
    shown = words(_page(tmp_path, *records))
    assert "several machines" not in shown
    assert "load 0.5; 1.5 files 0.json, 1.json" in shown


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """`a/bench.json` and `b/bench.json` are named as far as they differ; one file given twice is refused."""
    files = [tmp_path / folder / "bench.json" for folder in "ab"]
    for file in files:
        file.parent.mkdir()
        file.write_text(json.dumps(bench()))
    write_bench_report(tmp_path / "page.html", files)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert _labels(page, "cost-1", "heading") == ["a/bench.json", "b/bench.json"]
    with pytest.raises(DataError, match=r"a/bench\.json is named more than once"):
        write_bench_report(tmp_path / "page.html", [files[0], files[0].parent / ".." / "a" / "bench.json", files[0]])


def test_optional_and_unknown_figures(tmp_path: Path) -> None:
    """Rows of a later version: more percentiles are drawn, other figures are in the table, text is escaped."""
    record = bench()
    record["rows"][0] |= {"p90_us": 5.9, "p999_us": 44.4, "status": "<passed>", "requests_per_s": 185000}
    shown = words(_page(tmp_path, record))
    assert "p50 · p90 · p95 · p99 · p99.9, µs" in shown
    assert "<passed>" in shown
    assert "185,000" in shown


def test_failed_rows_do_not_cost_the_page(tmp_path: Path) -> None:
    """A row without times is in the table and in no chart."""
    record = bench()
    for key in ("p50_us", "p95_us", "p99_us", "cpu_us", "ratio", "accuracy"):
        record["rows"][3][key] = None
    shown = words(_page(tmp_path, record))
    assert shown.count("teacher, whole graph") == 4  # batch 64: bar, spread; and both lines of the table
    for row in record["rows"]:
        row["p50_us"] = None
    assert "Nothing was measured" in words(_page(tmp_path, record))


def test_figures_bear_the_name_of_their_metric(tmp_path: Path) -> None:
    """R2 of a regression was headed "accuracy"; files of two tasks name both; files of before are of classes."""
    record = bench()
    for row in record["rows"]:
        row |= {"task": "regression", "reported_accuracy": 0.8, "sample_accuracy": 0.8}
    shown = words(_page(tmp_path, record))
    assert "R2 82.1 % of this very file" in shown
    assert "R2 against latency" in shown
    assert "reported R2, % sample R2, %" in shown
    assert "ccuracy" not in shown
    assert "Accuracy or R2 against latency" in words(_page(tmp_path, bench(), record))


def test_one_row_alone(tmp_path: Path) -> None:
    """A device has the bundle only: no teacher to compare with, nothing to weigh accuracy against."""
    record = bench()
    record["rows"] = record["rows"][:1]
    record["rows"][0]["ratio"] = None
    shown = words(_page(tmp_path, record))
    assert "The bundle answers one request in 5.4 µs." in shown
    assert "Accuracy against latency" not in shown


def test_no_bench_is_refused(tmp_path: Path) -> None:
    """A run's result given by mistake, or nothing at all."""
    with pytest.raises(DataError, match="is not a bench"):
        _page(tmp_path, {"schema": 1, "runs": []})
    with pytest.raises(DataError, match="absent"):
        write_bench_report(tmp_path / "page.html", [tmp_path / "absent.json"])
    assert not (tmp_path / "page.html").exists()


def test_module_as_a_command(tmp_path: Path) -> None:
    """`python -m graph2mlp.report` says where the page lies, and errors are one line."""
    import typer

    from graph2mlp.report.__main__ import main

    app = typer.Typer()
    app.command()(main)
    file = tmp_path / "a.json"
    file.write_text(json.dumps(bench()))
    done = CliRunner().invoke(app, [str(file), "--html", str(tmp_path / "a.html")])
    assert done.exit_code == 0, done.output
    assert f"report: {tmp_path / 'a.html'}" in done.stdout
    assert CliRunner().invoke(app, [str(file)]).exit_code == 2
    page = str(tmp_path / "b.html")
    for given, said in (
        ([str(tmp_path / "no run")], "no run"),
        ([str(tmp_path), "--html", page], "cannot be read: Is a directory"),
        ([str(file), "--html", str(file / "no folder" / "b.html")], "Not a directory"),
        ([str(file), "--html", str(tmp_path)], str(tmp_path)),
    ):
        refused = CliRunner().invoke(app, given)
        assert isinstance(refused.exception, SystemExit), refused.exception
        assert_one_line_error(refused, said)
    assert not (tmp_path / "b.html").exists()
