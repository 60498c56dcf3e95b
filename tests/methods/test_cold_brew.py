"""Cold Brew: what each stage trains, what a training node may find, and which teachers and banks it takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError, MethodError
from graph2mlp.methods.base import Stage
from graph2mlp.methods.cold_brew import ColdBrew, embedding_bank
from graph2mlp.run import open_run
from graph2mlp.students.base import StudentSpec
from graph2mlp.students.nearest import nearest_reference
from graph2mlp.students.retrieval import RetrievalStudent
from graph2mlp.training.batches import student_inputs
from graph2mlp.training.checkpoint import Checkpoint
from graph2mlp.training.student import train_student
from tests.cli import distill, invoke, result_of
from tests.graphs import community_graph, save_npz
from tests.pipeline import make_stage, run_method, same_weights, small_config


def _parts(graph: GraphData, *overrides: str, **changed: Any) -> tuple[ColdBrew, RetrievalStudent, Stage]:
    """Method, fresh student and stage, without noise."""
    config = small_config("cold_brew", overrides=["student.dropout=0", *overrides])
    stage, spec = make_stage(config, graph)
    torch.manual_seed(0)
    method = ColdBrew(**changed)
    return method, method.student(method.shape(spec, stage)), stage


def test_bank_holds_every_layer_of_the_teacher(tiny_graph: GraphData) -> None:
    """Before the activation, the logits last; with unit layers each part of a row has length 1."""
    stage, _spec = make_stage(small_config("cold_brew", overrides=["teacher.layers=3"]), tiny_graph)
    (teacher,) = stage.teachers
    first, second = teacher.hidden.values()
    assert torch.equal(embedding_bank(stage), torch.cat([first, second, teacher.logits], 1))
    unit = embedding_bank(stage, unit_layers=True)
    torch.testing.assert_close(unit[:, 16:], F.normalize(teacher.logits, dim=1))
    torch.testing.assert_close(unit.square().sum(1), torch.full((61,), 3.0))


def test_first_stage_trains_the_guess_alone(tiny_graph: GraphData) -> None:
    """Its loss is the mean square over rows and columns; MLP, scalars and bank stay as they are."""
    method, student, stage = _parts(tiny_graph)
    team = method.first_stage(student, stage, torch.Generator().manual_seed(0))
    bank = embedding_bank(stage)
    assert torch.equal(student.bank, bank)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    (player,), batch = team.players, next(iter(team.batches()))
    guess = student.guess(student_inputs(stage, batch.ids))
    loss = player.objective(batch)["embedding"]
    torch.testing.assert_close(loss, (guess - bank[batch.ids]).square().mean())
    player.step(batch)
    moved = {name for name, tensor in student.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"guess_first.weight", "guess_first.bias", "guess_last.weight", "guess_last.bias"}


def test_second_stage_leaves_guess_bank_and_teacher_alone(tiny_graph: GraphData) -> None:
    """Bit for bit, weight decay included: the paper freezes them."""
    method, student, stage = _parts(tiny_graph, soft=1.0)
    student.bank.copy_(embedding_bank(stage))
    logits = stage.teachers[0].logits.clone()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    team = method.team(student, stage, torch.Generator().manual_seed(0), method.loss_terms(student.spec, stage))
    for batch in team.batches():
        team.players[0].step(batch)
    moved = {name for name, tensor in student.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith(("guess_first", "guess_last", "bank")) for name in moved)
    assert {"guess_scale", "context_scale", "mlp.first.weight", "mlp.structure.weight"} <= moved
    assert torch.equal(stage.teachers[0].logits, logits)


@pytest.mark.parametrize("exclude", [True, False])
def test_training_answers_like_the_student_but_for_itself(exclude: bool, tiny_graph: GraphData) -> None:
    """What was found once before stage 2 is what the student finds anew at each request, its own row apart."""
    method, student, stage = _parts(tiny_graph, exclude_self=exclude, neighbours=30)
    method.first_stage(student, stage, torch.Generator().manual_seed(0))
    with torch.no_grad():
        student.guess_scale.fill_(0.5)
        student.context_scale.fill_(2.0)
    team = method.team(student, stage, torch.Generator().manual_seed(0), method.loss_terms(student.spec, stage))
    batch, ids = next(iter(team.batches())), torch.arange(61)
    _own, out = team.players[0].objective.answer(batch)
    plain = student.eval()(batch.inputs).logits
    guess = student.guess(student_inputs(stage, ids))
    finds_itself = (nearest_reference(guess, student.bank, 30).ids == ids[:, None]).any(1)[batch.ids]
    same = torch.isclose(out.logits, plain, atol=1e-5).all(1)
    assert 0 < int(finds_itself.sum()) < len(batch.ids), "both cases are there"
    assert torch.equal(same, ~finds_itself) if exclude else bool(same.all())


def test_validation_scores_the_student_that_is_deployed(tiny_graph: GraphData) -> None:
    """The shortcut of stage 2 and the network itself must agree, or the wrong epoch is kept."""
    method, student, stage = _parts(tiny_graph)
    method.first_stage(student, stage, torch.Generator().manual_seed(0))
    team = method.team(student.eval(), stage, torch.Generator().manual_seed(0), method.loss_terms(student.spec, stage))
    with torch.no_grad():
        student.guess_scale.fill_(-0.5)
        student.context_scale.fill_(2.0)
        assert team.evaluate is not None
        got = team.evaluate()
        val = stage.graph.split.val
        logits = student(student_inputs(stage, val)).logits
    assert got.value == float((logits.argmax(1) == stage.graph.y[val]).double().mean())
    assert -got.negative_loss == pytest.approx(float(F.cross_entropy(logits, stage.graph.y[val])), abs=1e-5)


def test_prototypes_are_centres_of_clusters(tiny_graph: GraphData) -> None:
    """Every row of the small bank is the mean of the rows nearest to it, and the seed fixes them."""
    method, student, stage = _parts(tiny_graph, bank="kmeans", prototypes=5)
    method.first_stage(student, stage, torch.Generator().manual_seed(0))
    rows = embedding_bank(stage)
    nearest = torch.cdist(rows, student.bank).argmin(1)
    assert student.bank.shape == (5, rows.size(1))
    for number in range(5):
        torch.testing.assert_close(student.bank[number], rows[nearest == number].mean(0), atol=1e-4, rtol=1e-4)
    again = _parts(tiny_graph, bank="kmeans", prototypes=5)
    again[0].first_stage(again[1], again[2], torch.Generator().manual_seed(1))
    assert torch.equal(again[1].bank, student.bank)


@pytest.mark.parametrize("teacher", ["gcn", "sage", "gat", "appnp", "gcn_se+sage"])
def test_takes_any_teacher_with_hidden_layers(teacher: str, dense_graph: GraphData) -> None:
    """The bank follows the teacher's width."""
    trained = run_method("cold_brew", dense_graph, overrides=[f"teacher.name={teacher}"])
    assert isinstance(trained.student, RetrievalStudent)
    assert trained.student.bank.shape == (61, 8 * (teacher.count("+") + 1) + 3)


