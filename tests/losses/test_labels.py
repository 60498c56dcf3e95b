"""Losses on logits: the properties that their specs ask for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graph2mlp.data.graph import HIDDEN_LABEL
from graph2mlp.errors import ConfigError
from graph2mlp.kernels.functional import soft_label_kd
from graph2mlp.losses.base import Batch, TeacherRows
from graph2mlp.losses.labels import HardLabels, SoftLabels
from graph2mlp.students.base import StudentInput, StudentOutput
from tests.graphs import F4


def _batch(labels: Tensor, *teachers: Tensor) -> Batch:
    rows = tuple(TeacherRows(logits, None) for logits in teachers)
    return Batch(torch.arange(len(labels)), StudentInput(torch.zeros(len(labels), 1)), labels, rows)


def _out(logits: Tensor) -> StudentOutput:
    return StudentOutput(logits, ())


def test_hidden_labels_do_not_count(f4: F4) -> None:
    """The mean is over labelled rows; rows of validation and test nodes are in the batch for the teacher's sake."""
    labels = torch.tensor([0, HIDDEN_LABEL, 1, HIDDEN_LABEL])
    want = F.cross_entropy(f4.Zs[[0, 2]], torch.tensor([0, 1]))
    assert torch.equal(HardLabels()(_batch(labels), _out(f4.Zs)), want)


def test_batch_without_labels_gives_zero_with_a_gradient(f4: F4) -> None:
    """The mean of no rows is NaN; the step must still be possible."""
    logits = f4.Zs.clone().requires_grad_()
    loss = HardLabels()(_batch(torch.full((4,), HIDDEN_LABEL)), _out(logits))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_kl_gradient_is_the_difference_of_probabilities(f4: F4) -> None:
    """dL/dz_S = (p_S - p_T) / N at temperature 1, and the teacher's logits are taken as they are."""
    logits = f4.Zs.clone().requires_grad_()
    SoftLabels()(_batch(f4.y, f4.Zt), _out(logits)).backward()
    torch.testing.assert_close(logits.grad, (f4.Zs.softmax(1) - f4.Zt.softmax(1)) / 4)


def test_kl_ignores_a_shift_of_the_logits_and_the_order_of_classes(f4: F4) -> None:
    """Softmax knows no constant per row, and no class is special."""
    want = soft_label_kd(f4.Zs, f4.Zt)
    torch.testing.assert_close(soft_label_kd(f4.Zs + torch.arange(4.0)[:, None], f4.Zt - 3), want)
    torch.testing.assert_close(soft_label_kd(f4.Zs[:, [2, 0, 1]], f4.Zt[:, [2, 0, 1]]), want)
    assert abs(float(soft_label_kd(f4.Zt + 5, f4.Zt))) < 1e-12


def test_one_hot_teacher_is_cross_entropy(f4: F4) -> None:
    """A teacher without doubt says what a label says; infinities must not appear on the way."""
    teacher = 1e4 * F.one_hot(f4.y, 3).double()
    torch.testing.assert_close(soft_label_kd(f4.Zs, teacher), F.cross_entropy(f4.Zs, f4.y))


def test_several_teachers_are_averaged(f4: F4) -> None:
    """Two teachers must not teach twice as loud as one."""
    both = SoftLabels()(_batch(f4.y, f4.Zt, f4.T), _out(f4.Zs))
    torch.testing.assert_close(both, (soft_label_kd(f4.Zs, f4.Zt) + soft_label_kd(f4.Zs, f4.T)) / 2)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_bad_temperature_is_refused(temperature: float) -> None:
    """Dividing by zero would give NaN weights after the first update, far from the cause."""
    with pytest.raises(ConfigError, match="temperature must be positive"):
        SoftLabels(temperature=temperature)


def test_first_rows_of_a_batch(f4: F4) -> None:
    """The adversary compares with the first rows only; labels and teachers must be cut alike."""
    first = _batch(f4.y, f4.Zt).first(2)
    assert first.labels.tolist() == [0, 1]
    assert torch.equal(first.teachers[0].logits, f4.Zt[:2])
    assert first.teachers[0].hidden is None
