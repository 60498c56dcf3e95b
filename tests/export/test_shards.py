"""A folder of requests becomes a folder of answers: every row once, whatever happens on the way."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from graph2mlp.errors import Graph2MLPError, RequestError
from graph2mlp.export import shard_workers
from graph2mlp.export.inputs import read_requests
from graph2mlp.export.predict import predict_file
from graph2mlp.export.shards import JOURNAL, find_shards, predict_shards
from graph2mlp.export.stream import request_parts
from tests.cli import assert_one_line_error, hears_interrupts, invoke

ROOT = Path(__file__).parents[2]
F = 20


def write_shards(folder: Path, rows: list[int], suffix: str = ".parquet") -> Path:
    """Shards of so many dense requests; ids run on from one to the next."""
    folder.mkdir(exist_ok=True)
    first, rng = 0, np.random.default_rng(0)
    for number, count in enumerate(rows):
        columns = {"id": np.arange(first, first + count)}
        columns |= {f"x{i}": rng.normal(size=count).astype(np.float32) for i in range(F)}
        path, first = folder / f"part-{number}{suffix}", first + count
        if suffix == ".parquet":
            arrow = pytest.importorskip("pyarrow")
            import pyarrow.parquet as parquet

            parquet.write_table(arrow.table(columns), path)
        elif suffix == ".csv":
            rows_of = zip(*(column.tolist() for column in columns.values()), strict=True)
            path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows_of)]) + "\n")
        else:
            np.savez(path, ids=columns["id"], x=np.stack([columns[f"x{i}"] for i in range(F)], 1))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != JOURNAL}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz"])
def test_every_shard_is_answered_as_alone(bundles, tmp_path: Path, suffix: str) -> None:
    """Same names, same rows, same order; also of a shard without rows."""
    source = write_shards(tmp_path / "in", [30, 0, 7], suffix)
    found = predict_shards(bundles("features"), source, tmp_path / "out")
    assert (found.shards, found.requests, found.passed) == (3, 37, 0)
    for path in find_shards(source) or []:
        predict_file(bundles("features"), path, out=tmp_path / f"alone{suffix}")
        assert (tmp_path / "out" / path.name).read_bytes() == (tmp_path / f"alone{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_parts_are_bounded_and_lose_nothing(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of one row group must not be loaded at once; its last part is short."""
    monkeypatch.setattr("graph2mlp.export.stream._ROWS", 16)
    file = write_shards(tmp_path / "in", [50], suffix) / f"part-0{suffix}"
    parts, whole = list(request_parts(file, features=F)), read_requests(file, features=F)
    assert [len(part) for part in parts] == [16, 16, 16, 2]
    np.testing.assert_array_equal(np.concatenate([part.x for part in parts]), whole.x)
    assert np.concatenate([part.ids for part in parts]).astype(int).tolist() == list(range(50))


