"""What export computes once so that a device need not: batch normalisation, the structure table, the padding rows."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from graph2mlp.data.features import FeatureLinear
from graph2mlp.data.targets import OutputScale
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student, StudentInput
from graph2mlp.students.mlp import MLPStudent
from graph2mlp.students.retrieval import RetrievalStudent

__all__ = ["PAD_WEIGHT", "first_bias", "fold_student", "fold_table"]

PAD_WEIGHT = 2.0**-40
"""What a padding or unknown row counts in the mean over neighbours, against 1 for a known row (see `fold_table`)."""


def fold_student(student: Student) -> Student:
    """A copy in evaluation mode with the same outputs, whose batch normalisation and scalars are part of its weights.

    Only `hidden` of the copy differs (it is normalised), which export does not use.
    """
    folded = copy.deepcopy(student).eval()
    if isinstance(folded, RetrievalStudent):
        folded.fold_scales()
    for part in folded.modules():
        if isinstance(part, MLPStudent):  # another kind keeps its norms; the exporter writes them as they are
            _fold_batchnorm(part)
            _fold_outputs(part)
    return folded


def first_bias(student: Student) -> Tensor:
    """The bias of the affine first layer, `[D]`: what it gives for zero features and zero structure."""
    weight = student.feature_weight
    structure = student.structure_weight
    zero = StudentInput(
        weight.new_zeros(1, len(weight)), None if structure is None else weight.new_zeros(1, len(structure))
    )
    with torch.no_grad():
        return student.embed(zero)[0]


def fold_table(table: StructureTable, student: Student, *, rows_at_once: int = 65536) -> Tensor:
    """The structure table behind the first layer: `[N + 1, D + 1]` float32.

    With weights `W` and bias `b` of the first layer, a known node has the row `(rows W + b, 1)`. An unknown node, and
    the extra last row that a padding id of -1 reads, has `e (b, 1)` with `e = PAD_WEIGHT`. The sum over a request's
    rows then holds the sum of vectors and, in its last column, their count, and the quotient is what the rule of
    `StructureTable` asks for, bias included: with a known row, `e` is far below the last bit of the count (and adds
    less than 1e-12 of `b` to the vector); without one, `e` cancels and leaves `b`. This saves the two operators of
    `max(count, 1)` and `+ b`.
    """
    weight = student.structure_weight
    assert weight is not None
    weight, bias = weight.detach().double(), first_bias(student).double()
    out = torch.empty(len(table.rows) + 1, weight.size(1) + 1)
    out[:, :-1] = bias * PAD_WEIGHT
    out[:, -1] = PAD_WEIGHT
    for start in range(0, len(table.rows), rows_at_once):
        part = slice(start, start + rows_at_once)
        known = table.known[part]
        block = out[:-1][part]
        block[known, :-1] = (table.rows[part][known].double() @ weight + bias).float()
        block[known, -1] = 1.0
    return out


def _fold_batchnorm(mlp: MLPStudent) -> None:
    """In evaluation `norm(h) = s h + t` per channel, and `h` is affine in the layer's input, so the layer takes `s`
    into its weights and `s b + t` as its bias. The first layer has two weights, features and structure; both take `s`.
    """
    for i, norm in enumerate(mlp.norms):
        if isinstance(norm, nn.BatchNorm1d):
            layer = mlp.layers[i - 1] if i else mlp.first
            assert isinstance(layer, nn.Linear | FeatureLinear)
            scale, shift = _affine(norm)
            _rescale(layer, scale, shift)
            if not i and mlp.structure is not None:
                _rescale(mlp.structure, scale, None)
            mlp.norms[i] = nn.Identity()


def _fold_outputs(mlp: MLPStudent) -> None:
    scale, last = mlp.outputs, mlp.layers[-1]
    if isinstance(scale, OutputScale):
        assert isinstance(last, nn.Linear)
        _rescale(last, scale.spread.double(), scale.center.double())
        mlp.outputs = nn.Identity()


def _affine(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach().double()


def _rescale(layer: nn.Linear | FeatureLinear, scale: Tensor, shift: Tensor | None) -> None:
    # nn.Linear stores [out, in], FeatureLinear [in, out].
    per_output = scale.unsqueeze(1) if isinstance(layer, nn.Linear) else scale
    with torch.no_grad():
        layer.weight.copy_(layer.weight.double() * per_output)
        if shift is not None:
            assert layer.bias is not None
            layer.bias.copy_(layer.bias.double() * scale + shift)
