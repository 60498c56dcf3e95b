"""`export`, `predict`, `bench` and `inspect` as a user types them, from one small run."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graph2mlp.report import write_bench_report
from tests.cli import assert_one_line_error, distill, invoke
from tests.graphs import community_graph, save_npz

# Any import of torch fails, as on a device.
NO_TORCH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torch_geometric", "onnx"):
            raise ImportError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
from graph2mlp.cli import app
app()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished NOSMOG run of the tiny graph, with its bundle inside."""
    folder = tmp_path_factory.mktemp("commands")
    file = save_npz(community_graph(), folder / "tiny.npz")
    out = folder / "run"
    assert distill(file, out, "--method", "nosmog").exit_code == 0
    exported = invoke("export", out, "--onnx")
    assert exported.exit_code == 0, exported.output
    assert "agrees with torch" in exported.stdout
    return out


@pytest.fixture
def requests(run: Path, tmp_path: Path) -> Path:
    """Three requests: a known node, a new node with neighbours, a new node without."""
    width = json.loads((run / "result.json").read_text())["graph"]["features"]
    lines = [["id", *(f"x{i}" for i in range(width)), "neighbors"]]
    lines += [[name, *["0.5"] * width, near] for name, near in (("a", "3"), ("b", "4 5 6"), ("c", ""))]
    path = tmp_path / "requests.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return path


def _without_torch(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", NO_TORCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_predict_to_each_format(run: Path, requests: Path, tmp_path: Path) -> None:
    """Ids are carried through; each format holds the same answers."""
    labels = []
    for suffix in ("csv", "npz", "parquet"):
        out = tmp_path / f"answers.{suffix}"
        done = invoke("predict", run / "bundle", requests, "--out", out)
        assert done.exit_code == 0, done.output
        assert "3 requests answered" in done.stdout
        if suffix == "csv":
            with out.open() as file:
                rows = list(csv.DictReader(file))
            assert [row["id"] for row in rows] == ["a", "b", "c"]
            labels.append([row["label"] for row in rows])
        elif suffix == "npz":
            labels.append(list(np.load(out)["label"]))
    assert labels[0] == labels[1]


def test_predict_to_the_terminal(run: Path, requests: Path) -> None:
    """Without --out the answers can be piped."""
    assert invoke("predict", run / "bundle", requests).stdout.splitlines()[0] == "id,label,probability"


def test_bad_requests(run: Path, requests: Path, tmp_path: Path) -> None:
    """Wrong width, an id out of range, a missing file: one line, and no half-written answers."""
    text = requests.read_text()
    out = tmp_path / "answers.csv"
    wide = tmp_path / "wide.csv"
    wide.write_text(text.replace("x0,", "x0,x99,").replace("a,0.5", "a,0.5,0.5"))
    assert_one_line_error(invoke("predict", run / "bundle", wide, "--out", out))
    beyond = tmp_path / "beyond.csv"
    beyond.write_text(text.replace("4 5 6", "4 5 61"))
    assert_one_line_error(invoke("predict", run / "bundle", beyond, "--out", out), "61")
    assert_one_line_error(invoke("predict", run / "bundle", tmp_path / "absent.csv", "--out", out), "absent.csv")
    assert not out.exists()


def test_bundle_with_one_byte_changed(run: Path, requests: Path, tmp_path: Path) -> None:
    """A damaged model must not answer."""
    bundle = tmp_path / "bundle"
    assert invoke("export", run, "--onnx", "--out", bundle).exit_code == 0
    model = bytearray((bundle / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(model)
    for command in (["predict", bundle, requests], ["inspect", bundle], ["bench", bundle]):
        assert_one_line_error(invoke(*command), "model.onnx")


def test_export_refuses(run: Path, tmp_path: Path) -> None:
    """An existing bundle without --force, an unknown preset, something that is no run."""
    assert_one_line_error(invoke("export", run, "--onnx"), "bundle", "--force")
    assert invoke("export", run, "--onnx", "--force").exit_code == 0
    assert_one_line_error(invoke("export", run, "--onnx", "--preset", "fp23", "--out", tmp_path / "b"), "fp32")
    assert_one_line_error(invoke("export", tmp_path, "--onnx"), "not a run folder")
    assert_one_line_error(invoke("export", tmp_path / "absent", "--onnx"), "No run folder")
    assert invoke("export", run).exit_code == 2  # the form must be named


def test_bench_writes_its_rows(run: Path, tmp_path: Path) -> None:
    """Both files hold what the table shows, with the teacher beside the bundle."""
    files = ["--json", tmp_path / "b.json", "--csv", tmp_path / "b.csv"]
    done = invoke("bench", run / "bundle", "--batch", "1,3", "--seconds", "0.02", "--against", run, *files)
    assert done.exit_code == 0, done.output
    assert "p99" in done.stdout
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert {row["batch"] for row in rows} == {1, 3}
    assert any(row["what"].startswith("teacher") for row in rows)
    with (tmp_path / "b.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    assert invoke("bench", run / "bundle", "--batch", "one").exit_code == 2


def test_inspect_knows_what_it_sees(run: Path, tmp_path: Path) -> None:
    """Bundle, run, knowledge and graph each say what they are; anything else is one line."""
    expected = {
        run / "bundle": "self-check",
        run: "nosmog",
        run / "knowledge" / "sage.safetensors": "hidden layers",
        run.parent / "tiny.npz": "homophily",
    }
    for path, word in expected.items():
        done = invoke("inspect", path)
        assert done.exit_code == 0, done.output
        assert word in done.stdout
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "absent", tmp_path / "empty"):
        assert_one_line_error(invoke("inspect", path), path.name)


def test_device_commands_need_no_torch(run: Path, requests: Path) -> None:
    """A device has the base install: it predicts, measures and inspects with it."""
    for command in (
        ["predict", run / "bundle", requests],
        ["bench", run / "bundle", "--batch", "1", "--seconds", "0.02"],
        ["inspect", run / "bundle"],
        ["--help"],
    ):
        done = _without_torch(*command)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_missing_extra_is_named(run: Path, tmp_path: Path) -> None:
    """The remedy is one line of pip, not a traceback."""
    for command in (
        ["distill", "digits", "--out", tmp_path / "out"],
        ["methods"],
        ["export", run, "--onnx"],
        ["bench", run / "bundle", "--against", run],
    ):
        done = _without_torch(*command)
        assert done.returncode == 1, command
        assert "graph2mlp[distill]" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()


def test_bench_page_needs_no_torch(run: Path, tmp_path: Path) -> None:
    """A device draws what it measured; the page is the one that can be made from the JSON of the same bench."""
    page, rows = tmp_path / "bench.html", tmp_path / "bench.json"
    done = _without_torch("bench", run / "bundle", "--batch", "1", "--seconds", "0.02", "--html", page, "--json", rows)
    assert done.returncode == 0, done.stderr
    write_bench_report(tmp_path / "again.html", [rows])
    assert page.read_text() == (tmp_path / "again.html").read_text()
