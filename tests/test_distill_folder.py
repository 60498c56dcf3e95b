"""Bad input and interruptions of `graph2mlp distill`: one line, the right exit code, nothing half-written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from graph2mlp.run import open_run
from graph2mlp.training.loop import fit
from tests.cli import assert_one_line_error, distill, invoke, result_of
from tests.graphs import community_graph, save_npz


@pytest.fixture
def graph_file(tmp_path: Path) -> Path:
    """The tiny graph as a user's file."""
    return save_npz(community_graph(), tmp_path / "tiny.npz")


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


BAD_ARGUMENTS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "method": (["--method", "nosmig"], ("Unknown method 'nosmig'", "Did you mean 'nosmog'?")),
    "teacher": (["--teacher", "saga"], ("Unknown teacher 'saga'", "Did you mean 'sage'?")),
    "setting of a group": (["--set", "train.lrr=1"], ("train.lrr", "Did you mean 'lr'?")),
    "group": (["--set", "trian.lr=1"], ("Did you mean 'train'?",)),
    "value": (["--set", "train.lr=fast"], ("train.lr", "fast")),
    "encoder": (["--set", "structure.encoder=deepwlak"], ("Did you mean 'deepwalk'?",)),
    "settings file": (["--config", "absent.toml"], ("absent.toml",)),
    "knowledge file": (["--knowledge", "absent.safetensors"], ("absent.safetensors",)),
}


@pytest.mark.parametrize("what", BAD_ARGUMENTS)
def test_bad_arguments_write_nothing(what: str, graph_file: Path, tmp_path: Path) -> None:
    """After the mistake is corrected, the same command with the same --out must work."""
    arguments, parts = BAD_ARGUMENTS[what]
    assert_one_line_error(distill(graph_file, tmp_path / "run", *arguments), *parts)
    assert not (tmp_path / "run").exists(), sorted(_contents(tmp_path / "run"))


