"""Answers for nodes whose classes are not as frequent as those of the labelled nodes.

Labelled nodes are often drawn class by class, as many of each, while the graph has ten times more of one class than of
another. A teacher trained on them answers as if all classes were equally frequent, and so do its soft labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graph2mlp.teachers.stacking import SHARPNESS

__all__ = ["class_frequencies", "fit_bias", "frequency_shift", "largest_change", "sampled_nodes"]

RIDGE = 0.03
"""Weight of the squares of the biases and of the distance of the scale from 1: thirty nodes of a class prove little.

Of 0.003, 0.01, 0.03, 0.1 and 0.3 the best on other validation nodes than the fitted, mean of four graphs (see `blend`).
"""
_STEPS = 200
_ROUNDS = 500
_TOLERANCE = 1e-6
_NODES = 100_000
"""Nodes without a label that are asked at most: so many tell a frequency to a fifth of a point."""


def sampled_nodes(nodes: int, labelled: Tensor) -> tuple[Tensor, float]:
    """The nodes to estimate from, ascending: those `labelled` and at most `_NODES` others, each of which counts `each`.

    On a large graph nothing `[N, C]` has to be made.
    """
    others = torch.ones(nodes, dtype=torch.bool)
    others[labelled] = False
    asked = torch.nonzero(others).squeeze(1)
    each = 1.0
    if len(asked) > _NODES:
        each = len(asked) / _NODES
        asked = asked[torch.randperm(len(asked), generator=torch.Generator().manual_seed(0))[:_NODES]]
    return torch.cat([labelled, asked]).sort().values, each


def frequency_shift(
    logits: Tensor, y: Tensor, val: Tensor, labelled: Tensor, *, each: float = 1.0
) -> tuple[float, Tensor]:
    """Scale `s` and shift `d [C]` so that `softmax(s z + d)` assumes the class frequencies of all nodes.

    Logits `z [N, C]` of the observed nodes, of which those at `labelled` (training and validation) have classes `y [N]`
    and those at `val`, among them, calibrate; each of the others stands for `each` nodes. `d = b + log(pi / v)`, with
    `v` the frequencies of the validation nodes, `s` and `b` from `fit_bias`, `pi` from `class_frequencies`. Calibration
    with a bias per class before the frequencies are estimated: Alexandari, Kundaje, Shrikumar, "Maximum Likelihood
    with Bias-Corrected Calibration is Hard-To-Beat at Label Shift Adaptation", ICML 2020.
    """
    assumed = _smoothed(torch.bincount(y[val], minlength=logits.size(1)))
    scale, bias = fit_bias(logits[val], y[val])
    found = class_frequencies(F.softmax(scale * logits + bias, dim=1), assumed, y, labelled, each=each)
    return scale, bias + (found / assumed).log().float()


def fit_bias(logits: Tensor, y: Tensor) -> tuple[float, Tensor]:
    """The `s`, `b [C]` that minimise `CE(softmax(s z + b), y) + RIDGE ((s - 1)^2 + |b|^2)`, a convex problem.

    Logits `z [n, C]` and classes `y [n]` of validation nodes. `s` is kept within `SHARPNESS`: below 0, answers that are
    mostly wrong would be turned round.
    """
    logits = logits.detach().double()
    with torch.enable_grad():
        scale = torch.ones(1, dtype=torch.double, requires_grad=True)
        bias = torch.zeros(logits.size(1), dtype=torch.double, requires_grad=True)
        optimiser = torch.optim.LBFGS([scale, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

        def objective() -> Tensor:
            optimiser.zero_grad()
            ridge = (scale - 1).square().sum() + bias.square().sum()
            loss = F.cross_entropy(scale * logits + bias, y) + RIDGE * ridge
            loss.backward()
            return loss

        optimiser.step(objective)
    return min(max(scale.item(), SHARPNESS[0]), SHARPNESS[1]), bias.detach().float()


def class_frequencies(
    probabilities: Tensor, assumed: Tensor, y: Tensor, labelled: Tensor, *, each: float = 1.0
) -> Tensor:
    """The frequencies `pi [C]` under which all nodes are likeliest, float64.

    They maximise `each sum_i log sum_c p_ic pi_c / a_c` over the nodes without a label plus `sum_i log pi_{y_i}` over
    those `labelled`: probabilities `p [N, C]` are calibrated for classes of the frequencies `assumed [C]`. Expectation
    maximisation: `pi <- mean_i r_i`, with `r_ic ~ p_ic pi_c / a_c`, or all of it on the class of a labelled node
    (Saerens, Latinne, Decaestecker, Neural Computation 2002). The problem is concave.
    """
    unlabelled = torch.ones(len(probabilities), dtype=torch.bool)
    unlabelled[labelled] = False
    known = torch.bincount(y[labelled], minlength=probabilities.size(1))
    evidence = probabilities[unlabelled].double() / assumed
    found = assumed
    for _ in range(_ROUNDS):
        share = evidence * found
        before, found = found, _smoothed(known + each * (share / share.sum(1, keepdim=True)).sum(0))
        if float((found - before).abs().max()) < _TOLERANCE:
            break
    return found


def largest_change(logits: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """The class whose frequency changed most from the `labels [n]` to all nodes, and the change of all of them.

    Logits `[N, C]` of a teacher that assumes the frequencies of all nodes: its mean answer is nearly these frequencies.
    `moved` is half the sum of the differences, 0 to 1.
    """
    observed = F.softmax(logits, dim=1).mean(0)
    labelled = torch.bincount(labels, minlength=len(observed)) / len(labels)
    one = int((observed - labelled).abs().argmax())
    about = {"labelled": float(labelled[one]), "observed": float(observed[one])}
    return {"class": names[one], **about, "moved": float((observed - labelled).abs().sum() / 2)}


def _smoothed(counts: Tensor) -> Tensor:
    """Frequencies with one node more of each class, so that none is impossible."""
    return (counts.double() + 1) / (counts.sum() + len(counts))
