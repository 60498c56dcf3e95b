"""`graph2mlp distill` from end to end: the contracts of the command line and of the run folder."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from graph2mlp.config import load_config
from graph2mlp.data.targets import Classes
from graph2mlp.methods import METHODS, method_class
from graph2mlp.run import open_run
from graph2mlp.training.student import answer
from tests.cli import assert_one_line_error, distill, result_of
from tests.graphs import community_graph, save_npz


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny graph as a user's file."""
    return save_npz(community_graph(), tmp_path_factory.mktemp("graph") / "tiny.npz")


@pytest.fixture(scope="module", params=["transductive", "production"])
def run(request: pytest.FixtureRequest, graph_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in each setting; tests only read it."""
    out = tmp_path_factory.mktemp("runs") / "run"
    result = distill(graph_file, out, "--method", "nosmog", "--setting", request.param, "--seed", 1)
    assert result.exit_code == 0, result.output
    assert f"run: {out}" in result.stdout
    assert f"report: {out / 'report.html'}" in result.stdout
    return out


def _numbers(part: dict[str, Any], names: set[str]) -> None:
    for name in names:
        assert isinstance(part[name], int | float), name
        assert 0 <= part[name] <= 1, name


def test_result_has_the_fixed_schema(run: Path, graph_file: Path) -> None:
    """Other people's scripts read it: every key of DESIGN.md section 6 is there, accuracies as fractions."""
    result = result_of(run)
    graph = community_graph()
    assert result["schema"] == 1
    assert result["graph"] == {"name": "tiny", "nodes": 61, "edges": graph.num_edges, "features": 12, "classes": 3}
    assert (result["method"], result["regime"], result["seed"]) == ("nosmog", "structure", 1)
    settings = {"transductive": {"test"}, "production": {"tran", "ind", "prod", "cold"}}
    names = settings.pop(result["setting"])
    (others,) = settings.values()
    for part in ("teacher", "student", "mlp"):
        _numbers(result[part], names)
        assert not others & set(result[part]), "settings are never mixed"
    _numbers(result["teacher"], {"val"})
    _numbers(result["student"], {"val", "agreement"})
    assert result["teacher"]["name"] == "sage"
    assert result["teacher"]["parameters"] > 0
    assert {"layers": 2, "hidden": 8}.items() <= result["student"].items()
    assert result["student"]["parameters"] == open_run(run).student().num_parameters
    assert {"teacher", "structure", "student"} <= set(result["seconds"])
    assert all(value >= 0 for value in result["seconds"].values())
    assert result["peak_rss_mb"] > 50
    assert {"graph2mlp", "python", "torch", "numpy"} <= set(result["versions"])


def test_method_of_a_user_who_names_none(graph_file: Path, tmp_path: Path) -> None:
    """The recipe that measured best is what a user gets; a teacher of the user's choice takes the place of its own."""
    assert distill(graph_file, tmp_path / "run", "--teacher", "gcn").exit_code == 0
    result = result_of(tmp_path / "run")
    assert (result["method"], result["teacher"]["name"]) == ("blend", "gcn")
    assert load_config(tmp_path / "run" / "config.toml").structure.encoder == "laplacian+smoothed"


def test_production_mix(run: Path) -> None:
    """Four requests in five are for observed nodes."""
    result = result_of(run)
    if result["setting"] == "production":
        for part in ("teacher", "student", "mlp"):
            figures = result[part]
            assert figures["prod"] == pytest.approx(0.8 * figures["tran"] + 0.2 * figures["ind"])
        assert result["mlp"]["ind"] == result["mlp"]["cold"], "an MLP without structure cannot know whether edges came"


def test_run_folder(run: Path) -> None:
    """What a run leaves behind, and nothing temporary."""
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    must = {"config.toml", "result.json", "metrics.jsonl", "student.safetensors", "structure.safetensors"}
    must |= {"breakdown.json", "report.html"}
    assert must | {"knowledge/sage.safetensors"} <= files
    assert not [name for name in files if Path(name).name.startswith(".") or "checkpoint" in name]
    stages = [json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert stages.count("student") == result_of(run)["student"]["epochs"]
    assert load_config(run / "config.toml").seed == 1


def test_figures_are_those_of_the_files(run: Path) -> None:
    """What is on disk answers exactly as the report says: student, table, graph and split all fit together."""
    opened, result = open_run(run), result_of(run)
    graph, student, table = opened.graph(), opened.student(), opened.structure()
    test = graph.split.test
    logits = answer(student, graph, table, test)
    key = "test" if result["setting"] == "transductive" else "tran"
    assert float((logits.argmax(1) == graph.y[test]).double().mean()) == result["student"][key]
    (knowledge,) = opened.knowledge()
    said = knowledge.logits[knowledge.rows(graph.node_ids[test])]
    assert Classes().agreement(logits, said) == result["student"]["agreement"]
    assert float((said.argmax(1) == graph.y[test]).double().mean()) == result["teacher"][key]
    unseen = graph.split.unseen
    assert not set(unseen.tolist()) & set(knowledge.node_ids.tolist())
    if len(unseen):
        for name, cold in (("ind", False), ("cold", True)):
            right = answer(student, graph, table, unseen, cold=cold).argmax(1) == graph.y[unseen]
            assert float(right.double().mean()) == result["student"][name]


def test_teacher_on_unseen_nodes_by_hand(run: Path) -> None:
    """`ind`: the observed graph with all unseen nodes attached to observed ones only; `cold`: without their edges."""
    opened, result = open_run(run), result_of(run)
    graph, teacher = opened.graph(), opened.teacher()
    unseen = set(graph.split.unseen.tolist())
    if not unseen:
        return
    pairs = list(zip(*graph.edge_index.tolist(), strict=True))
    for name, keep in (
        ("ind", [p for p in pairs if not set(p) <= unseen]),
        ("cold", [p for p in pairs if not set(p) & unseen]),
    ):
        adjacency = teacher.adjacency(replace(graph, edge_index=torch.tensor(keep).T))
        with torch.no_grad():
            logits = teacher(graph.features(), adjacency)[0][graph.split.unseen]
        want = float((logits.argmax(1) == graph.y[graph.split.unseen]).double().mean())
        assert result["teacher"][name] == want


def _comparable(result: dict[str, Any]) -> dict[str, Any]:
    """Without what may differ between two equal runs: the clock, the memory, and whether the teacher was cached."""
    result = copy.deepcopy(result)
    for name in ("seconds", "cpu_seconds", "peak_rss_mb"):
        result.pop(name, None)
    if result["teacher"]:
        result["teacher"].pop("cached", None)
    return result


@pytest.mark.parametrize("method", METHODS)
def test_equal_runs_give_equal_results(
    method: str, graph_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One seed, one machine: the same to the last bit, with and without a cached teacher."""
    for name in ("a", "b"):
        monkeypatch.setenv("GRAPH2MLP_CACHE", str(tmp_path / f"cache-{name}"))
        assert distill(graph_file, tmp_path / name, "--method", method).exit_code == 0
    first, second = (result_of(tmp_path / name) for name in ("a", "b"))
    assert _comparable(first) == _comparable(second)
    student = [(tmp_path / name / "student.safetensors").read_bytes() for name in ("a", "b")]
    assert student[0] == student[1]
    cls = method_class(method)
    assert (first["teacher"] is not None) is cls.needs_teacher
    assert (first["student"]["agreement"] is not None) is cls.needs_teacher
    assert (tmp_path / "a" / "structure.safetensors").exists() is cls.reads_structure
    assert open_run(tmp_path / "a").config.method == method


def test_several_seeds(graph_file: Path, tmp_path: Path) -> None:
    """A folder per seed, all results, their mean and deviation; opening it gives the best by validation."""
    out = tmp_path / "many"
    result = distill(graph_file, out, "--method", "glnn", "--seeds", 2)
    assert result.exit_code == 0, result.output
    summary = result_of(out)
    assert set(summary) == {"schema", "runs", "mean", "std", "advice"}
    assert [one["seed"] for one in summary["runs"]] == [0, 1]
    assert summary["runs"] == [result_of(out / f"seed-{seed}") for seed in (0, 1)]
    tests = [one["student"]["test"] for one in summary["runs"]]
    assert summary["mean"]["student"]["test"] == pytest.approx(sum(tests) / 2)
    assert summary["std"]["student"]["test"] == pytest.approx(abs(tests[0] - tests[1]) / 2)
    best = max(summary["runs"], key=lambda one: one["student"]["val"])
    assert open_run(out).result == best
    more = distill(graph_file, out, "--method", "glnn", "--seeds", 3, "--resume")
    assert more.exit_code == 0, more.output
    assert result_of(out)["runs"][:2] == summary["runs"], "finished seeds are kept"


def test_seed_and_seeds_are_a_usage_error(graph_file: Path, tmp_path: Path) -> None:
    """Exit code 2, and nothing is written."""
    result = distill(graph_file, tmp_path / "run", "--seed", 1, "--seeds", 2)
    assert result.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_knowledge_from_a_file(run: Path, graph_file: Path, tmp_path: Path) -> None:
    """A teacher trained elsewhere: no teacher of ours is trained, and the student is the same as with it."""
    setting = result_of(run)["setting"]
    out = tmp_path / "run"
    file = run / "knowledge" / "sage.safetensors"
    done = distill(graph_file, out, "--method", "nosmog", "--setting", setting, "--seed", 1, "--knowledge", file)
    assert done.exit_code == 0, done.output
    first, second = result_of(run), result_of(out)
    assert second["fingerprint"] == first["fingerprint"]
    assert second["student"] == first["student"]
    assert second["teacher"]["name"] == "sage"


def test_knowledge_of_unseen_nodes_is_refused(graph_file: Path, tmp_path: Path) -> None:
    """A teacher that saw the unseen nodes would carry them into the student's weights."""
    assert distill(graph_file, tmp_path / "all", "--method", "glnn").exit_code == 0
    file = tmp_path / "all" / "knowledge" / "sage.safetensors"
    result = distill(graph_file, tmp_path / "run", "--setting", "production", "--knowledge", file)
    assert_one_line_error(result, "unseen in the production setting", str(file))
