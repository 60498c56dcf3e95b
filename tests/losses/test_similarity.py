"""NOSMOG's similarity term: the projection, the formula behind it, and both scalings."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graph2mlp.losses.base import Batch, TeacherRows
from graph2mlp.losses.similarity import SimilarityDistillation
from graph2mlp.students.base import StudentInput, StudentOutput, StudentSpec

SPEC = StudentSpec(features=5, classes=3, hidden=6, dropout=0.5)


def _batch(*hidden: Tensor) -> Batch:
    count = len(hidden[0])
    rows = tuple(TeacherRows(torch.zeros(count, 3), one) for one in hidden)
    return Batch(torch.arange(count), StudentInput(torch.zeros(count, 5)), torch.zeros(count).long(), rows)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("cosine", [False, True])
def test_equals_the_formula_over_all_pairs(cosine: bool) -> None:
    """`u = ReLU(Linear(last hidden))` against the teacher's rows, whose width is another; all pairs by hand."""
    term = SimilarityDistillation(SPEC, cosine=cosine).eval()
    hidden, teacher = _random(7, 6), _random(7, 4, seed=1)
    out = StudentOutput(torch.zeros(7, 3), (_random(7, 6, seed=2), hidden))
    student = F.relu(hidden @ term.project.weight.T + term.project.bias)
    if cosine:
        student, teacher_rows = F.normalize(student), F.normalize(teacher)
    else:
        teacher_rows = teacher
    want = torch.stack(
        [
            torch.stack([(teacher_rows[i] @ teacher_rows[j] - student[i] @ student[j]) ** 2 for j in range(7)])
            for i in range(7)
        ]
    ).mean()
    torch.testing.assert_close(term(_batch(teacher), out), want)


def test_single_row() -> None:
    """B = 1 is a last batch: the formula is then a difference of squared norms."""
    term = SimilarityDistillation(SPEC).eval()
    hidden, teacher = _random(1, 6), _random(1, 4, seed=1)
    student = F.relu(term.project(hidden))
    want = (teacher.square().sum() - student.square().sum()) ** 2
    torch.testing.assert_close(term(_batch(teacher), StudentOutput(torch.zeros(1, 3), (hidden,))), want)


def test_gradient_reaches_projection_and_student_but_not_the_teacher() -> None:
    """The teacher is frozen; the projection is a head of the term and trains with the student."""
    term = SimilarityDistillation(SPEC)
    hidden = _random(9, 6).requires_grad_()
    term(_batch(_random(9, 4)), StudentOutput(torch.zeros(9, 3), (hidden,))).backward()
    assert hidden.grad is not None
    assert all(parameter.grad is not None for parameter in term.parameters())


def test_dropout_acts_in_training_only() -> None:
    """The projection is noisy while it trains, as in the paper."""
    term = SimilarityDistillation(SPEC)
    out, batch = StudentOutput(torch.zeros(9, 3), (_random(9, 6),)), _batch(_random(9, 4))
    assert not torch.equal(term(batch, out), term(batch, out))
    term.eval()
    assert torch.equal(term(batch, out), term(batch, out))
