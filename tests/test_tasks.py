"""Several labels per node, and quantities: the rules by hand, and the whole way from a file to answers on a device."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph2mlp.data.folder import read_folder
from graph2mlp.data.graph import GraphData
from graph2mlp.data.npz import read_graph
from graph2mlp.data.targets import Classes, Labels, Quantities, known_rows, targets_of, unknown_like
from graph2mlp.errors import DataError, KnowledgeError
from graph2mlp.export.runtime import Predictor
from graph2mlp.methods import METHODS, method_class
from graph2mlp.report.words import capital
from graph2mlp.run import open_run
from graph2mlp.tasks import CLASSIFICATION, MULTILABEL, REGRESSION, TASKS
from graph2mlp.teachers.cache import obtain_teacher
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.own import OwnTeacher
from graph2mlp.training.student import answer
from tests.cli import assert_one_line_error, distill, invoke, result_of
from tests.graphs import task_graph
from tests.pipeline import run_method, small_config
from tests.report.folders import words

OTHERS = ("multilabel", "regression")
BETTER = [f"{key}" for key in ("train.epochs=60", "teacher.epochs=60", "student.hidden=32", "teacher.hidden=32")]


def test_scores_by_hand() -> None:
    """Rows of unknown truth count nowhere; a constant quantity cannot be explained."""
    y = np.array([[1, 0, 1], [0, 0, 0], [-1, -1, -1]])
    said = np.array([[1, 1, 0], [0, 0, 1], [1, 1, 1]])
    assert MULTILABEL.score(said, y) == pytest.approx(2 * 1 / (3 + 2))
    assert MULTILABEL.score(said * 0, y * 0) == 1.0, "nothing to find, and nothing found"
    assert MULTILABEL.baseline(y[:2]) == pytest.approx(2 * 2 / (4 + 2)), "two labels of one node each, for both nodes"
    values = np.array([[1.0, 10.0], [3.0, 30.0], [np.nan, np.nan]], np.float32)
    assert REGRESSION.score(np.array([[1.0, 20.0], [3.0, 20.0], [0, 0]]), values) == pytest.approx((1 + 0) / 2)
    assert math.isnan(REGRESSION.score(values[:1], values[:1]))
    assert REGRESSION.agreement(values[:1], values[:1]) == 1.0
    assert CLASSIFICATION.score(np.array([0, 1, 2]), np.array([0, 2, -1])) == 0.5
    assert CLASSIFICATION.baseline(np.array([1, 1, 0])) == pytest.approx(2 / 3)


def test_probabilities_do_not_overflow() -> None:
    """Logits of trained students reach hundreds."""
    with np.errstate(all="raise", under="ignore"):
        assert MULTILABEL.probabilities(np.array([[-800.0, 0.0, 800.0]])).tolist() == [[0.0, 0.5, 1.0]]
        assert CLASSIFICATION.probabilities(np.array([[-800.0, 800.0]])).tolist() == [[0.0, 1.0]]
    with pytest.raises(TypeError):
        REGRESSION.probabilities(np.zeros((1, 1)))


def test_losses_by_hand() -> None:
    """Each loss is zero where the student says what the teacher says, and what torch says elsewhere."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 3, generator=generator, dtype=torch.double)
    for targets in (Classes(), Labels(), Quantities(torch.zeros(3), torch.tensor([1.0, 2.0, 4.0]))):
        assert float(targets.soft_loss(teacher, teacher, 2.0)) == pytest.approx(0, abs=1e-12)
    p, q = teacher.div(2).sigmoid(), student.div(2).sigmoid()
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert float(Labels().soft_loss(student, teacher, 2.0)) == pytest.approx(4 * float(divergence.mean()))
    y = (teacher > 0).long()
    assert float(Labels().loss(student, y)) == pytest.approx(
        float(F.binary_cross_entropy(student.sigmoid(), y.double()))
    )
    scaled = Quantities(torch.zeros(3), torch.tensor([1.0, 2.0, 4.0]))
    want = ((student - teacher) / torch.tensor([1.0, 2.0, 4.0])).square().mean()
    assert float(scaled.loss(student, teacher)) == float(scaled.soft_loss(student, teacher, 7.0)) == float(want)


