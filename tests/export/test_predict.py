"""File in, file out, in one call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from graph2mlp.cli import app
from graph2mlp.errors import RequestError, RunError
from graph2mlp.export.predict import predict_file
from graph2mlp.lock import hold
from tests.cli import assert_one_line_error, hears_interrupts, invoke


def test_file_to_file(bundles, tmp_path: Path) -> None:
    """Ids come back beside the answers, in the order of the requests; nothing else is left in the folder."""
    (tmp_path / "in.csv").write_text("neighbors,id,indices\n3,n3,1 2\n,new,\n")
    found = predict_file(bundles("sparse"), tmp_path / "in.csv", out=tmp_path / "out.csv")
    assert found.requests == 2
    assert "2 requests answered" in found.summary()
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["id", "n3", "new"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.csv", "out.csv"]
    assert predict_file(bundles("sparse"), tmp_path / "in.csv").out is None


def test_nothing_is_written_when_a_request_is_wrong(bundles, tmp_path: Path) -> None:
    """An answer file beside an error would be taken for complete."""
    source = tmp_path / "in.csv"
    source.write_text("indices,neighbors\n1,3\n1,99\n")
    with pytest.raises(RequestError, match="neighbour id 99"):
        predict_file(bundles("sparse"), source, out=tmp_path / "out.csv")
    with pytest.raises(RequestError, match="requests itself"):
        predict_file(bundles("sparse"), source, out=source)
    with pytest.raises(RequestError, match="answers are written as"):
        predict_file(bundles("sparse"), source, out=tmp_path / "out.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["in.csv"]


def test_errors_name_the_file(bundles, tmp_path: Path) -> None:
    """Without --out a request is as hard to find as with it."""
    source = tmp_path / "in.csv"
    for text in ("indices,neighbors\n1,99\n", "indices\n1\n", "indices,neighbors\n99,1\n"):
        source.write_text(text)
        for out in ((), ("--out", tmp_path / "out.csv")):
            assert_one_line_error(invoke("predict", bundles("sparse"), source, *out), str(source))


def test_missing_folder(bundles, tmp_path: Path) -> None:
    """It was called a file of the kind ''."""
    assert_one_line_error(invoke("predict", bundles("sparse"), tmp_path / "folder"), "folder does not exist")


@pytest.mark.parametrize("charset", ["ascii", "latin-1", "utf-8"])
def test_terminal_that_cannot_show_an_id(bundles, tmp_path: Path, charset: str) -> None:
    """The header was there, and then a traceback; a pipe gets what a file would."""
    (tmp_path / "in.csv").write_text("id,indices,neighbors\nü☃,1,\n", encoding="utf-8")
    done = CliRunner(charset=charset).invoke(app, ["predict", str(bundles("sparse")), str(tmp_path / "in.csv")])
    predict_file(bundles("sparse"), tmp_path / "in.csv", out=tmp_path / "out.csv")
    assert done.stdout_bytes == (tmp_path / "out.csv").read_bytes()


def test_litter_of_a_killed_command_is_removed(bundles, tmp_path: Path) -> None:
    """Nobody else would; a command that is still at work keeps its own."""
    (tmp_path / "in.csv").write_text("indices,neighbors\n1,\n")
    for name in (".a.csv.part-1.csv", ".b.csv.part-1.csv"):
        (tmp_path / name).touch()
    predict_file(bundles("sparse"), tmp_path / "in.csv", out=tmp_path / "a.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.csv.part-1.csv", "a.csv", "in.csv"]
    with hold(tmp_path / ".b.csv.lock", "b.csv"), pytest.raises(RunError, match=r"b\.csv is in use"):
        predict_file(bundles("sparse"), tmp_path / "in.csv", out=tmp_path / "b.csv")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_command_leaves_nothing(bundles, tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM is what schedulers and containers send."""
    out = tmp_path / "out.csv"
    (tmp_path / "in.csv").write_text("indices,neighbors\n" + "1 2 3 4,5 6\n" * 1_000_000)
    command = [sys.executable, "-m", "graph2mlp", "predict", bundles("sparse"), tmp_path / "in.csv", "--out", out]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=hears_interrupts
    ) as process:
        while process.poll() is None and not list(tmp_path.glob(".out.csv.part-*")):
            time.sleep(0.002)
        process.send_signal(number)
        _, said = process.communicate()
    assert (process.returncode, said) == (130, "interrupted.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
