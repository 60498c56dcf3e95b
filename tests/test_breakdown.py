"""The details of the final report: counts that agree with `result.json` and with a count by hand."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graph2mlp.breakdown import _bins, _quarters
from graph2mlp.run import open_run
from graph2mlp.training.student import answer
from tests.cli import distill, invoke, result_of
from tests.graphs import community_graph, save_npz
from tests.report.folders import tree, words


@pytest.fixture(scope="module", params=["transductive", "production"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in each setting; tests only read it."""
    folder = tmp_path_factory.mktemp("runs")
    file = save_npz(community_graph(), folder / "tiny.npz")
    done = distill(file, folder / "run", "--setting", request.param)
    assert done.exit_code == 0, done.output
    return folder / "run"


def _details(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "breakdown.json").read_text())
    return found


def test_counts_are_the_accuracies_of_the_result(run: Path) -> None:
    """Two reports of one run that disagree would make both worthless."""
    result, parts = result_of(run), _details(run)["parts"]
    assert set(parts) == {"test", "tran", "ind", "cold"} & set(result["student"])
    for name, part in parts.items():
        for role in ("student", "teacher", "mlp"):
            assert part["right"][role] / part["nodes"] == pytest.approx(result[role][name], abs=1e-6)
        assert part["gained"] - part["lost"] == part["right"]["student"] - part["right"]["teacher"]


def test_groups_are_a_partition(run: Path) -> None:
    """Every test node is in one group of each kind, one bin and one cell; so sums are those of the part."""
    for part in _details(run)["parts"].values():
        for groups in part["groups"].values():
            for key in ("nodes", "gained", "lost"):
                assert sum(one[key] for one in groups) == part[key]
            for role, right in part["right"].items():
                assert sum(one["right"][role] for one in groups) == right
        for role, bins in part["calibration"].items():
            assert sum(one["nodes"] for one in bins) == part["nodes"]
            assert sum(one["right"] for one in bins) == part["right"][role]
            assert all(one["low"] <= one["confidence"] <= one["high"] for one in bins)
        matrix = np.array(part["confusion"])
        assert np.trace(matrix) == part["right"]["student"]
        assert matrix.sum(1).tolist() == [one["nodes"] for one in part["groups"]["class"]]


def test_groups_by_hand(run: Path) -> None:
    """Degree counts edges from observed nodes only; classes are the true ones, the matrix has them as rows."""
    opened, parts = open_run(run), _details(run)["parts"]
    graph, student, table = opened.graph(), opened.student(), opened.structure()
    unseen = set(graph.split.unseen.tolist())
    degree = [0] * graph.num_nodes
    for source, target in graph.edge_index.T.tolist():
        degree[target] += source not in unseen
    for name, part in parts.items():
        ids = graph.split.test if name in ("test", "tran") else graph.split.unseen
        said = answer(student, graph, table, ids, cold=name == "cold").argmax(1)
        assert ("degree" in part["groups"]) is (name != "cold")
        for group in part["groups"].get("degree", []):
            members = [n for n, one in enumerate(ids.tolist()) if group["low"] <= degree[one] <= group["high"]]
            assert group["nodes"] == len(members)
            assert group["right"]["student"] == int((said == graph.y[ids])[members].sum())
        for number, group in enumerate(part["groups"]["class"]):
            members = graph.y[ids] == number
            assert group["name"] == graph.class_names[number]
            assert group["right"]["student"] == int((said[members] == number).sum())
            counted = torch.bincount(said[members], minlength=graph.num_classes).tolist()
            assert part["confusion"][number] == counted


def test_quarters() -> None:
    """Equal values never fall into two groups; few values give few groups; none gives none."""
    values = np.array([1, 1, 1, 1, 1, 2, 3, 9])
    found = [(int(low), int(high), int(chosen.sum())) for low, high, chosen in _quarters(values)]
    assert found == [(1, 1, 5), (2, 2, 1), (3, 9, 2)]
    assert [int(chosen.sum()) for _, _, chosen in _quarters(np.arange(100))] == [25, 25, 25, 25]
    assert [(low, high) for low, high, _ in _quarters(np.array([7, 7]))] == [(7, 7)]
    assert list(_quarters(np.array([]))) == []


def test_bins_at_the_ends() -> None:
    """A confidence of exactly 1 belongs to the last bin, not to an eleventh."""
    (first, last) = _bins(np.array([0.25, 1.0]), np.array([True, False]))
    assert (first["low"], first["nodes"], first["right"]) == (0.2, 1, 1)
    assert (last["low"], last["high"], last["right"]) == (0.9, 1.0, 0)


def test_page_of_a_real_run(run: Path) -> None:
    """Every accuracy of the result stands on the page, and the page is small."""
    page, result = (run / "report.html").read_text(encoding="utf-8"), result_of(run)
    tree(page)
    shown = words(page)
    for role in ("student", "teacher", "mlp"):
        for column in ("test", "tran", "ind", "prod", "cold"):
            if column in result[role]:
                assert f"{100 * result[role][column]:.2f}" in shown
    kept = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = [line for line in kept if line["stage"] == "student"][-1]["kept"]
    assert f"student: kept epoch {best}" in page
    assert len(page) < 500_000


