"""The bench: the right rows, the right requests, refusals before minutes are spent."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from graph2mlp.errors import BundleError, ConfigError
from graph2mlp.latency import bench_bundle
from graph2mlp.latency_rows import (
    ANSWER,
    FETCH,
    MLP,
    PYG,
    RUN_ONLY,
    TORCH,
    WHOLE,
    write_bench_csv,
    write_bench_json,
)


@pytest.mark.parametrize("kind", ["sparse", "dense", "features", "zip"])
def test_bundle_alone(bundles, kind: str) -> None:
    """A device has the bundle and nothing else; batches larger than its sample repeat it."""
    rows = bench_bundle(bundles(kind), batches=(1, 300), seconds=0.02)
    assert [(row.what, row.batch) for row in rows] == [(RUN_ONLY, 1), (ANSWER, 1), (RUN_ONLY, 300), (ANSWER, 300)]
    assert all(row.ratio is None and row.n >= 20 and row.size_kb > 0 for row in rows)
    assert all(row.accuracy is not None for row in rows)


def test_against_the_run(bundles, make_run) -> None:
    """The teacher's fetch is the yardstick of every batch; one pass over the graph costs the same for any."""
    rows = bench_bundle(bundles("sparse"), batches=(1, 4), seconds=0.02, against=make_run())
    names = [RUN_ONLY, ANSWER, FETCH, PYG, TORCH, MLP]
    assert [row.what for row in rows] == [*names, WHOLE, *names]
    for row in rows:
        assert row.ratio is not None
        assert row.ratio == 1 if row.what == FETCH else row.ratio > 0
        expected = {"teacher": "graph", "plain": "features"}.get(row.what.split(",")[0].split()[0], "structure")
        assert row.regime == expected


def test_students_without_structure_can_be_compared(bundles, make_run) -> None:
    run = make_run(sparse=False, structure=False, setting="transductive")
    assert len(bench_bundle(bundles("features"), batches=(2,), seconds=0.02, against=run)) == 7


def test_another_run_is_refused(bundles, make_run) -> None:
    """A ratio against somebody else's teacher looks like any other ratio."""
    run = make_run()
    run.fingerprint = "another"
    with pytest.raises(BundleError, match="was not exported from"):
        bench_bundle(bundles("sparse"), against=run)


@pytest.mark.parametrize("wrong", [{"batches": ()}, {"batches": (0,)}, {"threads": 0}, {"seconds": 0}])
def test_settings_out_of_range(bundles, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="bench needs"):
        bench_bundle(bundles("sparse"), **wrong)


def test_files_say_which_machine(bundles, tmp_path: Path) -> None:
    """A latency without its machine and versions cannot be compared with anything."""
    rows = bench_bundle(bundles("sparse"), batches=(1,), seconds=0.02)
    write_bench_json(tmp_path / "b.json", rows, bundle="here")
    write_bench_csv(tmp_path / "b.csv", rows, bundle="here")
    value = json.loads((tmp_path / "b.json").read_text())
    assert value["rows"][0]["p50_us"] == rows[0].p50_us
    assert value["environment"]["cpu"]
    with (tmp_path / "b.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["what"] for line in lines] == [RUN_ONLY, ANSWER]
    assert {"cpu", "onnxruntime", "p99_us", "bundle"} <= lines[0].keys()