def test_parts_number_rows_and_name_them_in_errors(bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ids the row number is the id, in the second part too; a mistake there is found again by its number."""
    monkeypatch.setattr("graph2mlp.export.stream._ROWS", 4)
    rows = [",".join(f"x{i}" for i in range(F)), *([",".join(["1"] * F)] * 10)]
    (tmp_path / "in.csv").write_text("\n".join(rows) + "\n")
    predict_file(bundles("features"), tmp_path / "in.csv", out=tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["id", *map(str, range(10))]
    for wrong, message in (("one", "request 2: 'x0' must be a number.*from request 4"), ("inf", "from request 4.*'x'")):
        rows[7] = ",".join([wrong, *["1"] * (F - 1)])
        (tmp_path / "in.csv").write_text("\n".join(rows) + "\n")
        with pytest.raises(RequestError, match=message):
            predict_file(bundles("features"), tmp_path / "in.csv", out=tmp_path / "bad.csv")
    assert not (tmp_path / "bad.csv").exists()


def test_second_time_only_what_is_missing(bundles, tmp_path: Path) -> None:
    """Noted shards are passed over; one whose answers are gone, or that was written anew, is not."""
    source, out = write_shards(tmp_path / "in", [5, 6, 7, 8]), tmp_path / "out"
    predict_shards(bundles("features"), source, out)
    whole = contents(out)
    assert predict_shards(bundles("features"), source, out).requests == 0
    (out / "part-1.parquet").unlink()
    with (out / JOURNAL).open("a") as file:
        file.write('{"shard": "part-')
    os.utime(source / "part-3.parquet", ns=(1, 1))
    assert predict_shards(bundles("features"), source, out).requests == 6 + 8
    with (out / JOURNAL).open("ab") as file:
        file.write(b'{"shard": "part-0.parquet", "rows": 5}\n"\xff"\n{"shard": "\xff"}\n[]\n')
    assert predict_shards(bundles("features"), source, out).requests == 0
    assert predict_shards(bundles("features"), source, out).passed == 4
    assert contents(out) == whole


def test_bad_shard_costs_no_other(bundles, tmp_path: Path) -> None:
    """After it is mended, the same command goes on behind what was answered."""
    source, out = write_shards(tmp_path / "in", [5, 6]), tmp_path / "out"
    good = (source / "part-1.parquet").read_bytes()
    (source / "part-1.parquet").write_bytes(good[:100])
    for workers in (1, 2):
        with pytest.raises(RequestError, match=r"part-1.parquet is not a parquet file"):
            predict_shards(bundles("features"), source, out, workers=workers)
        assert not (out / "part-1.parquet").exists()
    (source / "part-1.parquet").write_bytes(good)
    predict_shards(bundles("features"), source, out)
    assert sorted(contents(out)) == ["part-0.parquet", "part-1.parquet"]


def test_what_is_refused(bundles, tmp_path: Path) -> None:
    """One line each, and nothing written over what someone else put there."""
    source, out = write_shards(tmp_path / "in", [5]), tmp_path / "out"
    predict_shards(bundles("features"), source, out)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "part-0.parquet").write_text("mine")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("mine")
    for bundle, where, to, message in (
        ("dense", source, out, "another bundle"),
        ("features", source, tmp_path / "other", "already, from elsewhere"),
        ("features", source, source, "the folder of requests itself"),
        ("features", source, bundles("features") / "x", "inside the bundle"),
        ("features", source, source / "part-0.parquet", "is a file"),
        ("features", tmp_path / "empty", out, "No files of requests"),
        ("features", tmp_path / "in" / "*.csv", out, "No files of requests"),
        ("features", tmp_path / "notes", out, "got '.txt'"),
        ("features", tmp_path / "*" / "part-0.parquet", out, "Two files are called part-0.parquet"),
    ):
        with pytest.raises(Graph2MLPError, match=message):
            predict_shards(bundles(bundle), where, to)
    assert (tmp_path / "other" / "part-0.parquet").read_text() == "mine"
    assert_one_line_error(invoke("predict", bundles("features"), tmp_path / "empty", "--out", out), "No files")
    assert invoke("predict", bundles("features"), source).exit_code == 2


def test_empty_journal(bundles, tmp_path: Path) -> None:
    """Lines after no header were taken for the header by the next command."""
    source, out = write_shards(tmp_path / "in", [5], ".npz"), tmp_path / "out"
    out.mkdir()
    (out / JOURNAL).touch()
    with pytest.raises(RequestError, match="is damaged"):
        predict_shards(bundles("features"), source, out)


def test_entries_that_are_no_files(bundles, tmp_path: Path) -> None:
    """A folder among the shards may hold rows, too, and so did a link's target; the answers themselves are none."""
    source = write_shards(tmp_path / "in", [5], ".npz")
    for out in (source / "answers", source / "answers"):  # the second time the folder is there
        assert predict_shards(bundles("features"), source, out).shards == 1
    (source / "_temporary").mkdir()
    assert len(find_shards(source, beside=source / "answers") or []) == 1
    (source / "part-1.npz").symlink_to(tmp_path / "nowhere.npz")
    for where in (source, source / "part-*.npz"):
        with pytest.raises(RequestError, match=r"part-1\.npz is a link to nothing"):
            predict_shards(bundles("features"), where, source / "answers")
    (source / "part-1.npz").unlink()
    (source / "part-1.npz").mkdir()
    for where in (source, source / "part-*.npz"):
        with pytest.raises(RequestError, match=r"part-1\.npz is a folder"):
            predict_shards(bundles("features"), where, source / "answers")


def test_errors_of_a_worker_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody had thought of ended in a traceback, and in the advice to use less memory."""

    class Broken:
        def __init__(self, bundle: Path) -> None:
            pass

        def to_file(self, *_: object, **__: object) -> None:
            raise LookupError("nobody\nthought of this")

    monkeypatch.setattr("graph2mlp.export.shard_workers.Answerer", Broken)
    before = signal.getsignal(signal.SIGINT)
    ours, theirs = multiprocessing.Pipe()
    ours.send(tmp_path / "part-3.csv")
    try:
        shard_workers._serve(theirs, tmp_path, tmp_path, os.getppid())
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(RequestError, match=r"part-3\.csv cannot be answered \(LookupError: nobody thought of this\)"):
        shard_workers._result(ours)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_interrupted_command_says_so(bundles, tmp_path: Path, workers: str) -> None:
    """Ctrl-C reaches the workers, too: one line, code 130, and nobody goes on in the background."""
    shards = 200  # far more than can be answered between the first file and the signal
    source, out = write_shards(tmp_path / "in", [60_000]), tmp_path / "out"
    for number in range(1, shards):
        (source / f"part-{number}.parquet").hardlink_to(source / "part-0.parquet")
    command = [sys.executable, "-m", "graph2mlp", "predict", str(bundles("features")), str(source), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "--workers", workers],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=hears_interrupts,
    ) as process:
        while process.poll() is None and not list(out.glob("*.parquet")):
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == f"interrupted. What is in {out} stays; the same command goes on."
    assert "Traceback" not in said
    assert not list(out.glob(".*"))
    assert len(list(out.glob("*.parquet"))) < shards


def test_killed_command_is_given_again(bundles, tmp_path: Path) -> None:
    """SIGKILL at random moments, workers and all: no row lost or doubled, no temporary file left."""
    source, out = write_shards(tmp_path / "in", [60_000] * 6), tmp_path / "out"
    predict_shards(bundles("features"), source, tmp_path / "whole")
    command = [sys.executable, "-m", "graph2mlp", "predict", str(bundles("features")), str(source), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    rng, killed = random.Random(0), 0
    for _ in range(4):
        with subprocess.Popen(
            [*command, "--workers", "2"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            while process.poll() is None and not (out / JOURNAL).exists():
                time.sleep(0.002)
            time.sleep(0.1 * rng.random())
            process.send_signal(signal.SIGKILL)
            _, said = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), said
        killed += process.returncode != 0
    assert killed
    last = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert contents(out) == contents(tmp_path / "whole")
    lines = (out / JOURNAL).read_text().splitlines()
    assert len(lines) == 7