@pytest.mark.parametrize(
    ("graph", "parts"),
    [
        ("cpf:coar", ("Unknown graph 'cpf:coar'", "Did you mean 'cpf:cora'?")),
        ("absent.npz", ("absent.npz",)),
        ("ogbn:arxiv", ("Looked for", "ogbn_arxiv")),
    ],
)
def test_missing_graph_writes_nothing(
    graph: str, parts: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown names get the nearest one; missing raw files say where they were looked for."""

    def no_network(_: Path) -> NoReturn:
        raise OSError("no network here")

    monkeypatch.setattr("graph2mlp.data.datasets.download_ogb", no_network)
    out = tmp_path / "run"
    assert_one_line_error(distill(graph, out, "--root", tmp_path / "data"), *parts)
    assert not out.exists(), sorted(_contents(out))


def test_existing_folder_is_refused_and_kept(graph_file: Path, tmp_path: Path) -> None:
    """Hours of work are not overwritten by pressing the up arrow; --force replaces it."""
    out = tmp_path / "run"
    assert distill(graph_file, out, "--method", "mlp").exit_code == 0
    before = _contents(out)
    assert_one_line_error(distill(graph_file, out, "--method", "glnn"), str(out), "--force", "--resume")
    assert _contents(out) == before
    assert distill(graph_file, out, "--method", "glnn", "--force").exit_code == 0
    assert result_of(out)["method"] == "glnn"


def test_force_does_not_delete_before_the_input_is_checked(graph_file: Path, tmp_path: Path) -> None:
    """A typing mistake in the graph's name must not cost the finished run."""
    out = tmp_path / "run"
    assert distill(graph_file, out, "--method", "mlp").exit_code == 0
    before = _contents(out)
    assert_one_line_error(distill("cpf:coar", out, "--force"), "cpf:coar")
    assert _contents(out) == before


def test_force_does_not_delete_a_foreign_folder(graph_file: Path, tmp_path: Path) -> None:
    """--out ~ --force must not empty a home."""
    out = tmp_path / "home"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    assert_one_line_error(distill(graph_file, out, "--method", "mlp", "--force"), "not a run folder")
    assert (out / "letter.txt").read_text() == "dear"


def test_out_that_is_a_file(graph_file: Path, tmp_path: Path) -> None:
    """Refused like a folder, with and without --force."""
    out = tmp_path / "run"
    out.write_text("text")
    for force in ([], ["--force"]):
        assert_one_line_error(distill(graph_file, out, "--method", "mlp", *force), str(out))
    assert out.read_text() == "text"


def test_empty_folder_is_used(graph_file: Path, tmp_path: Path) -> None:
    """mktemp and volume mounts give empty folders."""
    (tmp_path / "run").mkdir()
    assert distill(graph_file, tmp_path / "run", "--method", "mlp").exit_code == 0


def test_resume_of_a_complete_run_changes_nothing(graph_file: Path, tmp_path: Path) -> None:
    """A script may always say --resume."""
    out = tmp_path / "run"
    assert distill(graph_file, out, "--method", "glnn", "--resume").exit_code == 0
    before = _contents(out)
    again = distill(graph_file, out, "--method", "glnn", "--resume")
    assert again.exit_code == 0, again.output
    assert _contents(out) == before


def test_resume_with_other_settings_is_refused(graph_file: Path, tmp_path: Path) -> None:
    """Half of a run with one learning rate and half with another has no name."""
    out = tmp_path / "run"
    assert distill(graph_file, out, "--method", "glnn").exit_code == 0
    result = distill(graph_file, out, "--method", "glnn", "--set", "train.lr=0.5", "--resume")
    assert_one_line_error(result, "other settings")


@pytest.mark.parametrize("stage", ["teacher", "student", "mlp"])
def test_interrupted_run_goes_on(stage: str, graph_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 130 with the command to go on; the resumed run ends like one that was never interrupted."""
    monkeypatch.setenv("GRAPH2MLP_CACHE", str(tmp_path / "cache"))
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert distill(graph_file, whole, "--method", "nosmog").exit_code == 0
    monkeypatch.setenv("GRAPH2MLP_CACHE", str(tmp_path / "other cache"))

    calls = {"teacher": 0, "student": 1, "mlp": 2}

    def interrupted(*arguments: Any, **named: Any) -> Any:
        if not calls[stage]:
            raise KeyboardInterrupt
        calls[stage] -= 1
        return fit(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr("graph2mlp.teachers.train.fit", interrupted)
        patch.setattr("graph2mlp.training.student.fit", interrupted)
        stopped = distill(graph_file, out, "--method", "nosmog")
    assert stopped.exit_code == 130
    assert "--resume" in stopped.stderr
    assert not (out / "result.json").exists()
    resumed = distill(graph_file, out, "--method", "nosmog", "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert result_of(out)["fingerprint"] == result_of(whole)["fingerprint"]
    assert result_of(out)["student"] == result_of(whole)["student"]


def test_unfinished_files_are_removed_wherever_they_lie(graph_file: Path, tmp_path: Path) -> None:
    """Among a run's knowledge, half a file of a killed process was opened as what a teacher said."""
    out = tmp_path / "run"
    assert distill(graph_file, out, "--method", "glnn").exit_code == 0
    whole = _contents(out)
    (out / "result.json").unlink()
    for folder in (out, out / "knowledge"):
        (folder / ".sage.safetensors.part-abc.safetensors").write_bytes(b"half")
    assert distill(graph_file, out, "--method", "glnn", "--resume").exit_code == 0
    assert set(_contents(out)) == set(whole)
    assert invoke("inspect", out).exit_code == 0


def test_settings_without_use_are_said(graph_file: Path, tmp_path: Path) -> None:
    """Each with what the method has not; the small settings of these tests name both groups."""
    said = distill(graph_file, tmp_path / "run", "--method", "mlp", "--set", "train.as_unseen=0.2").stderr
    assert "teacher.burn_in not used: method 'mlp' has no teacher" in " ".join(said.split())
    assert "structure.dim, train.as_unseen not used: method 'mlp' reads no structure table" in " ".join(said.split())


def test_damaged_input_is_one_line(graph_file: Path, tmp_path: Path) -> None:
    """A file that breaks off, and one with a NaN in it."""
    graph = community_graph()
    x = graph.x.numpy().copy()
    x[0, 0] = np.nan
    assert_one_line_error(distill(save_npz(graph, tmp_path / "nan.npz", x=x), tmp_path / "run"), "NaN")
    graph_file.write_bytes(graph_file.read_bytes()[:500])
    assert_one_line_error(distill(graph_file, tmp_path / "run2"), "tiny.npz")


@pytest.mark.parametrize("part", ["val", "test"])
def test_split_with_an_empty_part_is_one_line(part: str, tmp_path: Path) -> None:
    """Without validation nothing can be selected, without test nothing reported; NaN is no accuracy."""
    file = save_npz(community_graph(), tmp_path / "g.npz", **{part: np.zeros(0, int)})
    assert_one_line_error(distill(file, tmp_path / "run", "--method", "mlp"), "test" if part == "test" else "val")


def test_graph_without_edges_is_one_line(tmp_path: Path) -> None:
    """Structure cannot be made of nothing; the message names methods that need none."""
    file = save_npz(community_graph(), tmp_path / "g.npz", edge_index=np.zeros((2, 0), int))
    assert_one_line_error(distill(file, tmp_path / "run", "--method", "nosmog"), "blend_features")
    assert distill(file, tmp_path / "run2", "--method", "blend_features").exit_code == 0


def test_usage_errors_are_two() -> None:
    """2 is for a command that cannot be read."""
    assert invoke("distill").exit_code == 2
    assert invoke("distill", "digits", "--setting", "inductive").exit_code == 2
    assert invoke("distill", "digits", "--seed", "-1").exit_code == 2
    assert invoke("no-such-command").exit_code == 2


def test_help_version_and_methods() -> None:
    """Exit code 0 and the expected names."""
    assert "distill" in invoke("--help").stdout
    assert invoke("--version").stdout.startswith("graph2mlp ")
    listing = invoke("methods")
    assert all(name in listing.stdout for name in ("mlp", "glnn", "nosmog", "gsdn"))
    card = invoke("methods", "nosmog")
    assert card.exit_code == 0
    assert "Paper: Tian" in card.stdout
    assert "nosmog.eps" in card.stdout
    assert_one_line_error(invoke("methods", "nosmig"), "Did you mean 'nosmog'?")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission_is_one_line(graph_file: Path, tmp_path: Path) -> None:
    """The operating system's reason, without a traceback."""
    (tmp_path / "locked").mkdir(mode=0o500)
    assert_one_line_error(distill(graph_file, tmp_path / "locked" / "run", "--method", "mlp"), "locked")


def test_sparse_graph_from_end_to_end(tmp_path: Path) -> None:
    """Bag-of-words features stay sparse from file to student, in the production setting too."""
    state = np.random.RandomState(0)
    count, words = 130, 40
    y = np.arange(count) % 2
    x = (state.rand(count, words) < 0.05 + 0.1 * ((np.arange(words) % 2)[None] == y[:, None])).astype(np.float32)
    csr = torch.from_numpy(x).to_sparse_csr()
    ring = np.roll(np.eye(count), 2, 1)
    arrays: dict[str, Any] = {"labels": y}
    for prefix, matrix in (("attr", csr), ("adj", torch.from_numpy(ring).to_sparse_csr())):
        arrays |= {
            f"{prefix}_data": matrix.values().numpy(),
            f"{prefix}_indices": matrix.col_indices().numpy(),
            f"{prefix}_indptr": matrix.crow_indices().numpy(),
            f"{prefix}_shape": np.array(matrix.shape),
        }
    np.savez(tmp_path / "words.npz", **arrays)
    result = distill(tmp_path / "words.npz", tmp_path / "run", "--setting", "production")
    assert result.exit_code == 0, result.output
    assert result_of(tmp_path / "run")["graph"]["features"] == words
    assert open_run(tmp_path / "run").graph().is_sparse
