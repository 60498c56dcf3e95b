"""The plain student: a multi-layer perceptron on features and, if it has any, structure."""

from __future__ import annotations

import itertools
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from graph2mlp.data.features import FeatureLinear, drop_features, project
from graph2mlp.errors import MethodError
from graph2mlp.noise import dropout, kept_rows
from graph2mlp.students.base import Student, StudentInput, StudentSpec
from graph2mlp.students.norm import BatchNorm

__all__ = ["MLPStudent"]


class MLPStudent(Student):
    """Per hidden layer: linear, norm, ReLU, dropout; then a linear layer to the logits.

    `[features || structure] -> D -> ... -> D -> C`. `hidden` holds the output of each hidden linear layer, before norm
    and activation.
    """

    kind: ClassVar[str] = "mlp"

    def __init__(self, spec: StudentSpec) -> None:
        super().__init__(spec)
        widths = [spec.hidden] * (spec.layers - 1) + [spec.classes]
        fan_in = spec.features + spec.structure  # one layer over the concatenation, kept in two parts
        self.first = FeatureLinear(spec.features, widths[0], fan_in=fan_in)
        self.structure: FeatureLinear | None = None
        if spec.structure:
            self.structure = FeatureLinear(spec.structure, widths[0], bias=False, fan_in=fan_in)
        self.norms = nn.ModuleList(BatchNorm(width) if spec.norm == "batch" else nn.Identity() for width in widths[:-1])
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    @property
    def feature_weight(self) -> Tensor:
        return self.first.weight

    @property
    def structure_weight(self) -> Tensor | None:
        return None if self.structure is None else self.structure.weight

    def embed(self, inputs: StudentInput) -> Tensor:
        embedded = self.embed_features(inputs)
        if self.structure is None:
            return embedded
        if inputs.structure is None:
            raise MethodError("This student reads structure, but the batch has none. Give a structure table.")
        return embedded + project(self._drop_structure(inputs.structure), self.structure.weight)

    def embed_features(self, inputs: StudentInput) -> Tensor:
        """The share of the first layer that reads features, bias included: `[B, D]`."""
        embedded: Tensor = self.first(drop_features(inputs.features, self.spec.input_dropout, self.training))
        return embedded

    def trunk(self, embedded: Tensor) -> tuple[Tensor, ...]:
        hidden = [embedded]
        for number in range(len(self.layers) - 1):
            hidden.append(self._block(number, hidden[-1]))
        return tuple(hidden)

    def classify(self, last: Tensor) -> Tensor:
        return self._block(len(self.layers) - 1, last)

    def _block(self, number: int, h: Tensor) -> Tensor:
        out: Tensor = self.layers[number](dropout(F.relu(self.norms[number](h)), self.spec.dropout, self.training))
        return out

    def _drop_structure(self, structure: Tensor) -> Tensor:
        rate = self.spec.structure_dropout
        if not (self.training and rate):
            return structure
        # Not rescaled: a dropped row must look exactly like the zero row of a node without neighbours.
        return structure * kept_rows(structure, rate)
