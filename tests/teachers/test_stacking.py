"""Temperatures and weights of an ensemble, against what they are defined as."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from graph2mlp.teachers.stacking import PRIOR, SHARPNESS, fit_shares, fit_sharpness, fit_weights


@pytest.fixture
def answers() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of 200 nodes and labels drawn from their softmax: a perfectly calibrated teacher."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(200, 4, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0])
def test_sharpness_is_the_best_of_a_fine_grid(scale: float, answers: tuple[torch.Tensor, torch.Tensor]) -> None:
    """A wrong sign in the derivative would end at a limit, and a teacher too sure by `scale` must be undone."""
    logits, y = answers
    found = fit_sharpness(scale * logits, y)
    grid = [0.1 + 0.01 * step for step in range(991)]
    best = min(grid, key=lambda b: F.cross_entropy(b * scale * logits.double(), y).item())
    assert found == pytest.approx(best, abs=0.011)
    assert found * scale == pytest.approx(fit_sharpness(logits, y), rel=1e-4)


def test_sharpness_ends_at_its_limits() -> None:
    """All nodes right, or all wrong: the best temperature is 0 or infinite, and must stay a number."""
    logits, y = torch.eye(3), torch.arange(3)
    assert fit_sharpness(logits, y) == pytest.approx(SHARPNESS[1])
    assert fit_sharpness(logits, (y + 1) % 3) == pytest.approx(SHARPNESS[0])
    assert SHARPNESS[0] <= fit_sharpness(torch.zeros(3, 3), y) <= SHARPNESS[1]


def test_weights_maximise_the_penalised_likelihood() -> None:
    """At the optimum no small step towards another teacher raises the objective."""
    truth = torch.rand(3, 50, generator=torch.Generator().manual_seed(1)).double()

    def objective(weights: torch.Tensor) -> float:
        return float((weights @ truth).log().sum() + PRIOR * weights.log().sum())

    weights = fit_weights(truth).double()
    assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
    best = objective(weights / weights.sum())
    for one in range(3):
        for step in (0.01, 0.05):
            moved = weights * (1 - step)
            moved[one] += step
            assert objective(moved / moved.sum()) < best + 1e-6


def test_better_teachers_weigh_more_but_nobody_is_silenced() -> None:
    """Thirty nodes are no proof that a teacher is useless; the prior keeps it in."""
    truth = torch.stack([torch.full((30,), 0.9), torch.full((30,), 0.3)])
    weights = fit_weights(truth)
    assert weights[0] > 0.7
    assert weights[1] > 0.05
    torch.testing.assert_close(fit_weights(truth[:1].expand(2, -1)), torch.full((2,), 0.5))


def test_certain_and_wrong_is_not_the_logarithm_of_zero() -> None:
    """A node to whose class every teacher gives probability 0 must not turn the weights into NaN."""
    assert bool(torch.isfinite(fit_weights(torch.tensor([[0.0, 1.0], [0.0, 0.5]]))).all())


def test_shares_are_the_best_of_a_fine_grid() -> None:
    """Of three teachers one is best, one errs the same way and worse, one errs independently and helps a little."""
    best, own = torch.randn(2, 300, generator=torch.Generator().manual_seed(2))
    errors = torch.stack([0.3 * best, 0.6 * best + 0.1, 0.9 * own])
    shares = fit_shares(errors)

    def objective(weights: torch.Tensor) -> float:
        return float((weights.double() @ errors.double()).square().sum() + PRIOR * weights.double().square().sum())

    steps = [step / 100 for step in range(101)]
    grid = [torch.tensor([a, b, 1 - a - b]) for a in steps for b in steps if a + b <= 1]
    torch.testing.assert_close(shares, min(grid, key=objective), atol=0.011, rtol=0)
    assert shares[1] == 0, "unbounded it would be negative: it repeats the first one's errors"
    assert float(shares.sum()) == pytest.approx(1)
    torch.testing.assert_close(fit_shares(errors[:1].expand(3, -1)), torch.full((3,), 1 / 3))
    assert fit_shares(torch.zeros(2, 4)).tolist() == [0.5, 0.5]
