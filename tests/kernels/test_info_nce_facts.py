"""What InfoNCE must do whatever the numbers: the facts that its paper rests on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graph2mlp.kernels.dispatch import Backend, use
from graph2mlp.kernels.info_nce import info_nce
from tests.kernels.compare import pair

ROWS, WIDTH, TAU = 13, 5, 0.3
PATHS: list[Backend] = ["dense", "chunked"]


@pytest.fixture(params=PATHS, autouse=True)
def path(request: pytest.FixtureRequest) -> object:
    """Each fact on each path."""
    with use(request.param):
        yield request.param


def _sides() -> tuple[Tensor, Tensor]:
    return pair(ROWS, WIDTH, WIDTH, torch.float64)


def _rotation(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)).Q


def test_rotations() -> None:
    """A common one changes nothing; one side alone loses its partners: heads must learn to align, unlike with GSP."""
    student, teacher = _sides()
    turn = _rotation(0)
    plain = info_nce(student, teacher, tau=TAU)
    torch.testing.assert_close(info_nce(student @ turn, teacher @ turn, tau=TAU), plain, rtol=1e-12, atol=0)
    assert abs(float(info_nce(student @ turn, teacher @ _rotation(1), tau=TAU) - plain)) > 1e-2


def test_order_and_length_of_rows() -> None:
    """Neither matters."""
    student, teacher = _sides()
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0))
    scale = torch.linspace(0.1, 9, ROWS, dtype=torch.float64)[:, None]
    changed = info_nce((scale * student)[order], (scale.flip(0) * teacher)[order], tau=TAU)
    torch.testing.assert_close(changed, info_nce(student, teacher, tau=TAU), rtol=1e-12, atol=0)


def test_a_collapsed_student_pays_for_it() -> None:
    """Equal student rows: log N when the teacher's are equal, too, and more than that when they differ."""
    student, teacher = _sides()
    same = student[:1].expand(ROWS, WIDTH)
    assert float(info_nce(same, teacher[:1].expand(ROWS, WIDTH), tau=TAU)) == pytest.approx(math.log(ROWS), rel=1e-12)
    assert float(info_nce(same, teacher, tau=TAU)) > math.log(ROWS)


def test_bounds() -> None:
    """One row finds itself; distinct rows that agree cost nothing as tau falls; k equal teacher rows cost log k."""
    student, teacher = _sides()
    assert float(info_nce(student[:1], teacher[:1], tau=TAU)) == 0
    assert 0 <= float(info_nce(student, student, tau=0.001)) < 1e-12
    twins = student.repeat(4, 1)
    assert float(info_nce(twins, twins, tau=0.001)) == pytest.approx(math.log(4), rel=1e-12)
    assert float(info_nce(student.repeat(4, 1), teacher.repeat(4, 1), tau=TAU)) > math.log(4)


def test_gradient_moves_no_row_as_a_whole() -> None:
    """The gradients of a row's logits sum to 0: without normalisation, one vector added to every teacher row adds the
    same to a row's logits, and changes nothing."""
    student, teacher = (side.requires_grad_() for side in _sides())
    gradient = torch.autograd.grad(info_nce(student, teacher, tau=TAU, normalize=False), teacher)[0]
    assert float(gradient.abs().max()) > 1e-3
    torch.testing.assert_close(gradient.sum(0), torch.zeros(WIDTH, dtype=torch.float64), rtol=0, atol=1e-14)