@pytest.mark.parametrize("targets", [Classes(), Labels(), Quantities(torch.zeros(3), torch.ones(3))])
def test_mixtures_and_means(targets: Classes | Labels | Quantities) -> None:
    """Half of one and half of the other is their mean, in probabilities or in the quantities themselves."""
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))
    half = targets.mixed(logits[0], logits[1], torch.full((4, 1), 0.5))
    torch.testing.assert_close(half, targets.mean(logits, torch.tensor([0.5, 0.5])), atol=1e-5, rtol=1e-5)
    if targets.task is not REGRESSION:
        shares = [targets.task.probabilities(one.numpy()) for one in logits]
        np.testing.assert_allclose(targets.task.probabilities(half.numpy()), sum(shares) / 2, atol=1e-6)


def test_quantities_are_scaled_by_training_nodes_only() -> None:
    """A test node with an outrageous value changes nothing that is learned."""
    y = torch.tensor([[1.0], [3.0], [1e9]])
    targets = targets_of(y, torch.tensor([0, 1]))
    assert isinstance(targets, Quantities)
    assert (targets.center.tolist(), targets.spread.tolist()) == ([2.0], [1.0])
    scale = targets.output_scale()
    assert scale(torch.tensor([[-1.0], [1.0]])).tolist() == [[1.0], [3.0]]


def test_unknown_labels_of_each_form() -> None:
    for task in TASKS:
        graph = task_graph(task)
        assert bool(known_rows(graph.y).all())
        hidden = unknown_like(graph.y, 4)
        assert (hidden.shape, hidden.dtype) == ((4, *graph.y.shape[1:]), graph.y.dtype)
        assert not bool(known_rows(hidden).any())
        assert graph.task is TASKS[task]


@pytest.mark.parametrize("task", OTHERS)
@pytest.mark.parametrize("method", METHODS)
def test_methods_learn_other_tasks(method: str, task: str) -> None:
    """Or say before anything is trained that they cannot."""
    graph = task_graph(task)
    if task not in method_class(method).tasks:
        pytest.skip(f"{method} is for classes")
    graph = replace(graph, split=replace(graph.split, val=torch.arange(12, 48), test=torch.arange(48, 61)))
    trained = run_method(method, graph, overrides=BETTER)
    train = graph.split.train
    found = graph.targets.score(answer(trained.student, graph, trained.table, train), graph.y[train])
    constant = graph.task.baseline(graph.y[train].numpy())
    assert found > constant + 0.1, (method, task, found, constant)


