"""The bench: the right rows, the right requests, refusals before minutes are spent, and no row that costs another."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from graph2mlp.errors import BundleError, ConfigError, ParityError, RunError
from graph2mlp.export.runtime import Predictor
from graph2mlp.latency.bench import bench_bundle, bench_bundles
from graph2mlp.latency.cold import cold_start
from graph2mlp.latency.rows import (
    ANSWER,
    FETCH,
    MLP,
    PYG,
    RUN_ONLY,
    SAMPLED,
    TORCH,
    WHOLE,
    Row,
    write_bench_csv,
    write_bench_json,
)
from graph2mlp.latency.summary import bench_tables

QUICK: dict[str, Any] = {"batches": (1,), "seconds": 0.02}


@pytest.mark.parametrize("kind", ["sparse", "dense", "features", "zip"])
def test_bundle_alone(bundles, kind: str) -> None:
    """A device has the bundle and nothing else; batches larger than its sample repeat it."""
    rows = bench_bundle(bundles(kind), batches=(1, 300), seconds=0.02)
    assert [(row.what, row.batch) for row in rows] == [(RUN_ONLY, 1), (ANSWER, 1), (RUN_ONLY, 300), (ANSWER, 300)]
    assert [row.scenario for row in rows] == ["single", "single", "batch", "batch"]
    for row in rows:
        assert row.n >= 20
        assert row.size_kb > 0
        assert row.ratio_to == RUN_ONLY
        assert row.status == "ok"
        assert row.same_labels == 1
        assert len(row.block_p50_us) == 20
        assert row.requests_per_s == pytest.approx(1e6 * row.batch / row.mean_us)
        assert row.p50_us <= row.p90_us <= row.p95_us
    assert rows[0].ratio == 1


def test_against_the_run(bundles, make_run) -> None:
    """The teacher's fetch is row 1 and the yardstick of every batch; one pass over the graph costs the same for any."""
    rows = bench_bundle(bundles("sparse"), batches=(1, 4), seconds=0.02, against=make_run())
    ways, others = [FETCH, SAMPLED, PYG], [TORCH, MLP, RUN_ONLY, ANSWER]
    assert [row.what for row in rows] == [*ways, WHOLE, *others, *ways, *others]
    for row in rows:
        assert row.ratio is not None
        assert row.ratio == 1 if row.what == FETCH else row.ratio > 0
        assert row.ratio_to == FETCH
        expected = {"teacher": "graph", "plain": "features"}.get(row.what.split(",")[0].split()[0], "structure")
        assert row.regime == expected


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.what: row for row in rows}


def test_accuracy_is_measured_here(bundles, make_run) -> None:
    """Every contender answers the run's test nodes, unseen ones included; what was reported before is kept apart."""
    run = make_run()
    rows = by_name(bench_bundle(bundles("sparse"), **QUICK, against=run))
    graph, teacher = run.graph(), run.teacher()
    nodes = torch.cat([graph.split.test, graph.split.unseen])
    with torch.inference_mode():
        logits = teacher(graph.features(), teacher.adjacency(graph))[0][nodes]
    expected = float((logits.argmax(1) == graph.y[nodes]).float().mean())
    for what in (FETCH, PYG, WHOLE):
        assert rows[what].accuracy == pytest.approx(expected)
        assert rows[what].agreement == 1
        assert rows[what].accuracy_n == len(nodes)
        assert rows[what].reported_accuracy == 0.5  # what the made-up run claims
    bundle = rows[RUN_ONLY]
    assert bundle.accuracy == rows[ANSWER].accuracy == rows[TORCH].accuracy
    assert bundle.agreement == rows[TORCH].agreement
    sample = Predictor(bundles("sparse")).bundle.sample()
    assert bundle.sample_accuracy == pytest.approx(float((sample["labels"] == sample["y"]).mean()))


def test_several_bundles(bundles, tmp_path: Path) -> None:
    """Presets stand side by side in one run, each under a name of its own."""
    copy = tmp_path / "copy"
    shutil.copytree(bundles("sparse"), copy)
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["preset"] = "int8"
    (copy / "bundle.json").write_text(json.dumps(manifest))
    rows = bench_bundles([bundles("sparse"), copy], **QUICK).rows
    names = ["bundle fp32, run only", "bundle fp32, with checks", "bundle int8, run only", "bundle int8, with checks"]
    assert [row.what for row in rows] == names
    assert [row.preset for row in rows] == ["fp32", "fp32", "int8", "int8"]
    assert {row.ratio_to for row in rows} == {names[0]}
    twins = bench_bundles([bundles("sparse"), bundles("zip"), bundles("sparse")], **QUICK).rows
    assert len({row.what for row in twins}) == 6


