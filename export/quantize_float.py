"""Half precision on disk only: every constant is restored to float32 once, when the file is opened."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph2mlp.export.onnx_edit import ModelEditor, make_node

__all__ = ["halve_constant", "halve_rows"]

_FLOAT = 1  # onnx.TensorProto.FLOAT
_SMALLEST, _LARGEST = 2.0**-10, 2.0**15
"""Rows between these keep float16's ten bits as they are; others are moved there by a power of two."""


def halve_rows(array: NDArray[np.float32]) -> tuple[NDArray[np.float16], NDArray[np.float32] | None]:
    """`array` as float16 and, where a row's numbers are too small or too large for it, a scale per row.

    Scales are powers of two: they change no digit. The rows of padding, 2^-40 times the others, would otherwise be 0.
    """
    largest = np.abs(array).reshape(len(array), -1).max(1)
    odd = (largest > 0) & ((largest < _SMALLEST) | (largest > _LARGEST))
    if not odd.any():
        return array.astype(np.float16), None
    scale = np.ones(len(array), np.float32)
    scale[odd] = np.exp2(np.floor(np.log2(largest[odd])))
    scale = scale.reshape(-1, *[1] * (array.ndim - 1))
    return (array / scale).astype(np.float16), scale


def halve_constant(editor: ModelEditor, name: str) -> int:
    """Store the constant `name` as float16. Returns the bytes it takes now.

    onnxruntime computes what depends on constants only when it opens a file, so a request pays nothing.
    """
    half, scale = halve_rows(editor.constants.pop(name))
    stored = editor.constant(f"{name}.float16", half)
    if scale is None:
        editor.nodes.insert(0, make_node("Cast", [stored], name, to=_FLOAT))
        return half.nbytes
    real, scales = editor.name(f"{name}.real"), editor.constant(f"{name}.scale", scale)
    editor.nodes[:0] = [make_node("Cast", [stored], real, to=_FLOAT), make_node("Mul", [real, scales], name)]
    return half.nbytes + scale.nbytes
