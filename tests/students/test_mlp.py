"""The student's contract: an affine first layer, and no place where an edge could enter."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from graph2mlp.data.features import take_rows
from graph2mlp.errors import ConfigError, MethodError
from graph2mlp.students.base import StudentConfig, StudentInput, StudentSpec
from graph2mlp.students.mlp import MLPStudent


def _student(**changed: object) -> MLPStudent:
    torch.manual_seed(0)
    values: dict[str, object] = {"features": 5, "structure": 3, "classes": 4, "hidden": 6, "dropout": 0.0}
    return MLPStudent(StudentSpec(**{**values, **changed}))  # type: ignore[arg-type]


def _inputs(rows: int = 8, seed: int = 0) -> StudentInput:
    generator = torch.Generator().manual_seed(seed)
    return StudentInput(torch.randn(rows, 5, generator=generator), torch.randn(rows, 3, generator=generator))


def _structure(inputs: StudentInput) -> Tensor:
    assert inputs.structure is not None
    return inputs.structure


def test_first_layer_is_affine() -> None:
    """Export multiplies the table by these weights beforehand, the adversary adds noise behind: both rely on it."""
    student, inputs = _student().eval(), _inputs()
    assert isinstance(inputs.features, Tensor)
    assert student.structure_weight is not None
    zero = student.embed(StudentInput(torch.zeros(1, 5), torch.zeros(1, 3)))
    want = inputs.features @ student.feature_weight + _structure(inputs) @ student.structure_weight + zero
    torch.testing.assert_close(student.embed(inputs), want)
    other = _inputs(seed=1)
    assert isinstance(other.features, Tensor)
    mixed = StudentInput(
        0.3 * inputs.features + 0.7 * other.features, 0.3 * _structure(inputs) + 0.7 * _structure(other)
    )
    torch.testing.assert_close(student.embed(mixed), 0.3 * student.embed(inputs) + 0.7 * student.embed(other))


def test_forward_is_head_of_embed() -> None:
    """The split is a contract: nothing may happen between the two halves."""
    student, inputs = _student(layers=3).eval(), _inputs()
    out = student(inputs)
    assert torch.equal(out.logits, student.head(student.embed(inputs)).logits)
    assert [tuple(hidden.shape) for hidden in out.hidden] == [(8, 6), (8, 6)]
    assert torch.equal(out.hidden[0], student.embed(inputs)), "hidden layers are taken before their activation"


def test_input_has_no_place_for_edges() -> None:
    """By construction: whoever adds a field here must think about every claim we make."""
    assert [field.name for field in fields(StudentInput)] == ["features", "structure"]


def test_rows_are_independent() -> None:
    """A node's answer must not depend on who else is in the batch, or edges could come in through it."""
    student, inputs = _student(norm="batch").eval(), _inputs()
    assert isinstance(inputs.features, Tensor)
    alone = [student(StudentInput(inputs.features[i : i + 1], _structure(inputs)[i : i + 1])).logits for i in range(8)]
    torch.testing.assert_close(torch.cat(alone), student(inputs).logits)


def test_sparse_features_give_the_same_answers() -> None:
    """Bag-of-words graphs never become dense."""
    student, inputs = _student().eval(), _inputs()
    assert isinstance(inputs.features, Tensor)
    sparse = StudentInput(take_rows(inputs.features.to_sparse_csr(), torch.arange(8)), inputs.structure)
    torch.testing.assert_close(student(sparse).logits, student(inputs).logits)


@pytest.mark.parametrize("structure", [0, 3])
def test_regime_follows_structure(structure: int) -> None:
    """The regime is printed in every row of every table."""
    student = _student(structure=structure)
    assert student.regime == ("structure" if structure else "features")
    assert (student.structure_weight is None) is (structure == 0)
    assert (
        student.num_parameters
        == sum(p.numel() for p in student.parameters())
        == 5 * 6 + 3 * 6 * (structure > 0) + 6 + 28
    )


def test_structure_student_without_structure() -> None:
    """Answering from features alone would be another student than the one that was measured."""
    with pytest.raises(MethodError, match="reads structure, but the batch has none"):
        _student()(StudentInput(torch.zeros(2, 5)))


def test_structure_dropout_zeroes_whole_rows_in_training_only() -> None:
    """A dropped row must look exactly like the zero row of a node without neighbours: not rescaled, not in part."""
    student = _student(structure_dropout=0.5)
    inputs = StudentInput(torch.zeros(400, 5), torch.ones(400, 3))
    assert student.structure_weight is not None
    assert student.first.bias is not None
    cold, warm = student.first.bias.detach(), (student.first.bias + student.structure_weight.sum(0)).detach()
    embedded = student.embed(inputs).detach()
    is_cold = torch.isclose(embedded, cold).all(1)
    assert bool((is_cold | torch.isclose(embedded, warm, atol=1e-6).all(1)).all())
    assert 0.4 < float(is_cold.float().mean()) < 0.6
    student.eval()
    torch.testing.assert_close(student.embed(inputs).detach(), warm.expand(400, -1))


def test_batch_norm_uses_the_batch_in_training_and_its_memory_afterwards() -> None:
    """It is folded into the weights at export, which is right only if evaluation is affine."""
    student, inputs = _student(norm="batch"), _inputs(64)
    student(inputs)
    norm = student.norms[0]
    assert int(norm.num_batches_tracked) == 1
    student.eval()
    student(inputs)
    assert int(norm.num_batches_tracked) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"layers": 0},
        {"layers": 1},
        {"hidden": 0},
        {"dropout": 1.0},
        {"input_dropout": -0.1},
        {"structure_dropout": float("nan")},
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, float]) -> None:
    """At once, with the setting's name, not as a torch error after the teacher has been trained."""
    with pytest.raises(ConfigError, match=f"student.{next(iter(change))}"):
        StudentConfig(**change)  # type: ignore[arg-type]