def test_refuses_what_cannot_work(dense_graph: GraphData) -> None:
    """Before anything is trained, with what to do instead."""
    stage, spec = make_stage(small_config("cold_brew"), dense_graph)
    bare = replace(stage, teachers=(replace(stage.teachers[0], hidden={}),))
    with pytest.raises(MethodError, match="holds logits only"):
        train_student(ColdBrew(), spec, bare)
    for method, message in (
        (ColdBrew(neighbours=61), "the bank has only 60 rows"),
        (ColdBrew(bank="kmeans", prototypes=62), "only 61 observed nodes"),
    ):
        with pytest.raises(MethodError, match=message):
            train_student(method, spec, stage)
    assert ColdBrew(neighbours=61, exclude_self=False).shape(spec, stage).neighbours == 61
    few = {"bank": "kmeans", "prototypes": 4, "neighbours": 5}
    for values in ({"neighbours": 0}, {"hard": 0.0, "soft": 0.0}, {"temperature": 0.0}, {"prototypes": 0}, few):
        with pytest.raises(ConfigError):
            ColdBrew(**values)  # type: ignore[arg-type]


def test_interrupted_first_stage_goes_on(dense_graph: GraphData, tmp_path: Path) -> None:
    """It has a checkpoint of its own; losing it would train another guess from there on."""
    overrides = ["train.epochs=7", "student.dropout=0.4"]
    whole = run_method("cold_brew", dense_graph, overrides=overrides)
    epochs: list[int] = []

    def stop(epoch: int, _: Any) -> None:
        if epoch > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_method(
            "cold_brew",
            dense_graph,
            overrides=overrides,
            first_log=stop,
            checkpoint=Checkpoint(tmp_path / "c.safetensors", seconds=0),
        )
    resumed = run_method(
        "cold_brew",
        dense_graph,
        overrides=overrides,
        first_log=lambda epoch, _: epochs.append(epoch),
        checkpoint=Checkpoint(tmp_path / "c.safetensors"),
    )
    assert epochs[0] == 4
    assert same_weights(whole.weights(), resumed.weights())