def test_the_command_on_the_page_makes_the_run_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promise `this makes the run again` is kept: the same weights."""
    page = tree((run / "report.html").read_text(encoding="utf-8"))
    command = next(one for one in page.iter("code") if (one.text or "").startswith("graph2mlp distill"))
    monkeypatch.chdir(run)
    done = invoke(*shlex.split(str(command.text))[1:])
    assert done.exit_code == 0, done.output
    assert result_of(run / "again")["fingerprint"] == result_of(run)["fingerprint"]


def test_missing_page_is_made_again(tmp_path: Path) -> None:
    """A run killed between its result and its page is complete with --resume, from the files alone."""
    file = save_npz(community_graph(), tmp_path / "tiny.npz")
    out = tmp_path / "run"
    assert distill(file, out, "--method", "glnn").exit_code == 0
    page = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    assert distill(file, out, "--method", "glnn", "--resume").exit_code == 0
    assert (out / "report.html").read_bytes() == page


def test_fault_in_the_page_keeps_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours of training must not be deleted because a chart could not be drawn."""

    def broken(_: Path) -> None:
        raise RuntimeError("no chart")

    file = save_npz(community_graph(), tmp_path / "tiny.npz")
    with monkeypatch.context() as patch:
        patch.setattr("graph2mlp.distill.write_report", broken)
        with pytest.raises(RuntimeError, match="no chart"):
            distill(file, tmp_path / "run", "--method", "glnn")
    assert open_run(tmp_path / "run").student()
    assert distill(file, tmp_path / "run", "--method", "glnn", "--resume").exit_code == 0
    assert (tmp_path / "run" / "report.html").exists()


def test_two_seeds(tmp_path: Path) -> None:
    """Each seed has a page, and the folder one with every seed, their mean, and links that lead to files."""
    file, out = save_npz(community_graph(), tmp_path / "tiny.npz"), tmp_path / "many"
    done = distill(file, out, "--method", "glnn", "--seeds", 2)
    assert done.exit_code == 0, done.output
    assert f"report: {out / 'report.html'}" in done.stdout
    page = (out / "report.html").read_text(encoding="utf-8")
    root, shown, summary = tree(page), words(page), result_of(out)
    links = [one.get("href") for one in root.iter("a")]
    assert links == ["seed-0/report.html", "seed-1/report.html"]
    assert all((out / str(link)).exists() for link in links)
    mean, std = (summary[part]["student"]["test"] for part in ("mean", "std"))
    assert f"{100 * mean:.2f} ± {100 * std:.2f}" in shown
    for one in summary["runs"]:
        assert f"{100 * one['student']['test']:.2f}" in shown
    assert page.count('class="student seed"') == 2
    assert "--seeds 2" in shown


@pytest.mark.parametrize("method", ["gsdn", "mlp"])
def test_methods_without_a_teacher(method: str, tmp_path: Path) -> None:
    """No teacher in the counts, none on the page."""
    file = save_npz(community_graph(), tmp_path / "tiny.npz")
    assert distill(file, tmp_path / "run", "--method", method).exit_code == 0
    part = _details(tmp_path / "run")["parts"]["test"]
    assert set(part["right"]) == {"student", "mlp"}
    assert "gained" not in part
    assert "plain MLP" in words((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))


def test_knowledge_from_a_file_in_production(tmp_path: Path) -> None:
    """A teacher we have no network of cannot be asked about unseen nodes: it is absent there, not wrong."""
    file = save_npz(community_graph(), tmp_path / "tiny.npz")
    setting = ("--method", "glnn", "--setting", "production")
    assert distill(file, tmp_path / "first", *setting).exit_code == 0
    said = tmp_path / "first" / "knowledge" / "sage.safetensors"
    forced = ("--set", "teacher.force=true")  # so few epochs teach it less than the largest class
    done = distill(file, tmp_path / "run", *setting, "--knowledge", said, *forced)
    assert done.exit_code == 0, done.output
    parts = _details(tmp_path / "run")["parts"]
    assert {name: "teacher" in part["right"] for name, part in parts.items()} == {
        "tran": True,
        "ind": False,
        "cold": False,
    }
    assert parts["tran"] == _details(tmp_path / "first")["parts"]["tran"]
    assert "read from a file" in words((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))


def test_nodes_without_a_label_do_not_count(tmp_path: Path) -> None:
    """A class that is missing in the test set, and test nodes nobody labelled: counts of what is known."""
    graph = community_graph()
    y = graph.y.numpy().copy()
    y[24:30] = -1
    y[30:][y[30:] == 2] = -1
    file = save_npz(graph, tmp_path / "tiny.npz", y=y)
    assert distill(file, tmp_path / "run", "--method", "glnn").exit_code == 0
    part = _details(tmp_path / "run")["parts"]["test"]
    assert part["nodes"] == int((y[24:] >= 0).sum())
    assert [one["nodes"] for one in part["groups"]["class"]][2] == 0
    assert "no test node" in words((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
