"""ONNX operators in numpy, as far as the students of this package, and graphs close to them, are made of them.

Each maker takes an operator's settings and returns the function of its inputs. Quantised operators are onnxruntime's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.export.onnx_file import Attribute

__all__ = ["MOST_PARTS", "OPERATORS", "SHAPED", "Operator"]

Array = NDArray[Any]
Operator = Callable[..., Any]

MOST_PARTS = 64
"""Longest list of axes or sizes an operator may have; a hostile file could ask for millions of parts."""


def _plain(function: Operator) -> Callable[..., Operator]:
    """An operator without settings."""
    return lambda: function


def _gather(axis: int = 0) -> Operator:
    # An index out of range is an error in both; -1 reads the last row in both.
    return lambda data, indices: data.take(indices, axis=axis)


def _gemm(alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0) -> Operator:
    def gemm(a: Array, b: Array, c: Array | None = None) -> Array:
        found = (a.T if transA else a) @ (b.T if transB else b)
        if alpha != 1:
            found = np.float32(alpha) * found
        if c is not None:
            found = found + (c if beta == 1 else np.float32(beta) * c)
        return np.asarray(found)

    return gemm


def _softmax(axis: int = -1) -> Operator:
    def softmax(x: Array) -> Array:
        # The ufuncs' own reduce: the array methods cost a microsecond each more.
        found: Array = np.exp(x - np.maximum.reduce(x, axis, keepdims=True))
        found /= np.add.reduce(found, axis, keepdims=True)
        return found

    return softmax


def _reduce(
    ufunc: np.ufunc, mean: bool, axes: tuple[int, ...] = (), keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Operator:
    if not axes and noop_with_empty_axes:
        return lambda x: x
    # One axis as a number: numpy takes a slower way for a tuple.
    axis = axes[0] if len(axes) == 1 else axes or None
    keep = bool(keepdims)

    def total(x: Array) -> Array:
        return np.asarray(ufunc.reduce(x, axis=axis, keepdims=keep))

    def average(x: Array) -> Array:
        found = total(x)
        return np.asarray(found / x.dtype.type(x.size // max(1, found.size)))

    return average if mean else total


def _split(axis: int = 0, num_outputs: int = 0, split: tuple[int, ...] = ()) -> Operator:
    if num_outputs > MOST_PARTS or not split or min(split) < 0:
        raise TypeError(num_outputs)  # sizes left to ONNX do not come from our exporter
    ends = list(accumulate(split))
    before = (slice(None),) * axis if axis >= 0 else (Ellipsis,)
    after = () if axis >= 0 else (slice(None),) * (-1 - axis)
    places = [(*before, slice(end - size, end), *after) for size, end in zip(split, ends, strict=True)]

    def parts(x: Array) -> list[Array]:
        if x.shape[axis] != ends[-1]:
            raise ValueError(f"a split into {list(split)[:8]} of {x.shape[axis]}")
        return [x[place] for place in places]

    return parts


def _layer_norm(axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Operator:
    def layer_norm(x: Array, scale: Array, bias: Array | None = None) -> Array:
        axes = tuple(range(axis % x.ndim, x.ndim))
        centred = x - x.mean(axes, keepdims=True)
        found = centred / np.sqrt((centred * centred).mean(axes, keepdims=True) + np.float32(epsilon)) * scale
        return np.asarray(found if bias is None else found + bias)

    return layer_norm


def _cast(to: int, saturate: int = 1) -> Operator:
    dtype = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16}.get(to)
    if dtype is None:
        raise TypeError(to)
    return lambda x: x.astype(dtype)


def _reshape(shape: tuple[int, ...], allowzero: int = 0) -> Operator:
    def reshape(x: Array) -> Array:
        return x.reshape([size or (0 if allowzero else x.shape[i]) for i, size in enumerate(shape)])

    return reshape


def _unsqueeze(axes: tuple[int, ...]) -> Operator:
    if axes == (1,):  # the form of our own graphs, at a third of the time
        return lambda x: x[:, None]
    return lambda x: np.expand_dims(x, axes)


def _squeeze(axes: tuple[int, ...] | None = None) -> Operator:
    return lambda x: x.squeeze(axes)


def _transpose(perm: Attribute = ()) -> Operator:
    return lambda x: x.transpose(perm or None)


def _top_k(k: tuple[int, ...], axis: int = -1, largest: int = 1, sorted: int = 1) -> Operator:
    if axis != -1 or not largest or len(k) != 1:
        raise TypeError(axis)

    def top_k(x: Array) -> tuple[Array, Array]:
        count, width = k[0], x.shape[-1]
        if not 0 < count <= width:
            raise ValueError(f"the largest {count} of {width}")
        found = np.argpartition(x, width - count, axis=-1)[..., width - count :]
        found.sort(axis=-1)
        values = np.take_along_axis(x, found, -1)
        # Where equal numbers stand at the edge, ONNX takes those that come first; a partition takes any.
        if (x >= values.min(-1, keepdims=True)).sum() != found.size:
            found = np.argsort(-x, axis=-1, kind="stable")[..., :count]
        else:
            found = np.take_along_axis(found, np.argsort(-values, axis=-1, kind="stable"), -1)
        return np.take_along_axis(x, found, -1), found

    return top_k


def _clip(x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    return x if low is None and high is None else np.asarray(np.clip(x, low, high))


OPERATORS: dict[str, Callable[..., Operator]] = {
    "Add": _plain(np.add),
    "Cast": _cast,
    "Clip": _plain(_clip),
    "Concat": lambda axis: lambda *parts: np.concatenate(parts, axis),
    "Div": _plain(np.divide),
    "Equal": _plain(np.equal),
    "Exp": _plain(np.exp),
    "Gather": _gather,
    "Gemm": _gemm,
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Identity": _plain(lambda x: x),
    "LayerNormalization": _layer_norm,
    "Less": _plain(np.less),
    "MatMul": _plain(np.matmul),
    "Max": _plain(lambda *parts: np.maximum.reduce(np.broadcast_arrays(*parts))),
    "Mul": _plain(np.multiply),
    "Not": _plain(np.logical_not),
    "ReduceMean": partial(_reduce, np.add, True),
    "ReduceSum": partial(_reduce, np.add, False),
    "Relu": _plain(lambda x: np.maximum(x, x.dtype.type(0))),
    "Reshape": _reshape,
    "Sigmoid": _plain(lambda x: np.exp(-np.logaddexp(np.float32(0), -x))),
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _plain(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(np.subtract),
    "Tanh": _plain(np.tanh),
    "TopK": _top_k,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _plain(np.where),
}
"""Name in ONNX -> maker."""

SHAPED = {
    "ReduceMean": "axes",
    "ReduceSum": "axes",
    "Reshape": "shape",
    "Split": "split",
    "Squeeze": "axes",
    "TopK": "k",
    "Unsqueeze": "axes",
}
"""Operators whose second input is a list of axes or sizes, and the setting it becomes."""