def test_a_bundle_that_cannot_be_opened_fails_alone(bundles, make_run, tmp_path: Path) -> None:
    """One damaged or foreign file must not cost the table; nothing left to measure is an error."""
    found = bench_bundles([tmp_path / "absent", bundles("sparse")], **QUICK)
    assert [row.what for row in found.rows] == ["bundle fp32, run only", "bundle fp32, with checks"]
    (failure,) = found.failed
    assert "absent" in failure.what
    assert "does not exist" in failure.reason
    with pytest.raises(BundleError, match="does not exist"):
        bench_bundles([tmp_path / "absent", tmp_path / "too"], **QUICK)
    foreign = bench_bundles([bundles("sparse"), bundles("features")], **QUICK, against=make_run())
    assert len(foreign.rows) == 10  # both made-up runs have one fingerprint; without structure it answers, too


def test_nothing_measured_is_an_error(bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty table with exit code 0 would pass for a bench in a script."""

    def broken(*_arguments: object, **_named: object) -> None:
        raise OSError("illegal instruction")

    monkeypatch.setattr(Predictor, "predict", broken)
    with pytest.raises(BundleError, match="Nothing could be measured: bundle: OSError: illegal instruction"):
        bench_bundles([bundles("sparse")], **QUICK)


def test_a_bundle_without_a_sample_fails_alone(bundles, tmp_path: Path) -> None:
    """The sample is what a device checks itself with; without it there is nothing to ask, and the others go on."""
    copy, content = tmp_path / "copy", io.BytesIO()
    shutil.copytree(bundles("sparse"), copy)
    np.savez(content, ids=np.arange(3))
    (copy / "sample.npz").write_bytes(content.getvalue())
    manifest = json.loads((copy / "bundle.json").read_text())
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    manifest["files"]["sample.npz"] = {"sha256": digest, "bytes": len(content.getvalue())}
    (copy / "bundle.json").write_text(json.dumps(manifest))
    found = bench_bundles([copy, bundles("sparse")], **QUICK)
    assert len(found.rows) == 2
    assert "no requests" in found.failed[0].reason
    with pytest.raises(BundleError, match="no requests"):
        bench_bundles([copy], **QUICK)


def test_a_missing_teacher_leaves_the_rest(bundles, make_run) -> None:
    """Methods without a teacher have a bundle and a student to measure all the same."""
    run = make_run()

    def refuse() -> None:
        raise RunError("no teacher here")

    run.teacher = refuse
    found = bench_bundles([bundles("sparse")], **QUICK, against=run)
    assert [row.what for row in found.rows] == [TORCH, MLP, RUN_ONLY, ANSWER]
    assert [(one.what, one.reason) for one in found.failed] == [(FETCH, "no teacher here")]
    assert found.rows[0].agreement is None
    with pytest.raises(RunError, match="no teacher here"):
        bench_bundle(bundles("sparse"), **QUICK, against=run)


def test_a_row_that_breaks_while_it_is_measured(bundles, make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory at the largest batch, a bug in a library: the row says why, the others are there."""
    from graph2mlp.teachers.serving import TeacherServer

    def broken(self: object, ids: np.ndarray) -> None:
        raise MemoryError("too\nlarge")

    monkeypatch.setattr(TeacherServer, "pyg_logits", broken)
    found = bench_bundles([bundles("sparse")], **QUICK, against=make_run(), slo_p99_us=1e6)
    assert PYG not in by_name(found.rows)
    assert len(found.rows) == 7
    assert [(one.what, one.reason) for one in found.failed] == [(PYG, "MemoryError: too large")]
    assert "MemoryError" in _text(bench_tables(found))


def test_answers_that_differ_from_the_export_are_said(bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast file that gives other answers on this device must not look like a good one."""

    def differs(self: object) -> None:
        raise ParityError("largest difference 0.3")

    monkeypatch.setattr(Predictor, "self_check", differs)
    rows = bench_bundle(bundles("sparse"), **QUICK)
    assert rows[0].status == "answers, but not as exported: largest difference 0.3"


def test_server_scenario(bundles, make_run) -> None:
    """Teacher and bundle face the same arrivals, and the ratio is one of rates."""
    found = bench_bundles([bundles("sparse")], batches=(), seconds=0.02, against=make_run(), slo_p99_us=1e6)
    assert not found.rows
    assert [row.what for row in found.server] == [FETCH, SAMPLED, PYG, WHOLE, TORCH, MLP, ANSWER]
    for row in found.server:
        assert row.scenario == "server"
        assert row.valid
        assert row.rate is not None
        assert row.p99_us is not None
        assert row.p99_us <= 1e6
        assert row.n >= 662
        assert row.ratio_to == FETCH
    assert found.server[0].ratio == 1
    never = bench_bundles([bundles("sparse")], batches=(), seconds=0.02, slo_p99_us=1e-3)
    assert [(row.valid, row.rate, row.n) for row in never.server] == [(False, None, 0)]
    assert "INVALID" in _text(bench_tables(never))


def test_cold_start_in_a_fresh_process(bundles, make_run, tmp_path: Path) -> None:
    """A warm process has paid for its imports: the figure must come from a new one."""
    row = bench_bundles([bundles("zip")], **QUICK, cold_starts=1).rows[0]
    assert row.cold_start_ms is not None
    assert row.cold_start_ms > 20  # no interpreter with numpy and onnxruntime starts faster
    assert row.rss_mb is None or 0 < row.rss_mb < 200
    with pytest.raises(RunError, match="does not exist"):
        cold_start("bundle", Path("absent"))
    with pytest.raises(RunError, match="could not answer.*is not a bundle"):
        cold_start("bundle", tmp_path)
    # The made-up run is in no folder: its process fails, its rows do not.
    found = bench_bundles([bundles("sparse")], **QUICK, against=make_run(), cold_starts=1)
    assert len(found.rows) == 8
    assert {one.scenario for one in found.failed} == {"cold start"}


def _text(tables: list[Any]) -> str:
    out = io.StringIO()
    console = Console(width=100, file=out)
    for one in tables:
        console.print(one)
    return out.getvalue()


def test_tables_fit_a_terminal(bundles, make_run) -> None:
    """At 100 columns no figure may be cut off."""
    found = bench_bundles([bundles("sparse")], batches=(1, 4096), seconds=0.02, against=make_run(), slo_p99_us=1e6)
    text = _text(bench_tables(found))
    assert "\u2026" not in text  # the sign of a cell that was cut
    for row in found.rows:
        assert row.what in text


def test_students_without_structure_can_be_compared(bundles, make_run) -> None:
    run = make_run(sparse=False, structure=False, setting="transductive")
    assert len(bench_bundle(bundles("features"), batches=(2,), seconds=0.02, against=run)) == 8


def test_another_run_is_refused(bundles, make_run) -> None:
    """A ratio against somebody else's teacher looks like any other ratio."""
    run = make_run()
    run.fingerprint = "another"
    with pytest.raises(BundleError, match="was not exported from"):
        bench_bundle(bundles("sparse"), against=run)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"batches": ()}, "batch sizes, or a promise for the server scenario (got neither)"),
        ({"batches": (1, 0, 64)}, "batch sizes of at least 1 (got 0)"),
        ({"threads": 0}, "threads of at least 1 (got 0)"),
        ({"seconds": float("nan")}, "seconds above 0, and an end (got nan)"),
        ({"seconds": float("inf")}, "seconds above 0, and an end (got inf)"),
        ({"slo_p99_us": 0}, "a promise (--slo-p99-us) above 0, and an end (got 0)"),
        ({"slo_p99_us": float("inf")}, "a promise (--slo-p99-us) above 0, and an end (got inf)"),
        ({"cold_starts": -1}, "cold starts of at least 0 (got -1)"),
    ],
)
def test_settings_out_of_range(bundles, wrong: dict[str, object], words: str) -> None:
    """The one that is wrong is named; a list of all of them left the reader to guess."""
    with pytest.raises(ConfigError) as caught:
        bench_bundles([bundles("sparse")], **wrong)
    assert str(caught.value) == f"bench needs {words}"


