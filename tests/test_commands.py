"""`export`, `predict`, `bench` and `inspect` as a user types them, from one small run."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from graph2mlp.errors import BundleError
from graph2mlp.export.bundle import open_bundle
from graph2mlp.export.runtime import Predictor
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


def test_a_run_in_the_place_of_its_bundle(run: Path, requests: Path, tmp_path: Path) -> None:
    """The folder everyone has at hand; it holds the bundle that is meant, or must be exported first."""
    for command in (["predict", run, requests], ["bench", run]):
        assert_one_line_error(invoke(*command), f"{run} is a run, not a bundle", str(run / "bundle"))
    with pytest.raises(BundleError, match="is a run, not a bundle"):
        Predictor(run)
    shutil.copytree(run, tmp_path / "new", ignore=shutil.ignore_patterns("bundle*"))
    words = "Export it first", f"graph2mlp export {tmp_path / 'new'} --onnx"
    assert_one_line_error(invoke("predict", tmp_path / "new", requests), *words)
    zipped = tmp_path / "new" / "small.zip"
    assert invoke("export", tmp_path / "new", "--onnx", "--out", zipped).exit_code == 0
    assert_one_line_error(invoke("predict", tmp_path / "new", requests), f"exported from it: {zipped}")
    assert_one_line_error(invoke("predict", tmp_path, requests), "is not a bundle: it has no bundle.json")


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_arguments_of_predict_the_other_way_round(run: Path, requests: Path, tmp_path: Path, form: str) -> None:
    """The bundle was taken for a folder of requests with a json file in it."""
    bundle = run / "bundle"
    if form == "zip":
        bundle = tmp_path / "b.zip"
        assert invoke("export", run, "--onnx", "--out", bundle).exit_code == 0
    assert_one_line_error(invoke("predict", requests, bundle), f"graph2mlp predict {bundle} {requests}")
    (tmp_path / "in").mkdir()
    moved = Path(shutil.copy(requests, tmp_path / "in"))
    assert_one_line_error(invoke("predict", moved.parent, bundle), f"graph2mlp predict {bundle} {moved.parent}")
    assert_one_line_error(invoke("predict", moved, tmp_path / "none"), f"graph2mlp predict BUNDLE {moved}")


def test_export_says_which_seed_it_takes(run: Path, tmp_path: Path) -> None:
    """Of several seeds one is exported; which one, only the bundle said."""
    out = tmp_path / "seeds"
    assert distill(run.parent / "tiny.npz", out, "--method", "glnn", "--seeds", 2).exit_code == 0
    done = invoke("export", out, "--onnx")
    best = max(json.loads((out / "result.json").read_text())["runs"], key=lambda one: one["student"]["val"])["seed"]
    assert f"exported is {out / f'seed-{best}'}" in done.stderr
    assert open_bundle(out / "bundle").manifest.source["seed"] == str(best)
    alone = invoke("export", out / "seed-1", "--onnx")
    assert "seeds" not in alone.stderr


def test_inspect_says_what_form_the_model_has(run: Path, tmp_path: Path) -> None:
    """onnxruntime's own format is for its reduced builds, and nothing else reads it."""
    assert "model.onnx, ONNX" in invoke("inspect", run / "bundle").stdout
    assert invoke("export", run, "--ort", "--out", tmp_path / "b").exit_code == 0
    assert "model.ort, onnxruntime's own format" in invoke("inspect", tmp_path / "b").stdout


def test_export_refuses(run: Path, tmp_path: Path) -> None:
    """An existing bundle without --force, an unknown preset, something that is no run."""
    assert_one_line_error(invoke("export", run, "--onnx"), "bundle", "--force")
    assert invoke("export", run, "--onnx", "--force").exit_code == 0
    assert_one_line_error(invoke("export", run, "--onnx", "--preset", "fp23", "--out", tmp_path / "b"), "fp32")
    assert_one_line_error(invoke("export", tmp_path, "--onnx"), "not a run folder")
    assert_one_line_error(invoke("export", tmp_path / "absent", "--onnx"), "No run folder")
    assert invoke("export", run).exit_code == 2  # the form must be named


def test_presets_from_the_command_line(run: Path, requests: Path, tmp_path: Path) -> None:
    """Export, inspect and predict with a preset; auto shows a row per preset; limits out of range are one line."""
    out = tmp_path / "small"
    done = invoke("export", run, "--onnx", "--preset", "fp16", "--max-drop", "30", "--out", out)
    assert done.exit_code == 0, done.output
    assert "validation accuracy" in done.stdout
    shown = invoke("inspect", out)
    assert "fp16" in shown.stdout
    assert "same class as the network: " in " ".join(shown.stdout.split())
    assert invoke("predict", out, requests).exit_code == 0
    how = ["--preset", "auto", "--max-drop", "30", "--batch", "2", "--out", tmp_path / "fastest"]
    auto = invoke("export", run, "--onnx", *how)
    assert auto.exit_code == 0, auto.output
    for part in ("int8-static", "fp16", "kept:", "took"):
        assert part in auto.stdout
    wrong = tmp_path / "wrong"
    assert_one_line_error(invoke("export", run, "--onnx", "--max-drop", "nan", "--out", wrong), "--max-drop")
    assert invoke("export", run, "--onnx", "--preset", "auto", "--batch", "x", "--out", wrong).exit_code == 2
    assert not wrong.exists()


