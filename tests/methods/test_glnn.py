"""GLNN: golden values of its spec, through the loss terms that training uses."""

from __future__ import annotations

import pytest
import torch

from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError
from graph2mlp.losses.base import Batch, TeacherRows
from graph2mlp.methods.glnn import GLNN
from graph2mlp.methods.mlp import MLP
from graph2mlp.students.base import StudentInput, StudentOutput, StudentSpec
from graph2mlp.training.student import train_student
from tests.graphs import F4
from tests.pipeline import bare_stage, make_stage, same_weights, small_config

SPEC = StudentSpec(features=3, classes=3)


def _values(method: GLNN, f4: F4) -> dict[str, float]:
    """Each unweighted term on the golden fixture."""
    batch = Batch(torch.arange(4), StudentInput(f4.S), f4.y, (TeacherRows(f4.Zt, None),))
    return {
        name: float(term(batch, StudentOutput(f4.Zs, ())))
        for name, (_, term) in method.loss_terms(SPEC, bare_stage()).items()
    }


def test_golden_values(f4: F4) -> None:
    """0.097027 for the soft part would be the elementwise mean, the usual mistake."""
    values = _values(GLNN(hard=0.5, soft=0.5), f4)
    assert values == {"hard": pytest.approx(0.729914, abs=1e-6), "soft": pytest.approx(0.291081, abs=1e-6)}


def test_golden_value_with_temperature(f4: F4) -> None:
    """Scaled by t^2, so that the gradient keeps its size."""
    assert _values(GLNN(soft=1.0, temperature=4.0), f4)["soft"] == pytest.approx(0.587579, abs=1e-6)


def test_weights_are_explicit_and_zero_leaves_out() -> None:
    """A term of weight 0 that still steps is not a no-op under Adam with decay."""
    assert {name: weight for name, (weight, _) in GLNN(hard=0.25, soft=2.0).loss_terms(SPEC, bare_stage()).items()} == {
        "hard": 0.25,
        "soft": 2.0,
    }
    assert set(GLNN(hard=0.0, soft=1.0).loss_terms(SPEC, bare_stage())) == {"soft"}
    assert set(GLNN(hard=1.0, soft=0.0).loss_terms(SPEC, bare_stage())) == {"hard"}


def test_hard_labels_alone_are_the_plain_mlp(dense_graph: GraphData) -> None:
    """The same seed and settings must give the same weights: the soft part then takes no part at all."""
    stage, spec = make_stage(small_config("glnn"), dense_graph)
    students = [train_student(method, spec, stage)[0] for method in (MLP(), GLNN(hard=1.0, soft=0.0))]
    assert same_weights(*(student.state_dict() for student in students))


@pytest.mark.parametrize("values", [{"hard": -1.0}, {"hard": 0.0, "soft": 0.0}, {"temperature": 0.0}])
def test_impossible_weights_are_refused(values: dict[str, float]) -> None:
    """When the settings are read, not after the teacher has been trained."""
    with pytest.raises(ConfigError):
        GLNN(**values)
