"""Sparse and dense rows must be the same numbers, whichever way they are cut, multiplied or dropped."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graph2mlp.data.features import (
    FeatureLinear,
    SparseRows,
    as_tensor,
    dense_rows,
    drop_features,
    num_rows,
    project,
    sparse_csr,
    take_rows,
)


def _matrix(rows: int = 9, width: int = 5) -> Tensor:
    """A matrix with empty rows, the first and the last among them."""
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(0))
    x *= torch.rand(rows, width, generator=torch.Generator().manual_seed(1)) < 0.4
    x[[0, 3, rows - 1]] = 0
    return x


@given(ids=st.lists(st.integers(0, 8), max_size=20))
@settings(deadline=None, max_examples=40)
def test_take_rows_in_any_order_with_repeats(ids: list[int]) -> None:
    """Batches come in random order, and a batch of edges names a node more than once."""
    x, chosen = _matrix(), torch.tensor(ids, dtype=torch.long)
    rows = take_rows(x.to_sparse_csr(), chosen)
    assert isinstance(rows, SparseRows)
    assert num_rows(rows) == len(ids)
    assert torch.equal(dense_rows(rows), x[chosen])
    taken = take_rows(x, chosen)
    assert isinstance(taken, Tensor)
    assert torch.equal(taken, x[chosen])


def test_take_all_rows() -> None:
    """Without ids the whole graph is read, as a teacher does."""
    x = _matrix()
    rows = take_rows(x.to_sparse_csr())
    assert torch.equal(dense_rows(rows), x)
    assert take_rows(x) is x
    assert as_tensor(rows).layout == torch.sparse_csr


@pytest.mark.parametrize("ids", [None, [8, 8, 0, 2], [3], []])
def test_linear_layer_is_the_same_for_all_three_layouts(ids: list[int] | None) -> None:
    """Value and both gradients: an empty row must give the bias, and leave the weight alone."""
    x, layer = _matrix(), FeatureLinear(5, 4)
    chosen = None if ids is None else torch.tensor(ids, dtype=torch.long)
    dense = x if chosen is None else x[chosen]
    want = dense @ layer.weight + layer.bias
    upstream = torch.randn(want.shape, generator=torch.Generator().manual_seed(2))
    exact = torch.autograd.grad(want, list(layer.parameters()), upstream)
    sparse = take_rows(x.to_sparse_csr(), chosen)
    for name, features in (("dense", dense), ("rows", sparse), ("csr", as_tensor(sparse))):
        out = layer(features)
        torch.testing.assert_close(out, want, msg=lambda text, name=name: f"{name}: {text}")
        got = torch.autograd.grad(out, list(layer.parameters()), upstream)
        for gradient, expected in zip(got, exact, strict=True):
            torch.testing.assert_close(gradient, expected, msg=lambda text, name=name: f"{name} gradient: {text}")


def test_project_without_bias() -> None:
    """Structure is projected by a weight alone."""
    x, weight = _matrix(), torch.randn(5, 2)
    torch.testing.assert_close(project(take_rows(x.to_sparse_csr()), weight), x @ weight)
    assert FeatureLinear(5, 2, bias=False).bias is None


def test_initial_weights_follow_the_width_of_the_whole_input() -> None:
    """A layer kept in two parts must start like one layer over the concatenation."""
    torch.manual_seed(0)
    part = FeatureLinear(50, 20, fan_in=2500)
    assert 0.015 < float(part.weight.detach().abs().max()) <= 2500**-0.5


@pytest.mark.parametrize("sparse", [False, True])
def test_feature_dropout_keeps_the_mean(sparse: bool) -> None:
    """Zeros stay zeros, so dropping among the non-zeros is the same noise for less work."""
    torch.manual_seed(0)
    x = torch.ones(200, 50)
    features = take_rows(x.to_sparse_csr() if sparse else x)
    dropped = dense_rows(drop_features(features, 0.5, training=True))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert abs(float(dropped.mean()) - 1) < 0.05
    assert drop_features(features, 0.5, training=False) is features
    assert drop_features(features, 0.0, training=True) is features


def test_index_out_of_range_is_refused_at_once() -> None:
    """Multiplying by such a matrix reads foreign memory."""
    crow, col = torch.tensor([0, 1]), torch.tensor([7])
    with pytest.raises(RuntimeError, match="col"):
        sparse_csr(crow, col, torch.ones(1), (1, 3))
