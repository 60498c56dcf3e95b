"""`predict --ray`: the answers of one process, from the processes of a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graph2mlp.export.shards import JOURNAL, predict_shards
from tests.cli import assert_one_line_error, invoke
from tests.export.test_shards import ROOT, contents, write_shards

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def alone() -> object:
    """Whatever cluster the shell knows stays out of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", str(ROOT))  # the cluster's processes import what is tested
        yield patch


def command(bundle: Path, source: Path, out: Path) -> list[str]:
    start = [sys.executable, "-m", "graph2mlp", "predict", str(bundle), str(source)]
    return [*start, "--out", str(out), "--ray"]


def test_same_answers_also_when_killed(bundles, tmp_path: Path) -> None:
    """SIGKILL for the command, cluster or not: the same command ends with every row once."""
    source, out = write_shards(tmp_path / "in", [30_000, 0, 30_000, 7, 30_000, 30_000]), tmp_path / "out"
    predict_shards(bundles("features"), source, tmp_path / "whole")
    with subprocess.Popen(
        command(bundles("features"), source, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and not list(out.glob("*.parquet")):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    done = subprocess.run(command(bundles("features"), source, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert contents(out) == contents(tmp_path / "whole")
    assert len((out / JOURNAL).read_text().splitlines()) == 7
    assert "requests of" in done.stdout


def test_bad_shard_is_one_line(bundles, tmp_path: Path) -> None:
    """The error of a task is that of the file; what else was answered stays."""
    source = write_shards(tmp_path / "in", [5, 5])
    (source / "part-1.parquet").write_bytes(b"PAR1 and no more")
    stopped = invoke("predict", bundles("features"), source, "--out", tmp_path / "out", "--ray")
    assert stopped.exit_code == 1
    assert stopped.stderr.splitlines()[-1].startswith(f"error: {source}/part-1.parquet is not a parquet file")
    assert "Traceback" not in stopped.stderr
    assert not list((tmp_path / "out").glob(".*part*"))


def test_a_cluster_that_is_running_is_used(bundles, tmp_path: Path) -> None:
    """And left running."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=1, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    try:
        source = write_shards(tmp_path / "in", [5, 0, 7])
        found = predict_shards(bundles("features"), source, tmp_path / "out", ray=True)
        assert (found.shards, found.requests) == (3, 12)
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_no_cluster_at_that_address(bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line instead of a page of Ray's."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    source = write_shards(tmp_path / "in", [5])
    stopped = invoke("predict", bundles("features"), source, "--out", tmp_path / "out", "--ray")
    assert_one_line_error(stopped, "No Ray cluster at 127.0.0.1:1", "leave out --ray")


def test_what_does_not_go_together(bundles, tmp_path: Path) -> None:
    source = write_shards(tmp_path / "in", [5])
    both = ("predict", bundles("features"), source, "--out", tmp_path / "out", "--ray", "--workers", "2")
    assert invoke(*both).exit_code == 2
    assert invoke("predict", bundles("features"), source / "part-0.parquet", "--ray").exit_code == 2
