"""What a run claims is checked against what it holds: changed files, other splits and mixed-up folders are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.cli import assert_one_line_error, distill, invoke, result_of
from tests.graphs import community_graph, save_npz


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny graph and a finished run of it."""
    folder = tmp_path_factory.mktemp("distrust")
    file = save_npz(community_graph(), folder / "tiny.npz")
    assert distill(file, folder / "run", "--method", "nosmog").exit_code == 0
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of that run, to be spoilt."""
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path / "run"


def test_edited_settings_do_not_change_the_figures(run: Path, tmp_path: Path) -> None:
    """Another seed means another split: nodes the student was trained on would be called test nodes."""
    config = run / "config.toml"
    config.write_text(config.read_text().replace('setting = "transductive"', 'setting = "production"'))
    assert_one_line_error(invoke("export", run, "--onnx", "--out", tmp_path / "b"), "changed", "distill again")
    assert not (tmp_path / "b").exists()


def test_changed_graph_is_noticed(made: Path, tmp_path: Path) -> None:
    """Labels that were corrected, or shuffled, after the run was made."""
    graph = community_graph()
    file = save_npz(graph, tmp_path / "tiny.npz")
    assert distill(file, tmp_path / "run", "--method", "glnn").exit_code == 0
    labels = graph.y.numpy().copy()
    test = graph.split.test.numpy()
    labels[test] = np.roll(labels[test], 1)
    save_npz(graph, file, y=labels)
    assert_one_line_error(invoke("export", tmp_path / "run", "--onnx"), "changed")


def test_other_weights_are_noticed(run: Path) -> None:
    """The reported accuracy belongs to one set of weights."""
    other = result_of(run)
    other["fingerprint"] = "0" * 32
    (run / "result.json").write_text(json.dumps(other))
    for command in (["export", run, "--onnx", "--force"], ["inspect", run]):
        assert_one_line_error(invoke(*command), "student.safetensors", "distill again")


@pytest.mark.parametrize("text", ['{"schema": 1}', '{"schema": 1, "runs": []}', "[]", "{"])
def test_damaged_result(text: str, run: Path) -> None:
    """Whatever the file holds, the answer is one line that names it."""
    (run / "result.json").write_text(text)
    assert_one_line_error(invoke("inspect", run), "result.json")


@pytest.mark.parametrize(
    "change",
    [
        {"graph": "cora"},
        {"graph": {"name": "tiny", "nodes": "many"}},
        {"student": {"val": 0.5}},
        {"student": 3},
        {"task": ["classification"]},
        {"fingerprint": None},
        {"runs": [{"seed": 0, "student": {"val": "good"}}]},
        {"runs": "two"},
    ],
)
def test_edited_result(change: dict[str, object], run: Path) -> None:
    """Keys were looked at, types were not: each ended in a traceback of one command or another."""
    (run / "result.json").write_text(json.dumps(result_of(run) | change))
    for command in (["inspect", run], ["export", run, "--onnx"]):
        assert_one_line_error(invoke(*command), "result.json is damaged: ", "Run distill again")


def test_knowledge_of_another_split_is_refused(made: Path, tmp_path: Path) -> None:
    """A teacher of another split has learned from labels that are test labels here."""
    graph = community_graph()
    split = graph.split
    other = {"train": split.val.numpy(), "val": split.train.numpy(), "test": split.test.numpy()}
    file = save_npz(graph, tmp_path / "other.npz", **other)
    knowledge = made / "run" / "knowledge" / "sage.safetensors"
    out = tmp_path / "out"
    refused = distill(file, out, "--method", "glnn", "--knowledge", knowledge)
    assert_one_line_error(refused, "another split")
    assert not out.exists()
    assert_one_line_error(distill(file, out, "--method", "mlp", "--knowledge", knowledge), "learns from no teacher")


def test_partial_split_is_refused(tmp_path: Path) -> None:
    """Drawing the rest ourselves would put the user's test nodes into training."""
    graph = community_graph()
    parts = {"x": graph.x.to_dense().numpy(), "edge_index": graph.edge_index.numpy(), "y": graph.y.numpy()}
    np.savez(tmp_path / "g.npz", **parts, train=graph.split.train.numpy(), test=graph.split.test.numpy())
    assert_one_line_error(invoke("inspect", tmp_path / "g.npz"), "test and train only")
    np.savez(tmp_path / "h.npz", **parts, **dict.fromkeys(("train", "val", "test"), np.ones(7, bool)))
    assert_one_line_error(invoke("inspect", tmp_path / "h.npz"), "mask train")


def test_folder_of_one_seed_is_not_one_of_several(made: Path, run: Path, tmp_path: Path) -> None:
    """A summary must not replace the result of a single run, nor the reverse."""
    file = made / "tiny.npz"
    assert_one_line_error(distill(file, run, "--method", "nosmog", "--seeds", "2", "--resume"), "other settings")
    several = tmp_path / "several"
    assert distill(file, several, "--method", "glnn", "--seeds", "2").exit_code == 0
    assert_one_line_error(distill(file, several, "--method", "glnn", "--resume"), "other settings")
    assert distill(file, several, "--method", "glnn", "--seeds", "2", "--resume").exit_code == 0


def test_run_can_be_opened_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative name means the place where it was typed."""
    save_npz(community_graph(), tmp_path / "tiny.npz")
    monkeypatch.chdir(tmp_path)
    assert distill("tiny.npz", Path("run"), "--method", "glnn").exit_code == 0
    monkeypatch.chdir(tmp_path.parent)
    done = invoke("export", tmp_path / "run", "--onnx")
    assert done.exit_code == 0, done.output


def test_answers_do_not_go_into_the_bundle(made: Path, tmp_path: Path) -> None:
    """One more file in it, and the bundle would be refused as changed."""
    bundle = tmp_path / "bundle"
    assert invoke("export", made / "run", "--onnx", "--out", bundle).exit_code == 0
    (tmp_path / "r.csv").write_text("neighbors\n1\n")
    assert_one_line_error(invoke("predict", bundle, tmp_path / "r.csv", "--out", bundle / "a.csv"), "inside the bundle")


def test_help_shows_defaults() -> None:
    """Square brackets are eaten by the help's markup."""
    assert "Default: runs/GRAPH-METHOD" in " ".join(invoke("distill", "--help").stdout.replace("│", " ").split())


def test_several_seeds_go_on_from_before_the_first(made: Path, tmp_path: Path) -> None:
    """Killed right after the folder was claimed, there is no seed yet, and still it is the same command's folder."""
    out = tmp_path / "several"
    assert distill(made / "tiny.npz", out, "--method", "glnn", "--seeds", "2").exit_code == 0
    for part in out.iterdir():
        if part.name != "config.toml":
            shutil.rmtree(part) if part.is_dir() else part.unlink()
    assert distill(made / "tiny.npz", out, "--method", "glnn", "--seeds", "2", "--resume").exit_code == 0


def test_several_seeds_that_fail_at_once_leave_nothing(tmp_path: Path) -> None:
    """After the mistake is mended, the same command must work."""
    file = save_npz(community_graph(), tmp_path / "g.npz", edge_index=np.zeros((2, 0), int))
    out = tmp_path / "several"
    assert_one_line_error(distill(file, out, "--method", "nosmog", "--seeds", "2"), "blend_features")
    assert not out.exists()