def test_bench_writes_its_rows(run: Path, tmp_path: Path) -> None:
    """Both files hold what the table shows, with the teacher beside the bundle."""
    files = ["--json", tmp_path / "b.json", "--csv", tmp_path / "b.csv"]
    how = ["--batch", "1,3", "--seconds", "0.02", "--cold-starts", "0"]
    done = invoke("bench", run / "bundle", *how, "--against", run, *files)
    assert done.exit_code == 0, done.output
    assert "p99" in done.stdout
    value = json.loads((tmp_path / "b.json").read_text())
    assert not value["failed"]
    rows = value["rows"]
    assert {row["batch"] for row in rows} == {1, 3}
    assert any(row["what"].startswith("teacher") for row in rows)
    with (tmp_path / "b.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    assert invoke("bench", run / "bundle", "--batch", "one").exit_code == 2
    assert invoke("bench").exit_code == 2


def test_a_cold_bundle_needs_no_torch(run: Path) -> None:
    """Its import would take longer than everything else, and on a device it is not there."""
    code = NO_TORCH.replace("from graph2mlp.cli import app\napp()", "from graph2mlp.latency.cold import main")
    code += f"sys.exit(main(['0', 'bundle', {str(run / 'bundle')!r}, '1']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rss_mb" in done.stdout


@pytest.mark.parametrize("kind", ["bundle", "teacher", "student"])
def test_cold_processes_answer(run: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What a fresh process does to answer once, here without its imports: a wrong shape would leave the row empty."""
    from graph2mlp.latency.cold import main

    assert main([str(time.perf_counter_ns()), kind, str(run / "bundle" if kind == "bundle" else run), "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["ms"] < 60_000
    # Of this process, which is not fresh: what tests before it left may be given back meanwhile.
    assert found["rss_mb"] is None or abs(found["rss_mb"]) < 10_000


def test_bench_scenarios_and_compare(run: Path, tmp_path: Path) -> None:
    """Each scenario gives its rows, and two files of them can be compared; the answer is not an exit code."""
    quick = ["--seconds", "0.02", "--cold-starts", "0"]
    names = []
    for name, scenario in (("a", "single,server"), ("b", "single,batch,server")):
        file = tmp_path / f"{name}.json"
        names.append(file)
        options = ["--batch", "2", "--scenario", scenario, "--slo-p99-us", "1000000", "--json", file]
        done = invoke("bench", run / "bundle", run / "bundle", *quick, *options)
        assert done.exit_code == 0, done.output
        assert "VALID" in done.stdout
    batches = [[row["batch"] for row in json.loads(file.read_text())["rows"]] for file in names]
    assert batches == [[1] * 4, [1] * 4 + [2] * 4]
    done = invoke("bench", "--compare", *names)
    assert done.exit_code == 0, done.output
    assert "only in the second" in done.stdout
    (tmp_path / "c.json").write_text("{}")
    assert_one_line_error(invoke("bench", "--compare", names[0], tmp_path / "c.json"), "c.json", "not a bench")
    assert invoke("bench", run / "bundle", "--compare", *names).exit_code == 2
    assert invoke("bench", run / "bundle", "--scenario", "offline").exit_code == 2


def test_a_server_alone_is_drawn(run: Path, tmp_path: Path) -> None:
    """After the whole measurement the page was refused as "no bench", and no table was shown."""
    quick = ["--seconds", "0.02", "--cold-starts", "0", "--scenario", "server", "--slo-p99-us", "1000000"]
    page, rows = tmp_path / "b.html", tmp_path / "b.json"
    done = invoke("bench", run / "bundle", *quick, "--html", page, "--json", rows)
    assert done.exit_code == 0, done.output
    assert "VALID" in done.stdout
    write_bench_report(tmp_path / "again.html", [rows])
    assert page.read_text() == (tmp_path / "again.html").read_text()


def test_a_measurement_outlives_its_files(run: Path, tmp_path: Path) -> None:
    """The tables come first: a file that cannot be written costs that file only."""
    (tmp_path / "taken").touch()
    quick = ["--batch", "1", "--seconds", "0.02", "--cold-starts", "0"]
    done = invoke("bench", run / "bundle", *quick, "--json", tmp_path / "taken" / "b.json")
    assert done.exit_code == 1
    assert "Latency, us per call" in done.stdout
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_bench_writes_no_file_over_another(run: Path, tmp_path: Path) -> None:
    """`--json F --csv F` left the CSV only; a file in the bundle made the bundle one that nobody opens."""
    file = tmp_path / "b.json"
    for options in (
        ["--json", file, "--csv", tmp_path / "x" / ".." / "b.json"],
        ["--html", file, "--csv", file],
        ["--json", run / "bundle"],
        ["--csv", run / "bundle" / "b.csv"],
    ):
        assert_one_line_error(invoke("bench", run / "bundle", *options), "Give each file")
    assert not list(tmp_path.iterdir())
    for seconds in ("inf", "nan"):
        assert_one_line_error(invoke("bench", run / "bundle", "--seconds", seconds), f"(got {seconds})")
    open_bundle(run / "bundle")


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


def test_device_commands_need_no_torch(run: Path, requests: Path, tmp_path: Path) -> None:
    """A device has the base install: it predicts, measures and inspects with it."""
    out = tmp_path
    for command in (
        ["predict", run / "bundle", requests],
        ["bench", run / "bundle", "--seconds", "0.02", "--scenario", "single,server", "--json", out / "b.json"],
        ["bench", "--compare", out / "b.json", out / "b.json"],
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