def test_no_bundle_is_an_error() -> None:
    with pytest.raises(ConfigError, match="needs a bundle to measure"):
        bench_bundles([])


def test_files_say_which_machine(bundles, tmp_path: Path) -> None:
    """A latency without its machine and versions cannot be compared with anything."""
    found = bench_bundles([bundles("sparse")], **QUICK, slo_p99_us=1e6)
    write_bench_json(tmp_path / "b.json", found, bundle="here", settings={"threads": 1})
    write_bench_csv(tmp_path / "b.csv", found, bundle="here")
    value = json.loads((tmp_path / "b.json").read_text())
    assert value["schema"] == 2
    assert value["rows"][0]["p50_us"] == found.rows[0].p50_us
    assert all(not isinstance(cell, list | dict) for row in value["rows"] + value["server"] for cell in row.values())
    assert value["block_p50_us"] == [list(row.block_p50_us) for row in found.rows]
    assert value["environment"]["cpu"]
    assert value["environment"]["load"]
    assert value["environment"]["energy"]
    assert value["rows"][0]["model_sha256"] == Predictor(bundles("sparse")).manifest.files["model.onnx"].sha256
    with (tmp_path / "b.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["what"] for line in lines] == [RUN_ONLY, ANSWER, ANSWER]
    assert [line["scenario"] for line in lines] == ["single", "single", "server"]
    assert float(lines[2]["rate"]) == found.server[0].rate
    assert {"cpu", "onnxruntime", "p99_us", "bundle", "energy_uj"} <= lines[0].keys()