@pytest.mark.parametrize("task", OTHERS)
@pytest.mark.parametrize("teacher", ["sage", "gcn", "gat", "appnp", "gcn+appnp"])
def test_teachers_learn_other_tasks(teacher: str, task: str) -> None:
    """Validation is scored in the task's own metric, and the network answers in the user's units."""
    graph = task_graph(task)
    config = small_config("glnn", overrides=[*BETTER, f"teacher.name={teacher}"]).teacher
    taught = obtain_teacher(graph.observed(), config, seed=0)
    val, logits = graph.split.val, taught.knowledge.logits
    assert taught.val == graph.targets.score(logits[val], graph.y[val])
    assert graph.targets.score(logits[graph.split.train], graph.y[graph.split.train]) > 0.6


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("task", OTHERS)
def test_from_file_to_answers(task: str, sparse: bool, tmp_path: Path) -> None:
    """distill, export, predict, bench, inspect: one metric, one form of answer, the user's own units."""
    graph = task_graph(task, sparse=sparse)
    file = graph.save(tmp_path / "g.npz")
    settings = [part for one in BETTER for part in ("--set", one)]
    out = tmp_path / "run"
    assert distill(file, out, "--method", "nosmog", "--setting", "production", *settings).exit_code == 0
    result = result_of(out)
    assert (result["task"], result["metric"]) == (task, TASKS[task].metric)
    assert TASKS[task].metric in (out / "report.html").read_text(encoding="utf-8")
    exported = invoke("export", out, "--onnx")
    assert exported.exit_code == 0, exported.output
    assert f"{TASKS[task].metric} of the file: tran" in exported.stdout
    predictor = Predictor(out / "bundle")
    about = predictor.manifest
    assert [spec.name for spec in about.outputs] == list(TASKS[task].outputs)
    # The file's own figures are those of the run, on the same nodes.
    for part, value in about.metrics.items():
        assert value == pytest.approx(result["student"][part], abs=1e-4), part
    run = open_run(out)
    ids = run.graph().split.test
    logits = answer(run.student(), run.graph(), run.structure(), ids).numpy()
    x = graph.x.to_dense()[ids].numpy()
    said = predictor.predict(x=x, neighbors=ids.numpy()[:, None])
    np.testing.assert_allclose(said.logits, logits, rtol=1e-5, atol=1e-4)
    by_numpy = Predictor(out / "bundle", engine="numpy").predict(x=x, neighbors=ids.numpy()[:, None])
    np.testing.assert_allclose(by_numpy.logits, said.logits, rtol=1e-5, atol=1e-5)
    if task == "regression":
        assert said.probabilities is None
        assert said.logits[:, 1].mean() > 1e4, "an income, in the units of the file"
    else:
        assert np.array_equal(said.labels, (said.logits > 0).astype(int))
    described = " ".join(invoke("inspect", out / "bundle").stdout.split())
    assert f"node-{task}" in described
    assert TASKS[task].metric in described
    measured = invoke(
        "bench", out / "bundle", "--against", out, "--batch", 1, "--seconds", 0.05, "--cold-starts", 0,
        "--json", tmp_path / "b.json", "--html", tmp_path / "b.html",
    )  # fmt: skip
    assert measured.exit_code == 0, measured.output
    _check_words(task, " ".join(measured.stdout.split()) + words((tmp_path / "b.html").read_text(encoding="utf-8")))
    rows = {row["what"]: row for row in json.loads((tmp_path / "b.json").read_text())["rows"]}
    assert rows["bundle, run only"]["accuracy"] == pytest.approx(rows["student, torch"]["accuracy"], abs=1e-6)
    assert rows["teacher, k-hop fetch"]["agreement"] == 1.0


def _check_words(task: str, shown: str) -> None:
    """A bench and its page name the metric and the kind of agreement of the task, and of no other."""
    kind = TASKS[task]
    for text in (
        f"{kind.metric} agree",
        kind.same.format("the teacher with all its neighbours"),
        kind.same.format("its answers at export"),
        f"{capital(kind.metric)} against latency",
        f"reported {kind.metric}, %",
    ):
        assert text in shown
    assert not re.search(r"accuracy|\bacc\b|same label", shown)


@pytest.mark.parametrize("task", OTHERS)
@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_answer_files(task: str, suffix: str, tmp_path: Path) -> None:
    """A column for each quantity, or the labels in words and a probability for each."""
    file = task_graph(task).save(tmp_path / "g.npz")
    assert distill(file, tmp_path / "run", "--method", "glnn").exit_code == 0
    assert invoke("export", tmp_path / "run", "--onnx").exit_code == 0
    x = task_graph(task).x.numpy()
    np.savez(tmp_path / "in.npz", x=x)
    out = tmp_path / f"out{suffix}"
    said = invoke("predict", tmp_path / "run" / "bundle", tmp_path / "in.npz", "--out", out)
    assert "61 requests answered" in said.stdout
    expected = Predictor(tmp_path / "run" / "bundle").predict(x=x)
    columns = _columns(out)
    names = ["age", "income"] if task == "regression" else ["labels", "p_p", "p_q", "p_r"]
    assert list(columns) == ["id", *names]
    if task == "regression":
        np.testing.assert_allclose(np.array(columns["income"], float), expected.logits[:, 1], rtol=1e-6)
    else:
        assert expected.probabilities is not None
        np.testing.assert_allclose(np.array(columns["p_q"], float), expected.probabilities[:, 1], rtol=1e-5)
        words = ["-" if not row.any() else ";".join(np.array(["p", "q", "r"])[row > 0]) for row in expected.labels]
        assert list(columns["labels"]) == words


