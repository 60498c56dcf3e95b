"""NOSMOG: golden value, its parts, and what remains when they are switched off."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError
from graph2mlp.losses.base import Batch, TeacherRows
from graph2mlp.methods.nosmog import NOSMOG
from graph2mlp.students.base import StudentInput, StudentOutput, StudentSpec
from graph2mlp.training.student import train_student
from tests.graphs import F4
from tests.pipeline import bare_stage, make_stage, run_method, same_weights, small_config


def _similarity(method: NOSMOG, student: torch.Tensor, teacher: torch.Tensor) -> float:
    """The similarity term of `method` with the identity as projection (ReLU needs non-negative rows)."""
    spec = StudentSpec(features=3, classes=3, hidden=student.size(1))
    _, term = method.loss_terms(spec, bare_stage())["similarity"]
    term.eval()
    assert isinstance(term.project, nn.Linear)
    with torch.no_grad():
        term.double().project.weight.copy_(torch.eye(student.size(1)))  # type: ignore[operator,union-attr]
        term.project.bias.zero_()  # type: ignore[operator,union-attr]
    rows = TeacherRows(torch.zeros(len(teacher), 3), teacher)
    batch = Batch(torch.arange(len(teacher)), StudentInput(student), torch.zeros(len(teacher)).long(), (rows,))
    return float(term(batch, StudentOutput(torch.zeros(len(teacher), 3), (student,))).detach())


def test_golden_similarity(f4: F4) -> None:
    """11.1875 on the fixture. Its student features have one negative number, which ReLU would remove; only inner
    products count, so the same rows turned into the positive octant give the same value."""
    gram = f4.S @ f4.S.T
    assert _similarity(NOSMOG(cosine=False), f4.T, f4.T) == 0
    swapped = (f4.T @ f4.T.T - gram).square().mean()
    assert float(swapped) == 11.1875
    # T is non-negative: let it play the student, since the term is symmetric in its two sides.
    assert _similarity(NOSMOG(cosine=False), f4.T, f4.S) == 11.1875


def test_cosine_ignores_the_length_of_rows(f4: F4) -> None:
    """Which makes its weight comparable between graphs: the published weights range from 1e-9 to 0.9."""
    method = NOSMOG(cosine=True)
    scale = torch.tensor([1.0, 5.0, 0.1, 30.0]).double()[:, None]
    assert _similarity(method, f4.T, f4.S) == pytest.approx(_similarity(method, f4.T * scale, f4.S * 7))
    assert _similarity(method, f4.T, f4.T * scale) == pytest.approx(0, abs=1e-12)


def test_without_its_parts_it_is_glnn(dense_graph: GraphData) -> None:
    """Bit for bit under the same seed: no part may draw a random number when it is off."""
    config = small_config("glnn", overrides=["glnn.hard=0.3", "glnn.soft=0.7", "student.dropout=0.4"])
    stage, spec = make_stage(config, dense_graph)
    bare = NOSMOG(hard=0.3, soft=0.7, adversarial=0.0, similarity=0.0)
    (nosmog, first), (glnn, second) = (train_student(method, spec, stage) for method in (bare, config.hyper))
    assert same_weights(nosmog.state_dict(), glnn.state_dict())
    assert first.best == second.best


@pytest.mark.parametrize("part", ["adversarial", "similarity", "hard", "soft"])
def test_each_part_takes_part(part: str, dense_graph: GraphData) -> None:
    """A term that is wired up wrongly trains without it and nobody notices."""
    full = run_method("nosmog", dense_graph, overrides=["nosmog.hard=0.5"])
    without = run_method("nosmog", dense_graph, overrides=["nosmog.hard=0.5", f"nosmog.{part}=0"])
    assert not same_weights(full.weights(), without.weights())


def test_projection_is_not_part_of_the_student(dense_graph: GraphData) -> None:
    """It is a head of the loss, trained with the student and dropped at export."""
    assert not any("project" in name for name in run_method("nosmog", dense_graph).weights())


def test_positions_are_read(dense_graph: GraphData) -> None:
    """The known row must reach the answer."""
    trained = run_method("nosmog", dense_graph)
    structure = torch.zeros(1, 4), torch.ones(1, 4)
    first, second = (trained.student(StudentInput(torch.zeros(1, 12), one)).logits for one in structure)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    "values",
    [
        {"similarity": -0.1},
        {"adversarial": -1},
        {"eps": 0.0},
        {"eps": math.inf},
        {"step_size": math.inf},
        {"steps": 0},
        {"rows": 0.0},
        {"temperature": 0.0},
        {"temperature": math.inf},
        {"soft": 0.0},
    ],
)
def test_impossible_settings_are_refused(values: dict[str, Any]) -> None:
    """When the settings are read, not after the teacher has been trained."""
    with pytest.raises(ConfigError):
        NOSMOG(**values)


def test_similarity_alone(dense_graph: GraphData) -> None:
    """There is no label term to attack then, which is said; without the attack it trains."""
    with pytest.raises(ConfigError, match="nosmog.adversarial puts the label terms under attack"):
        small_config("nosmog", overrides=["nosmog.soft=0"])
    alone = run_method("nosmog", dense_graph, overrides=["nosmog.soft=0", "nosmog.adversarial=0"])
    assert alone.fitted.epochs >= 1
