"""Train a built-in teacher on the observed graph, over full neighbourhoods, selected on validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from graph2mlp.data.graph import GraphData
from graph2mlp.device import CPU, device_generators
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.models import Teacher, build_teacher
from graph2mlp.training.checkpoint import Checkpoint
from graph2mlp.training.loop import EpochLog, Fitted, fit, silent
from graph2mlp.training.metrics import Score, score
from graph2mlp.training.players import Player, adam
from graph2mlp.training.seed import seeded

__all__ = ["StageLog", "train_teacher"]

StageLog = Callable[[str], EpochLog]
"""Name of a candidate -> the log of its epochs."""


def train_teacher(
    graph: GraphData,
    config: TeacherConfig,
    *,
    seed: int,
    log: StageLog = lambda _: silent,
    checkpoints: Path | None = None,
    device: torch.device = CPU,
) -> tuple[Teacher, Fitted]:
    """The candidate of `config` that validates best on `graph.observed()`; the cost is that of all candidates.

    `checkpoints` is a folder that makes an interrupted training go on. It learns on `device`, and comes back.
    """
    trained = []
    for candidate in config.candidates():
        name = candidate.name if candidate == config else f"{candidate.name}-{candidate.aggregator}"
        checkpoint = Checkpoint(checkpoints / f"{name}.safetensors") if checkpoints else None
        trained.append(_train(graph, candidate, seed, log(name), checkpoint, device))
    teacher, fitted = max(trained, key=lambda pair: pair[1].best)
    costs = [each for _, each in trained]
    seconds, cpu = sum(each.seconds for each in costs), sum(each.cpu_seconds for each in costs)
    return teacher, replace(fitted, seconds=seconds, cpu_seconds=cpu)


def _train(
    graph: GraphData,
    config: TeacherConfig,
    seed: int,
    log: EpochLog,
    checkpoint: Checkpoint | None,
    device: torch.device,
) -> tuple[Teacher, Fitted]:
    """The loss of the training nodes, and the teacher's own penalty; one step per epoch over the whole graph."""
    with seeded(seed, "teacher", device=device):
        shape, targets = (graph.num_features, graph.num_classes), graph.targets
        teacher = build_teacher(*shape, config, node_ids=graph.node_ids, targets=targets).to(device)
        x, adjacency = graph.features().to(device), teacher.adjacency(graph).to(device)
        ids, y, train, val = (one.to(device) for one in (graph.node_ids, graph.y, graph.split.train, graph.split.val))

        def objective(_: None) -> dict[str, Tensor]:
            logits, _hidden = teacher(x, adjacency, ids)
            terms = {"loss": targets.loss(logits[train], y[train])}
            penalty = teacher.penalty()
            return terms if penalty is None else terms | {"penalty": penalty}

        def evaluate() -> Score:
            logits, _hidden = teacher(x, adjacency, ids)
            return score(logits[val], y[val], targets)

        player: Player[None] = Player(
            "teacher",
            objective,
            [adam(teacher, lr=config.lr, weight_decay=config.weight_decay)],
            {"model": teacher},
        )
        fitted = fit(
            teacher,
            [player],
            lambda: [None],
            evaluate,
            epochs=config.epochs,
            patience=config.patience,
            burn_in=config.burn_in,
            generators=device_generators(device),
            log=log,
            checkpoint=checkpoint,
        )
    return teacher.cpu(), fitted