def _columns(path: Path) -> dict[str, list[object]]:
    if path.suffix == ".npz":
        return {name: array.tolist() for name, array in np.load(path).items()}
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        found: dict[str, list[object]] = parquet.read_table(path).to_pydict()
        return found
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.mark.parametrize("preset", ["int8", "int8-static", "int8-weight", "int4-weight", "fp16"])
@pytest.mark.parametrize("task", OTHERS)
def test_presets(task: str, preset: str, tmp_path: Path) -> None:
    """The gate is in the task's metric; a file that rounds is held against its own answers."""
    file = task_graph(task).save(tmp_path / "g.npz")
    shape = ("--set", "student.hidden=64", "--set", "student.layers=3", "--set", "train.epochs=40")
    assert distill(file, tmp_path / "run", "--method", "glnn", *shape).exit_code == 0
    found = invoke("export", tmp_path / "run", "--onnx", "--preset", preset, "--max-drop", 100)
    assert found.exit_code == 0, found.output
    assert f"validation {TASKS[task].metric}" in found.stdout
    assert {"multilabel": "same decision on a label as the network", "regression": "R2 against the network"}[
        task
    ] in found.stdout
    assert ("standard deviations" in found.stdout) == (task == "regression"), "a quantity has no total variation"
    Predictor(tmp_path / "run" / "bundle").self_check()


@pytest.mark.parametrize("task", OTHERS)
def test_several_seeds(task: str, tmp_path: Path) -> None:
    file = task_graph(task).save(tmp_path / "g.npz")
    found = distill(file, tmp_path / "runs", "--method", "glnn", "--seeds", 2)
    assert found.exit_code == 0, found.output
    assert f"{TASKS[task].metric} in %" in " ".join(found.stdout.split())


def test_methods_for_classes_say_so(tmp_path: Path) -> None:
    file = task_graph("regression").save(tmp_path / "g.npz")
    found = distill(file, tmp_path / "run", "--method", "gsdn")
    assert_one_line_error(found, "gsdn", "is for classification", "asks for regression", "glnn")
    assert not (tmp_path / "run").exists()


def test_floats_are_quantities_only_when_they_are_said_to_be(tmp_path: Path) -> None:
    """Columns of 0 and 1 explain themselves; a float could be a class number that pandas has spoiled."""
    graph = task_graph("regression")
    arrays = {"x": graph.x.numpy(), "edge_index": graph.edge_index.numpy()}
    np.savez(tmp_path / "g.npz", **arrays, y=graph.y[:, 0].numpy())
    assert_one_line_error(distill(tmp_path / "g.npz", tmp_path / "run", "--method", "glnn"), "--task regression")
    assert distill(tmp_path / "g.npz", tmp_path / "run", "--method", "glnn", "--task", "regression").exit_code == 0
    assert result_of(tmp_path / "run")["graph"]["classes"] == 1
    assert_one_line_error(invoke("inspect", "digits", "--task", "regression"), "digits", "classification")
    flags = np.stack([graph.y[:, 0] > 1, graph.y[:, 0] < 1], 1)
    for values in (flags, flags.astype(np.float64), flags.astype(np.int8)):
        np.savez(tmp_path / "g.npz", **arrays, y=values)
        assert read_graph(tmp_path / "g.npz", 0).task is MULTILABEL


def test_what_cannot_be_scored_or_named_is_refused(tmp_path: Path) -> None:
    """Before anything is trained: R2 needs variance, and a column of answers a name of its own."""
    graph = task_graph("regression")
    for part in ("val", "test"):
        y = graph.y.clone()
        y[getattr(graph.split, part), 1] = 7
        refused = distill(replace(graph, y=y).save(tmp_path / "g.npz"), tmp_path / "run", "--method", "glnn")
        assert_one_line_error(refused, f"in '{part}'", "'income'", "R2")
        assert not (tmp_path / "run").exists()
    for task in ("classification", *OTHERS):
        whole = task_graph(task)
        hidden = replace(whole, y=whole.y.clone())
        hidden.y[whole.split.test] = float("nan") if task == "regression" else -1
        refused = distill(hidden.save(tmp_path / "g.npz"), tmp_path / "run", "--method", "glnn", "--task", task)
        assert_one_line_error(refused, "no node in 'test' has a label", "belong to none")
        assert not (tmp_path / "run").exists()
    for names in (("age", "age"), ("id", "age")):
        with pytest.raises(DataError, match="different names"):
            replace(graph, class_names=names)


def test_own_teacher_of_another_width() -> None:
    """The complaint names what the columns of this task are."""
    graph = task_graph("regression")
    teacher = OwnTeacher(_Wide(), graph, TeacherConfig())
    with pytest.raises(KnowledgeError, match="a column for each quantity of the graph"):
        teacher(graph.x, graph.edge_index)


