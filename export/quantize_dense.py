"""Products with constant weights, in integers. Each function replaces one layer of a model by a cheaper one.

Weights are signed and have a scale per output (or per block of inputs): unsigned ones are up to 2.6 times slower.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.export.onnx_edit import CONTRIB, DenseLayer, ModelEditor, make_node, split_gemm

__all__ = ["BLOCK", "int8_dynamic", "int8_static", "pack_blocks", "round_weights", "weight_blocks"]

BLOCK = 32
"""Inputs that share one scale in `weight_blocks`."""
_FLOAT = 1  # onnx.TensorProto.FLOAT
_SMALLEST_RANGE = 1e-30
"""Activations within less than this are all 0: a step of it times a weight's scale is still a float32."""
_INT8_PRODUCTS = 4
"""Accuracy level at which onnxruntime multiplies blocks in integers, activations rounded per block of a row."""


def round_weights(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """`weight [K, N]` as `q [K, N]` in -127 to 127 and `scale [N]`, so that `q * scale` is within `scale / 2`."""
    scale = np.abs(weight).max(0) / np.float32(127)
    scale[scale == 0] = 1
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


def int8_dynamic(editor: ModelEditor, layer: DenseLayer) -> int:
    """Weights int8 per output, activations rounded to 8 bits when they come, one scale for the whole call.

    The nodes are those onnxruntime fuses into one kernel. Returns the bytes the weights take now.
    """
    layer = split_gemm(editor, layer)
    weight, scale = round_weights(layer.weight)
    given, output = layer.node.input[0], layer.node.output[0]
    q, s = editor.constant(f"{layer.name}.int8", weight), editor.constant(f"{layer.name}.scale", scale)
    rounded, step, zero = (editor.name(f"{output}.{part}") for part in ("rounded", "step", "zero"))
    from onnx import helper

    quantize = helper.make_node("DynamicQuantizeLinear", [given], [rounded, step, zero], name=rounded)
    product, real, steps = (editor.name(f"{output}.{part}") for part in ("integers", "real", "steps"))
    editor.replace(
        layer.node,
        quantize,
        make_node("MatMulInteger", [rounded, q, zero], product),
        make_node("Cast", [product], real, to=_FLOAT),
        make_node("Mul", [step, s], steps),
        make_node("Mul", [real, steps], output),
    )
    return weight.nbytes + scale.nbytes


def int8_static(editor: ModelEditor, layer: DenseLayer, low: float, high: float) -> int:
    """Weights int8 per output, activations 8 bits on a grid fixed by their range in calibration, `low` to `high`.

    A request's answer does not depend on the other requests of its batch. The product is onnxruntime's own operator,
    bias included: written in standard ones, which it would have to recognise and join, it was up to a tenth slower, and
    where it did not recognise them (a student with a bank) nearly three times. Returns the bytes the weights take now.
    """
    if layer.bias is None:
        layer = split_gemm(editor, layer)
    low, high = min(low, 0.0), max(high, 0.0)  # zero must be on the grid
    step = np.float32(max(high - low, _SMALLEST_RANGE) / 255)
    zero = round(-low / float(step))
    weight, scale = round_weights(layer.weight)

    def constant(name: str, array: NDArray[Any]) -> str:
        return editor.constant(f"{layer.name}.{name}", array)

    grid = [constant("input_step", np.asarray(step)), constant("input_zero", np.asarray(min(zero, 255), np.uint8))]
    rounded = editor.name(f"{layer.name}.rounded")
    inputs = [rounded, constant("int8", weight), grid[0], constant("scale", scale), grid[1]]
    if layer.bias is not None:
        inputs += ["", constant("bias", layer.bias)]  # the weights' zero is 0
    editor.replace(
        layer.node,
        make_node("QuantizeLinear", [layer.node.input[0], *grid], rounded),
        make_node("MatMulIntegerToFloat", inputs, layer.node.output[0], domain=CONTRIB),
    )
    return weight.nbytes + scale.nbytes


def weight_blocks(editor: ModelEditor, layer: DenseLayer, bits: int) -> int:
    """Weights in `bits` (4 or 8), one scale per output and `BLOCK` inputs. Returns the bytes they take now."""
    layer = split_gemm(editor, layer)
    packed, scale = pack_blocks(layer.weight, bits)
    inputs = [layer.node.input[0]]
    inputs += [editor.constant(f"{layer.name}.{n}", v) for n, v in ((f"int{bits}", packed), ("scale", scale))]
    width, outputs = layer.weight.shape
    how = {"K": width, "N": outputs, "bits": bits, "block_size": BLOCK, "accuracy_level": _INT8_PRODUCTS}
    editor.replace(layer.node, make_node("MatMulNBits", inputs, layer.node.output[0], domain=CONTRIB, **how))
    return packed.nbytes + scale.nbytes


def pack_blocks(weight: NDArray[np.float32], bits: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """`weight [K, N]` as `MatMulNBits` wants it: `[N, K / BLOCK, bytes]` around a zero of `2^(bits - 1)`, and scales.

    A scale is the block's largest number (sign included) divided by `-2^(bits - 1)`, so that this number is exact and
    all `2^bits` steps are used. Two 4-bit numbers share a byte, the first in its lower half.
    """
    blocks = -(-weight.shape[0] // BLOCK)
    rows = np.zeros((weight.shape[1], blocks * BLOCK), np.float32)
    rows[:, : weight.shape[0]] = weight.T
    rows = rows.reshape(weight.shape[1], blocks, BLOCK)
    middle = 2 ** (bits - 1)
    extreme = np.take_along_axis(rows, np.abs(rows).argmax(2)[:, :, None], 2)
    scale = extreme / np.float32(-middle)
    scale[scale == 0] = 1
    q = np.clip(np.rint(rows / scale) + middle, 0, 2 * middle - 1).astype(np.uint8)
    if bits == 4:
        q = q[:, :, ::2] | (q[:, :, 1::2] << 4)
    return q, scale[:, :, 0].astype(np.float32)
