"""How far each teacher of an ensemble is trusted: fitted on the validation nodes, which no teacher trained on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["fit_shares", "fit_sharpness", "fit_weights"]

SHARPNESS = (0.1, 10.0)
"""Limits of the inverse temperature: on few nodes, all answered well, no finite one is best."""
PRIOR = 3.0
"""Validation nodes each teacher counts as having explained before the first is looked at; draws weights together.
Of quantities: nodes on which each alone was off by one deviation, independently of the others."""
_HALVINGS = 40
_ROUNDS = 200


def fit_sharpness(logits: Tensor, y: Tensor) -> float:
    """The inverse temperature `b` that minimises the cross-entropy of `softmax(b z)` (Guo et al., ICML 2017).

    Logits `z [n, C]` and labels `y [n]` of validation nodes. The loss is convex in `b` with derivative
    `mean_i sum_c softmax(b z_i)_c z_ic - z_iy`, so its root is found by halving an interval.
    """
    logits = logits.double()
    truth = logits.gather(1, y.unsqueeze(1)).mean()
    low, high = SHARPNESS
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = (F.softmax(middle * logits, dim=1) * logits).sum(1).mean()
        low, high = (middle, high) if expected < truth else (low, middle)
    return (low + high) / 2


def fit_weights(truth: Tensor) -> Tensor:
    """Weights `w [M]` of a mixture that maximise `sum_i log sum_m w_m p_mi + PRIOR sum_m log w_m`.

    `truth [M, n]` is the probability `p_mi` that teacher m gives the true class of validation node i. Found by
    expectation maximisation, `w_m <- (sum_i r_mi + PRIOR) / (n + M PRIOR)` with `r_mi = w_m p_mi / sum_k w_k p_ki`; the
    problem is concave, so the start does not matter. (Stacking: Wolpert, Neural Networks 1992.)
    """
    truth = truth.double().clamp(min=1e-12)
    members, nodes = truth.shape
    weights = torch.full((members, 1), 1 / members, dtype=torch.double)
    for _ in range(_ROUNDS):
        share = weights * truth
        weights = ((share / share.sum(0)).sum(1, keepdim=True) + PRIOR) / (nodes + members * PRIOR)
    return weights.squeeze(1).float()


def fit_shares(errors: Tensor) -> Tensor:
    """Weights `w [M]` of a mean that minimise `sum_i (sum_m w_m e_mi)^2 + PRIOR sum_m w_m^2`; none below 0, sum 1.

    `errors [M, n]` is how far teacher m is off at answer i, in deviations of the quantity. Without the bounds
    `w ~ (E E^T + PRIOR I)^-1 1`; a teacher whose weight comes out negative is left out and the others are solved for
    again. (Stacking with bounds: Breiman, Machine Learning 1996.)
    """
    errors = errors.double()
    gram = errors @ errors.T + PRIOR * torch.eye(len(errors), dtype=torch.double)
    kept = torch.arange(len(errors))
    while True:
        solved = torch.linalg.solve(gram[kept][:, kept], torch.ones(len(kept), dtype=torch.double))
        if bool((solved >= 0).all()):
            break
        kept = kept[torch.arange(len(kept)) != solved.argmin()]
    weights = torch.zeros(len(errors))
    weights[kept] = (solved / solved.sum()).float()
    return weights
