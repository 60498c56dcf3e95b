"""`--deploy`: other graphs are answered in the final report, and change nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from graph2mlp.config import load_config, resolve_config
from graph2mlp.data.targets import Classes
from graph2mlp.deployed import answer_elsewhere
from graph2mlp.errors import ConfigError, DataError
from graph2mlp.run import open_run
from graph2mlp.run_inputs import read_inputs
from graph2mlp.students.base import StudentSpec
from graph2mlp.students.mlp import MLPStudent
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.models import build_teacher
from graph2mlp.training.student import answer
from tests.cli import assert_one_line_error, distill, result_of
from tests.graphs import community_graph, save_npz


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The graph that is learned from, and another drawn alike."""
    folder = tmp_path_factory.mktemp("graphs")
    names = {"class_names": np.array(list("abc"))}
    return (
        save_npz(community_graph(), folder / "here.npz", **names),
        save_npz(community_graph(seed=9), folder / "there.npz", **names),
    )


@pytest.fixture(scope="module")
def run(graphs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    done = distill(graphs[0], out, "--method", "nosmog", "--deploy", graphs[1], "--deploy", graphs[0])
    assert done.exit_code == 0, done.output
    assert "Other graphs" in done.stdout
    return out


def test_undirected_holds_for_every_graph(tmp_path: Path) -> None:
    """A file that stores each edge once does so whether it is learned from or only answered."""
    once = replace(community_graph(), edge_index=torch.tensor([[0, 1], [3, 4]]))
    file = save_npz(once, tmp_path / "g.npz")
    config = resolve_config(graph=str(file), method="glnn", undirected=True, deploy=[str(file)])
    inputs = read_inputs(config)
    assert inputs.graph.num_edges == inputs.deployed[0].num_edges == 4


def test_figures_are_those_of_the_files(run: Path, graphs: tuple[Path, Path]) -> None:
    """Everyone answers every labelled node; the student has no row for any of them."""
    opened = open_run(run)
    there = community_graph(seed=9)
    found = result_of(run)["deploy"][0]
    assert found["graph"] == "there"
    assert (found["nodes"], found["edges"]) == (61, there.num_edges)
    assert found["majority"] == pytest.approx(21 / 61)
    everyone = torch.arange(61)
    said = answer(opened.student(), there, opened.structure(), everyone, cold=True)
    assert found["student"]["accuracy"] == Classes().score(said, there.y)
    teacher = opened.teacher()
    logits = teacher(there.features(), teacher.adjacency(there))[0]
    assert found["teacher"]["accuracy"] == Classes().score(logits, there.y)
    assert 0 <= found["agreement"] <= 1
    assert "auc" not in found["student"], "three classes"


def test_nothing_else_changes(run: Path, graphs: tuple[Path, Path], tmp_path: Path) -> None:
    """The same weights as without, and no `deploy` where none was asked for."""
    assert distill(graphs[0], tmp_path / "plain", "--method", "nosmog").exit_code == 0
    plain, with_others = result_of(tmp_path / "plain"), result_of(run)
    assert plain["fingerprint"] == with_others["fingerprint"]
    assert "deploy" not in plain
    assert load_config(run / "config.toml").deploy == tuple(str(path) for path in reversed(graphs))


def test_several_seeds_and_the_page(graphs: tuple[Path, Path], tmp_path: Path) -> None:
    """The table has the mean; the page shows it."""
    out = tmp_path / "run"
    done = distill(graphs[0], out, "--method", "glnn", "--deploy", graphs[1], "--seeds", 2)
    assert done.exit_code == 0, done.output
    runs = json.loads((out / "result.json").read_text())["runs"]
    mean = sum(one["deploy"][0]["student"]["accuracy"] for one in runs) / 2
    assert f"{100 * mean:.2f}" in done.stdout
    page = (out / "report.html").read_text()
    assert "Other graphs" in page
    assert f"{100 * mean:.2f}" in page


def test_two_classes_have_an_area_under_the_curve() -> None:
    """And a teacher that keeps rows of its own nodes takes none of them for the other graph's."""
    graph = community_graph()
    two = replace(graph, y=(graph.y > 0).long(), class_names=("no", "yes"))
    torch.manual_seed(0)
    teacher = build_teacher(12, 2, TeacherConfig(name="gcn_se", hidden=8), node_ids=torch.arange(61))
    student = MLPStudent(StudentSpec(features=12, classes=2, hidden=4))
    found = answer_elsewhere(two, teacher=teacher, student=student, control=student, table=None)
    assert 0 <= found["student"]["auc"] <= 1
    rows = teacher(two.features(), teacher.adjacency(two), torch.full((61,), -1))[0]
    assert found["teacher"]["accuracy"] == Classes().score(rows, two.y)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": np.ones((61, 3), np.float32)}, "it has features 3, but 'here', which is learned from, has 12"),
        ({"class_names": np.array(list("abd"))}, "it has classes (a, b, d)"),
    ],
)
def test_graph_that_does_not_fit(
    changed: dict[str, np.ndarray], message: str, graphs: tuple[Path, Path], tmp_path: Path
) -> None:
    """Said before anything is trained, and no folder is left."""
    other = save_npz(community_graph(), tmp_path / "other.npz", **{"class_names": np.array(list("abc")), **changed})
    done = distill(graphs[0], tmp_path / "run", "--method", "glnn", "--deploy", other)
    assert_one_line_error(done, message)
    assert not (tmp_path / "run").exists()


def test_features_in_another_order(tmp_path: Path) -> None:
    """As many columns with other meanings: every answer would be wrong, and nobody would know."""
    names = np.array([f"f{i}" for i in range(12)])
    here = save_npz(community_graph(), tmp_path / "here.npz", feature_names=names)
    for other, fits in ((names, True), (names[[0, 2, 1, *range(3, 12)]], False), (None, True)):
        extra = {} if other is None else {"feature_names": other}
        config = resolve_config(
            graph=str(here),
            method="glnn",
            deploy=[str(save_npz(community_graph(), tmp_path / "other.npz", **extra))],
        )
        if fits:
            assert len(read_inputs(config).deployed) == 1
        else:
            with pytest.raises(DataError, match="its feature 1 is called 'f2', but .*'here'.*'f1'") as caught:
                read_inputs(config)
            assert "\n" not in str(caught.value)


def test_missing_graph_and_wrong_settings(graphs: tuple[Path, Path], tmp_path: Path) -> None:
    """Names are checked like that of the first graph."""
    done = distill(graphs[0], tmp_path / "run", "--method", "glnn", "--deploy", tmp_path / "no.npz")
    assert_one_line_error(done, "No such file or folder")
    (tmp_path / "c.toml").write_text('graph = "digits"\ndeploy = 3\n')
    with pytest.raises(ConfigError, match=r"deploy must be a list of graphs \(got 3\)"):
        resolve_config(file=tmp_path / "c.toml")
