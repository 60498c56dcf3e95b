"""The average of weights: the formula, what is scored and kept, and how it goes on after an interruption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError, RunError
from graph2mlp.training.average import WeightAverage
from graph2mlp.training.checkpoint import Checkpoint
from graph2mlp.training.loop import fit
from graph2mlp.training.metrics import Score
from graph2mlp.training.players import Player
from tests.pipeline import run_method, same_weights, small_config


def _weights(steps: int) -> list[float]:
    return torch.randn(steps, generator=torch.Generator().manual_seed(0)).double().tolist()


@pytest.mark.parametrize("eta", [1.0, 3.0])
def test_is_the_mean_weighted_by_rising_powers(eta: float) -> None:
    """Closed form: step s has weight `(s + 1) ... (s + eta - 1) s`, a polynomial of degree eta."""
    model = nn.Linear(1, 1, bias=False).double()
    average = WeightAverage(model, eta)
    values = _weights(12)
    for value in values:
        nn.init.constant_(model.weight, value)
        average.update()
    shares = [float(torch.arange(s, s + int(eta)).prod()) for s in range(1, len(values) + 1)]
    expected = sum(a * b for a, b in zip(shares, values, strict=True)) / sum(shares)
    assert float(average.mean["weight"]) == pytest.approx(expected, rel=1e-12)


def test_first_step_leaves_no_trace_of_the_start() -> None:
    """Untrained weights are not part of the mean."""
    model = nn.Linear(2, 2)
    average = WeightAverage(model, 8.0)
    nn.init.constant_(model.weight, 3.0)
    average.update()
    assert torch.equal(average.mean["weight"], model.weight)


def test_counters_are_copied() -> None:
    """Batch normalisation counts its batches in whole numbers; its statistics are averaged like weights."""
    model = nn.BatchNorm1d(2)
    average = WeightAverage(model, 8.0)
    for _ in range(3):
        model(torch.randn(4, 2))
        average.update()
    assert int(average.mean["num_batches_tracked"]) == 3
    assert not torch.equal(average.mean["running_mean"], model.running_mean)  # type: ignore[arg-type]


def test_in_place_gives_the_weights_back_even_after_an_error() -> None:
    """Training goes on from its own weights, not from the average."""
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, 8.0)
    nn.init.constant_(model.weight, 5.0)
    own = float(model.weight.detach())

    def fail() -> None:
        with average.in_place():
            assert float(model.weight.detach()) != own
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert float(model.weight.detach()) == own


def test_the_average_is_scored_and_kept() -> None:
    """With weights 1, 2, 3 and eta 1 the averages are 1, 5/3, 7/3."""
    model, seen = nn.Linear(1, 1, bias=False), []
    nn.init.zeros_(model.weight)
    player: Player[None] = Player(
        "p", lambda _: {"up": -model.weight.sum()}, [torch.optim.SGD(model.parameters(), 1.0)]
    )

    def evaluate() -> Score:
        seen.append(float(model.weight.detach()))
        return Score([0.1, 0.9, 0.2][len(seen) - 1], 0.0)

    fitted = fit(
        model, [player], lambda: [None], evaluate, epochs=3, patience=3, average=WeightAverage(model, 1.0)
    )  # fmt: skip
    assert seen == pytest.approx([1, 5 / 3, 7 / 3])
    assert fitted.best_epoch == 2
    assert float(model.weight.detach()) == pytest.approx(5 / 3)


@pytest.mark.parametrize("method", ["glnn", "alignahead"])
def test_goes_on_where_it_stopped(method: str, dense_graph: GraphData, tmp_path: Path) -> None:
    """Bit for bit, for any method that is asked to average."""
    overrides = ["train.epochs=7", "train.average=8", "student.norm=batch"]
    whole = run_method(method, dense_graph, overrides=overrides)
    assert not same_weights(whole.weights(), run_method(method, dense_graph, overrides=overrides[:1]).weights())
    file = tmp_path / "c.safetensors"

    def stop(now: int, _: object) -> None:
        if now > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_method(method, dense_graph, overrides=overrides, checkpoint=Checkpoint(file, seconds=0), log=stop)
    resumed = run_method(method, dense_graph, overrides=overrides, checkpoint=Checkpoint(file))
    assert same_weights(whole.weights(), resumed.weights())


def test_checkpoint_without_an_average_is_refused(dense_graph: GraphData, tmp_path: Path) -> None:
    """It would start anew from half-trained weights."""
    file = tmp_path / "c.safetensors"
    run_method("glnn", dense_graph, checkpoint=Checkpoint(file, seconds=0))
    with pytest.raises(RunError, match="does not fit this run"):
        run_method("glnn", dense_graph, overrides=["train.average=8"], checkpoint=Checkpoint(file))


def test_impossible_averages_are_refused() -> None:
    """When the settings are read."""
    with pytest.raises(ConfigError, match=r"train.average must not be negative \(got -1.0\)"):
        small_config("glnn", overrides=["train.average=-1"])
