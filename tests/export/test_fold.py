"""Folding is exact: the network after it is the network before it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graph2mlp.export.fold import PAD_WEIGHT, first_bias, fold_student, fold_table
from graph2mlp.students.base import StudentInput


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("structure", [False, True])
def test_batchnorm_disappears(make_student, layers: int, structure: bool) -> None:
    """The first layer has two weights and both must be scaled; negative scales and non-zero means are in the test."""
    student = make_student(layers=layers, norm="batch", structure=structure)
    folded = fold_student(student)
    assert not any(isinstance(module, nn.BatchNorm1d) for module in folded.modules())
    inputs = StudentInput(torch.randn(50, 20), torch.randn(50, 5) if structure else None)
    with torch.no_grad():
        torch.testing.assert_close(folded(inputs).logits, student(inputs).logits, atol=2e-6, rtol=1e-5)


def test_student_is_left_alone(make_student) -> None:
    """Export must not change the network it is compared with."""
    student = make_student(norm="batch")
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    fold_student(student)
    for name, tensor in student.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_table_by_hand(make_student, make_table) -> None:
    """A known row is `rows W + b` with weight 1; unknown and padding rows weigh next to nothing and cancel to `b`."""
    student, table = make_student(), make_table()
    folded, bias = fold_table(table, student, rows_at_once=7), first_bias(student)
    assert folded.shape == (31, 9)
    expected = table.rows[3] @ student.structure_weight + student.first.bias
    torch.testing.assert_close(folded[3, :-1], expected, atol=1e-6, rtol=1e-6)
    assert folded[3, -1] == 1
    for row in (0, 5, -1):
        torch.testing.assert_close(folded[row], torch.cat([bias, torch.ones(1)]) * PAD_WEIGHT)
    # Beside one known row a thousand padding rows leave the count exactly 1.
    assert folded[[3] + [-1] * 1000, -1].sum() == 1
