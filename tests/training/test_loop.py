"""The only loop: which weights it keeps, when it stops, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graph2mlp.errors import MethodError
from graph2mlp.training.loop import Fitted, fit
from graph2mlp.training.metrics import Score
from graph2mlp.training.players import Player


class _Counter(nn.Module):
    """Its one weight is the number of steps it has taken."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))


def _player(model: nn.Module, **changed: Any) -> Player[None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return Player("counter", lambda _: {"down": -sum(p.sum() for p in model.parameters())}, [optimizer], **changed)


def _fit(scores: Sequence[Score], *, patience: int = 10, **changed: Any) -> tuple[_Counter, Fitted, list[int]]:
    """Train with scripted validation scores; also says after which epochs it was evaluated."""
    model, evaluated = _Counter(), []

    def evaluate() -> Score:
        assert not model.training, "validation must be in evaluation mode"
        assert not torch.is_grad_enabled()
        evaluated.append(int(model.weight.detach()))
        return scores[len(evaluated) - 1]

    fitted = fit(model, [_player(model)], lambda: [None], evaluate, epochs=len(scores), patience=patience, **changed)
    return model, fitted, evaluated


def _scores(*accuracies: float) -> list[Score]:
    return [Score(accuracy, 0.0) for accuracy in accuracies]


def test_best_weights_are_a_copy() -> None:
    """`state_dict()` alone is a live view: the "best" weights would then be those of the last epoch."""
    model, fitted, _ = _fit(_scores(0.1, 0.9, 0.3, 0.2))
    assert float(model.weight.detach()) == 2
    assert (fitted.best_epoch, fitted.epochs, fitted.best.value) == (2, 4, 0.9)
    assert not model.training


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_stops_after_so_many_epochs_without_a_better_score(patience: int) -> None:
    """Patience counts evaluations after the best one."""
    _, fitted, evaluated = _fit(_scores(0.5, 0.6, *[0.1] * 20), patience=patience)
    assert fitted.epochs == len(evaluated) == 2 + patience


def test_improvement_resets_patience() -> None:
    """The last chance counts."""
    _, fitted, _ = _fit(_scores(0.1, 0.0, 0.2, 0.0, 0.3, 0.0, 0.0, 0.9), patience=2)
    assert (fitted.epochs, fitted.best_epoch) == (7, 5)


def test_ties_go_to_the_lower_loss_then_to_the_earlier_epoch() -> None:
    """A few hundred validation nodes give plateaus; the loss still orders them."""
    scores = [Score(0.5, -1.0), Score(0.5, -0.8), Score(0.5, -0.9), Score(0.5, -0.8), Score(0.4, 0.0)]
    model, fitted, _ = _fit(scores)
    assert fitted.best_epoch == 2
    assert float(model.weight.detach()) == 2


def test_burn_in_is_never_kept_and_does_not_use_up_patience() -> None:
    """A nearly untrained model may score best by luck."""
    model, fitted, _ = _fit(_scores(0.9, 0.9, 0.2, 0.3, 0.1, 0.1, 0.1), patience=2, burn_in=2)
    assert (fitted.best_epoch, fitted.epochs) == (4, 6)
    assert float(model.weight.detach()) == 4


def test_no_epoch_better_than_nothing() -> None:
    """Even an accuracy of 0 is better than untrained weights: it was at least measured."""
    assert _fit(_scores(0.0))[1].best_epoch == 1


def test_log_gets_every_epoch() -> None:
    """Numbers from 1, the terms of the loss, the validation score, and the epoch whose weights are the best so far."""
    lines: list[tuple[int, dict[str, float]]] = []
    _fit([Score(0.5, -2.0), Score(0.6, -1.0)], log=lambda epoch, figures: lines.append((epoch, dict(figures))))
    assert lines == [
        (1, {"down": 0.0, "val": 0.5, "val_loss": 2.0, "kept": 1}),
        (2, {"down": -1.0, "val": 0.6, "val_loss": 1.0, "kept": 2}),
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_stops_with_the_name_of_the_term(value: float) -> None:
    """Otherwise all weights are NaN from the next epoch on, and the result says nothing."""
    model = _Counter()
    player: Player[None] = Player(
        "p",
        lambda _: {"fine": model.weight * 0, "broken": model.weight * value},
        [torch.optim.SGD([model.weight], 1.0)],
    )
    with pytest.raises(MethodError, match=r"loss 'broken' became (nan|inf) in epoch 1.*train.lr"):
        fit(model, [player], lambda: [None], lambda: Score(0, 0), epochs=3, patience=3)


def test_players_take_turns() -> None:
    """Peers and discriminators are lists of players; each steps on every n-th batch, and its terms carry its name."""
    first, second = _Counter(), _Counter()
    figures: dict[str, float] = {}

    def objective(model: _Counter) -> Any:
        return lambda _: {"down": -model.weight}

    players: list[Player[None]] = [
        Player("often", objective(first), [torch.optim.SGD([first.weight], 1.0)]),
        Player("seldom", objective(second), [torch.optim.SGD([second.weight], 1.0)], every=3),
    ]
    fit(
        first, players, lambda: [None] * 6, lambda: Score(0.5, 0.0), epochs=1, patience=1,
        log=lambda _, found: figures.update(found),
    )  # fmt: skip
    assert (float(first.weight.detach()), float(second.weight.detach())) == (6, 2)
    assert figures["often.down"] == -2.5
    assert figures["seldom.down"] == -0.5


def test_step_minimises_the_sum_of_the_terms() -> None:
    """Gradients of an earlier step must not be left over."""
    weight = nn.Parameter(torch.tensor(1.0))

    def objective(_: None) -> dict[str, Tensor]:
        return {"a": 2 * weight, "b": 3 * weight}

    player: Player[None] = Player("p", objective, [torch.optim.SGD([weight], 0.1)])
    for _ in range(2):
        terms = player.step(None)
    assert weight.detach().item() == pytest.approx(0.0, abs=1e-6)
    assert not terms["a"].requires_grad