def test_more_losses_may_be_added(dense_graph: GraphData) -> None:
    """Terms that compare hidden layers, and one whose batches hold sampled neighbours."""
    added = ["loss.similarity=0.1", "loss.gcrd=0.1", "loss.lsp=0.1", "loss.fanout=3"]
    plain, more = (run_method("cold_brew", dense_graph, overrides=one) for one in ([], added))
    assert not same_weights(plain.weights(), more.weights())


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_from_graph_to_answers(sparse: bool, tmp_path: Path) -> None:
    """The whole way of a user: run folder, export, inspect, self-check, predict, bench; the bank goes along once."""
    graph = community_graph(sparse=sparse)
    out, bundle = tmp_path / "run", tmp_path / "run" / "bundle"
    assert distill(save_npz(graph, tmp_path / "tiny.npz"), out, "--method", "cold_brew").exit_code == 0
    result = result_of(out)
    assert (result["regime"], result["teacher"]["name"]) == ("features", "gcn_se")
    stages = [json.loads(line)["stage"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {"student", "student, first stage"} <= set(stages)
    student = open_run(out).student()
    assert isinstance(student, RetrievalStudent)
    assert student.bank.shape == (61, 11)
    assert torch.equal(load_file(out / "student.safetensors")["bank"], student.bank)
    form = "sparse" if sparse else "dense"
    assert invoke("export", out, "--onnx", "--features", form).exit_code == 0
    shown = invoke("inspect", bundle).stdout
    assert "bank" in shown
    assert "intact" in shown
    np.savez(tmp_path / "requests.npz", x=graph.x.to_dense().numpy())
    answers = invoke("predict", bundle, tmp_path / "requests.npz").stdout.splitlines()
    assert len(answers) == 1 + 61
    bench = invoke("bench", bundle, "--batch", "1,8", "--seconds", "0.05", "--against", out)
    assert bench.exit_code == 0
    assert "teacher" in bench.stdout


def test_spec_keeps_the_settings_of_the_student(dense_graph: GraphData) -> None:
    """Width, depth and dropout a user asked for are those of the classifier."""
    stage, spec = make_stage(small_config("cold_brew", overrides=["student.layers=3"]), dense_graph)
    student = ColdBrew().student(ColdBrew().shape(spec, stage))
    assert (student.spec.layers, student.spec.hidden) == (3, 8)
    assert len(student.mlp.layers) == 2
    assert isinstance(student.mlp.spec, StudentSpec)
