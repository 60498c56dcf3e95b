"""A student that guesses where a node stands among a teacher's embeddings, and reads what stands near there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph2mlp.data.features import FeatureLinear, drop_features
from graph2mlp.errors import ConfigError
from graph2mlp.students.base import Student, StudentInput, StudentSpec
from graph2mlp.students.mlp import MLPStudent
from graph2mlp.students.nearest import Neighbours, attend, nearest

__all__ = ["RetrievalSpec", "RetrievalStudent"]

_START = 1e-4
"""What the two scalars start at: training begins as that of a plain MLP."""
_ROUNDING = 1e-5
"""Scores closer than this, relative to the lengths of query and rows, may change places in another float32 sum."""


@dataclass(frozen=True, kw_only=True)
class RetrievalSpec(StudentSpec):
    """A student and its bank."""

    bank_rows: int
    """N, rows of the bank."""
    bank_width: int
    """D_T, width of the bank."""
    neighbours: int
    """K, rows of the bank that a request reads."""
    guess_hidden: int = 256
    """Width of the hidden layer that guesses a node's row."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.neighbours <= self.bank_rows or self.bank_width < 1 or self.guess_hidden < 1:
            raise ConfigError(
                f"A student that reads {self.neighbours} of {self.bank_rows} rows, {self.bank_width} wide, guessed by "
                f"{self.guess_hidden} hidden units, cannot be built."
            )


class RetrievalStudent(Student):
    """`z = MLP([x || a1 c || a0 g(x)])`, `c = sum_j softmax_j(|a0| g(x) . E_j) E_j` over the K best rows j of a bank E.

    Shapes: `x [B, F]`, guess `g(x) [B, D_T]`, bank `E [N, D_T]`, context `c [B, D_T]`, logits `z [B, C]`. The first
    layers of g and of the MLP are both affine in x, so `embed` holds them side by side: `[B, D + G]`, the MLP's first.
    The bank has no gradient, the choice of rows has none, and neither has what they are weighed by.

    The paper scores rows by `a0 g(x) . E_j`; the absolute value is the same while a0 is positive, and keeps a step
    of a0 below 0 from turning the nearest rows into the farthest.
    """

    kind: ClassVar[str] = "retrieval"
    spec_type: ClassVar[type[StudentSpec]] = RetrievalSpec
    spec: RetrievalSpec
    bank: Tensor

    def __init__(self, spec: RetrievalSpec) -> None:
        super().__init__(spec)
        shape = {name: getattr(spec, name) for name in StudentSpec.__dataclass_fields__}
        self.mlp = MLPStudent(StudentSpec(**shape | {"structure": 2 * spec.bank_width, "structure_dropout": 0.0}))
        self.guess_first = FeatureLinear(spec.features, spec.guess_hidden)
        self.guess_last = nn.Linear(spec.guess_hidden, spec.bank_width)
        self.guess_scale: nn.Parameter | None = nn.Parameter(torch.tensor(_START))
        self.context_scale: nn.Parameter | None = nn.Parameter(torch.tensor(_START))
        self.register_buffer("bank", torch.zeros(spec.bank_rows, spec.bank_width))

    @property
    def feature_weight(self) -> Tensor:
        return torch.cat([self.mlp.feature_weight, self.guess_first.weight], 1)

    @property
    def structure_weight(self) -> Tensor | None:
        return None

    @property
    def constants(self) -> Mapping[str, Tensor]:
        return {"bank": self.bank}

    def embed(self, inputs: StudentInput) -> Tensor:
        features = drop_features(inputs.features, self.spec.input_dropout, self.training)
        # The guess is learned by `guess` alone; a gradient of zeros here would still move it, by Adam's weight decay.
        return torch.cat([self.mlp.first(features), self.guess_first(features).detach()], 1)

    def trunk(self, embedded: Tensor) -> tuple[Tensor, ...]:
        own, hidden = embedded.split([self.spec.hidden, self.spec.guess_hidden], 1)
        guess = self._guess(hidden)
        return self.read(own, guess, nearest(guess, self.bank, self.spec.neighbours))

    def classify(self, last: Tensor) -> Tensor:
        return self.mlp.classify(last)

    def guess(self, inputs: StudentInput) -> Tensor:
        """`g(x)`: the row a node would have, `[B, D_T]`."""
        features = drop_features(inputs.features, self.spec.input_dropout, self.training)
        return self._guess(self.guess_first(features))

    def read(self, own: Tensor, guess: Tensor, near: Neighbours) -> tuple[Tensor, ...]:
        """The MLP's hidden layers, from its share of the first layer `own [B, D]` and what was guessed and found."""
        guess = guess.detach()
        scale = 1.0 if self.guess_scale is None else self.guess_scale
        context = attend(near, self.bank, 1.0 if self.guess_scale is None else self.guess_scale.detach().abs())
        if self.guess_scale is not None and self.context_scale is not None:
            context, guess = context * self.context_scale, guess * scale
        weight = self.mlp.structure_weight
        assert weight is not None
        return self.mlp.trunk(torch.addmm(own, torch.cat([context, guess], 1), weight))

    @torch.no_grad()
    def undecided(self, inputs: StudentInput) -> Tensor:
        guess = self.guess(inputs)
        if self.spec.neighbours == self.spec.bank_rows:
            return torch.zeros(len(guess), dtype=torch.bool)
        scores = nearest(guess, self.bank, self.spec.neighbours + 1).scores
        lengths = guess.norm(dim=1) * self.bank.norm(dim=1).max()
        undecided: Tensor = scores[:, -2] - scores[:, -1] <= _ROUNDING * lengths
        return undecided

    @torch.no_grad()
    def fold_scales(self) -> None:
        """Make both scalars part of the weights; same answers, two operators and two arrays fewer.

        g's last layer takes |a0|; the rows of the MLP's first layer that read the guess take the sign of a0, those that
        read the context take a1.
        """
        weight = self.mlp.structure_weight
        if self.guess_scale is None or self.context_scale is None or weight is None:
            return
        width = self.spec.bank_width
        size = self.guess_scale.abs().clamp(min=1e-20)  # at 0 the rows would still be chosen, only all weigh the same
        self.guess_last.weight.mul_(size)
        self.guess_last.bias.mul_(size)
        weight[:width].mul_(self.context_scale)
        weight[width:].mul_(self.guess_scale.sign())
        self.guess_scale = self.context_scale = None

    def _guess(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.guess_last(F.dropout(F.relu(hidden), self.spec.dropout, self.training))
        return out