class _Wide(nn.Module):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("task", OTHERS)
def test_a_saved_graph_is_the_same_graph(task: str, tmp_path: Path) -> None:
    graph = task_graph(task)
    again = read_graph(graph.save(tmp_path / "g.npz"), 0)
    assert again.fingerprint() == graph.fingerprint()
    assert again.class_names == graph.class_names


def test_tables_of_words_and_numbers(tmp_path: Path) -> None:
    """Several labels in one cell, none of them, and an unknown row; or a number, or none."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "edges.csv").write_text("source,target\na,b\nb,c\n")
    (folder / "nodes.csv").write_text("id,label,split,f\na,red;big,train,1\nb,-,val,2\nc,big,test,3\nd,,,4\n")
    graph = read_folder(folder, 0, task="multilabel")
    assert graph.class_names == ("big", "red")
    assert graph.y.tolist() == [[1, 1], [0, 0], [1, 0], [-1, -1]]
    (folder / "nodes.csv").write_text("id,y,split,f\na,1.5,train,1\nb,-1,val,2\nc,3e2,test,3\nd,,,4\n")
    graph = read_folder(folder, 0, task="regression")
    assert graph.y[:3].tolist() == [[1.5], [-1.0], [300.0]]
    assert bool(graph.y[3].isnan())
    (folder / "nodes.csv").write_text("id,y,split,f\na,big,train,1\nb,-1,val,2\nc,3e2,test,3\n")
    assert_one_line_error(invoke("inspect", folder, "--task", "regression"), "column 'y'", "'big' is no number")
    (folder / "nodes.csv").write_text("id,y,split,f\na,big;;red,train,1\nb,-,val,2\nc,,test,3\n")
    assert_one_line_error(invoke("inspect", folder, "--task", "multilabel"), "a label is empty")


@pytest.mark.parametrize(
    ("labels", "refused"),
    [
        (["red;big", "big;new", "red;new"], True),
        (["red", "big", "red; big"], True),
        (["Arts; Music", "Law; Crime", "Arts"], False),
        (["red;", "big;", "new"], False),
        (["red", "big", "new"], False),
    ],
)
def test_several_labels_are_not_taken_for_classes(labels: list[str], refused: bool, tmp_path: Path) -> None:
    """Each combination would be a class of few nodes, and nothing would say that the question was another."""
    (tmp_path / "edges.csv").write_text("source,target\n0,1\n1,2\n")
    rows = [f"{labels[node % 3]},{('train', 'val', 'test')[node // 4]},{node}" for node in range(12)]
    (tmp_path / "nodes.csv").write_text("\n".join(["label,split,f", *rows]))
    assert len(read_folder(tmp_path, 0, task="classification").class_names) == 3
    if refused:
        words = ("column 'label'", "such as", "add --task multilabel", "--task classification")
        assert_one_line_error(invoke("inspect", tmp_path), *words)
        assert set(read_folder(tmp_path, 0, task="multilabel").class_names) <= {"red", "big", "new"}
    else:
        assert len(read_folder(tmp_path, 0).class_names) == 3


def test_networkx_labels() -> None:
    networkx = pytest.importorskip("networkx")
    graph = networkx.path_graph(4)
    for node, labels in zip(graph, (["a"], [], ["a", "b"], None), strict=True):
        part = ("train", "val", "test", "")[node]
        graph.nodes[node].update(x=[float(node)], y=labels, split=part, age=node / 2)
    several = GraphData.from_networkx(graph, task="multilabel")
    assert several.y.tolist() == [[1, 0], [0, 0], [1, 1], [-1, -1]]
    assert GraphData.from_networkx(graph, label="age", task="regression").y.flatten().tolist() == [0, 0.5, 1, 1.5]


def test_facts_of_other_tasks() -> None:
    """How alike the ends of an edge are is a correlation where labels are not one of several classes."""
    from graph2mlp.graph_facts import fact_rows, graph_facts

    for task in OTHERS:
        graph = task_graph(task)
        facts = graph_facts(graph)
        assert 0.1 < facts.homophily < 1
        assert "correlate" in dict(map(tuple, fact_rows(graph, facts)))["homophily"]
