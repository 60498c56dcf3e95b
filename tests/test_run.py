"""Opening a run folder: what is missing or damaged is said in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from graph2mlp.errors import DataError, Graph2MLPError, KnowledgeError, RunError
from graph2mlp.report import write_report
from graph2mlp.run import open_run
from graph2mlp.students.base import StudentInput
from tests.cli import distill
from tests.graphs import community_graph, save_npz


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests copy it before they damage it."""
    folder = tmp_path_factory.mktemp("finished")
    file = save_npz(community_graph(), folder / "tiny.npz")
    assert distill(file, folder / "run", "--method", "nosmog").exit_code == 0
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_parts_of_a_run(run: Path) -> None:
    """Everything export and bench need is in the folder, ready for inference."""
    opened = open_run(run)
    student, teacher = opened.student(), opened.teacher()
    assert not student.training
    assert not teacher.training
    table = opened.structure()
    assert table is not None
    assert table.width == student.spec.structure == 4
    assert opened.graph() is opened.graph(), "read once"
    logits = student(StudentInput(opened.graph().features(), table.rows)).logits
    assert logits.shape == (61, 3)
    assert [one.name for one in opened.knowledge()] == ["sage"]
    assert len(opened.fingerprint) > 8


def test_opening_leaves_the_global_generator_alone(run: Path) -> None:
    """Networks are built before their weights are read; that must not use up the caller's random numbers."""
    torch.manual_seed(4)
    state = torch.get_rng_state()
    opened = open_run(run)
    opened.student()
    opened.teacher()
    assert torch.equal(torch.get_rng_state(), state)


def test_no_folder(tmp_path: Path) -> None:
    """The message is the command that makes one."""
    with pytest.raises(RunError, match="graph2mlp distill GRAPH --out"):
        open_run(tmp_path / "absent")


def test_folder_that_is_no_run(tmp_path: Path) -> None:
    """A wrong path is not an unfinished run."""
    with pytest.raises(RunError, match="is not a run folder"):
        open_run(tmp_path)


def test_unfinished_run(run: Path) -> None:
    """`result.json` is written last: without it nothing in the folder can be trusted to be complete."""
    (run / "result.json").unlink()
    with pytest.raises(RunError, match="not finished; continue it with --resume"):
        open_run(run)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 99}', '{"schema": "1"}'])
def test_damaged_or_foreign_result(text: str, run: Path) -> None:
    """Another version's folder must not be read as if it were ours."""
    (run / "result.json").write_text(text)
    with pytest.raises(RunError, match="result.json"):
        open_run(run)


def _without_checksums(run: Path) -> None:
    """As runs of before they were kept."""
    result = json.loads((run / "result.json").read_text())
    del result["files"]
    (run / "result.json").write_text(json.dumps(result))


@pytest.mark.parametrize("name", ["structure", "teacher", "mlp", "student", "knowledge/sage"])
def test_a_file_that_changed_is_not_used(name: str, run: Path) -> None:
    """A table of shuffled rows is a table; exported, it was verified against itself and reported as it was."""
    file = run / f"{name}.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    opened = open_run(run)
    part = {"mlp": "control", "knowledge/sage": "knowledge"}.get(name, name)
    for use in (getattr(opened, part), opened.check_files):
        with pytest.raises(RunError, match=rf"{name}.safetensors is damaged, or was changed"):
            use()


def test_counts_that_changed_are_not_drawn(run: Path) -> None:
    """Edited counts ended a page in a traceback, or were shown."""
    counts = json.loads((run / "breakdown.json").read_text())
    counts["parts"]["test"]["right"] = 7
    (run / "breakdown.json").write_text(json.dumps(counts))
    with pytest.raises(RunError, match=r"breakdown.json is damaged, or was changed"):
        write_report(run)


def test_a_file_that_is_gone_is_noticed(run: Path) -> None:
    """`inspect` says of a whole run that its files are intact."""
    open_run(run).check_files()
    (run / "mlp.safetensors").unlink()
    with pytest.raises(RunError, match=r"mlp.safetensors is missing"):
        open_run(run).check_files()


@pytest.mark.parametrize("damage", ["missing", "truncated", "no spec", "other shape"])
def test_damaged_student(damage: str, run: Path) -> None:
    """The network is rebuilt from the spec beside its weights; both must be there and fit."""
    from safetensors.torch import load_file, save_file

    _without_checksums(run)
    file = run / "student.safetensors"
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        spec = {
            "features": 12, "classes": 3, "structure": 4, "layers": 2, "hidden": 9, "dropout": 0.5, "norm": "none",
        }  # fmt: skip
        save_file(load_file(file), file, None if damage == "no spec" else {"spec": json.dumps(spec)})
    with pytest.raises(RunError, match="student.safetensors is not a student of this version") as caught:
        open_run(run).student()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("part", "error"), [("structure", DataError), ("teacher", KnowledgeError)])
def test_other_damaged_parts(part: str, error: type[Graph2MLPError], run: Path) -> None:
    """Each part names its file."""
    _without_checksums(run)
    (run / f"{part}.safetensors").write_bytes(b"damaged")
    opened = open_run(run)
    with pytest.raises(error, match=f"{part}.safetensors"):
        getattr(opened, part)()


def test_run_without_teacher(run: Path) -> None:
    """gsdn has none, and knowledge from a file comes without its network."""
    (run / "teacher.safetensors").unlink()
    with pytest.raises(RunError, match="holds no teacher network"):
        open_run(run).teacher()


def test_graph_that_moved(run: Path, finished: Path) -> None:
    """The run names its graph; when the file is gone the message says which."""
    config = (run / "config.toml").read_text().replace("tiny.npz", "moved.npz")
    (run / "config.toml").write_text(config)
    with pytest.raises(DataError, match="moved.npz"):
        open_run(run).graph()
