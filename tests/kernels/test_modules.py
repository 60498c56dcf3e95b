"""The module forms say the same as the functions."""

from __future__ import annotations

import pytest
import torch

from graph2mlp.errors import KernelError
from graph2mlp.kernels import GSPLoss, InfoNCELoss, KDLoss, LSPLoss, RSDLoss, functional
from tests.kernels.compare import pair


def test_each_module_is_its_function() -> None:
    """A setting that gets lost on the way would train with the default."""
    student, teacher = pair(12, 5, 5)
    edges = torch.tensor([[0, 1, 2, 3, 4], [1, 1, 1, 0, 0]])
    weight = torch.arange(12) / 12
    for got, want in (
        (RSDLoss(center=True)(student, teacher), functional.rsd(student, teacher, center=True)),
        (
            InfoNCELoss(tau=0.2)(student, teacher, weight=weight),
            functional.info_nce(student, teacher, tau=0.2, weight=weight),
        ),
        (GSPLoss(kernel="rbf", gamma=0.2)(student, teacher), functional.gsp(student, teacher, kernel="rbf", gamma=0.2)),
        (LSPLoss(kernel="poly")(student, teacher, edges), functional.lsp(student, teacher, edges, kernel="poly")),
        (KDLoss(tau=3.0)(student, teacher), functional.soft_label_kd(student, teacher, tau=3.0)),
    ):
        assert torch.equal(got, want)


def test_a_learned_temperature_is_saved_and_moves() -> None:
    """A good student wants a lower temperature; a bad one a higher."""
    loss = InfoNCELoss(tau=0.5, learn_tau=True)
    assert list(loss.state_dict()) == ["log_beta"]
    student, teacher = pair(20, 8, 8, noise=0.01)
    loss(student, teacher).backward()
    assert loss.log_beta is not None
    assert loss.log_beta.grad is not None
    assert float(loss.log_beta.grad) < 0
    want = functional.info_nce(student, teacher, tau=0.5)
    assert float(loss(student, teacher).detach()) == pytest.approx(float(want), rel=1e-6)
    assert not list(InfoNCELoss().parameters())


def test_a_module_checks_and_shows_its_settings() -> None:
    """`print(model)` should tell two runs apart; a wrong temperature should fail before the first batch."""
    assert repr(InfoNCELoss(tau=0.1, symmetric=True)) == "InfoNCELoss(tau=0.1, symmetric=True)"
    with pytest.raises(KernelError, match="tau must be positive"):
        InfoNCELoss(tau=-1.0, learn_tau=True)
