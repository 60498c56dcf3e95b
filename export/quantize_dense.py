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

    A request's answer does not depend on the other requests of its batch. Returns the bytes the weights take now.
    """
    low, high = min(low, 0.0), max(high, 0.0)  # zero must be on the grid
    step = np.float32(max(high - low, 1e-8) / 255)
    zero = int(np.clip(round(-low / float(step)), 0, 255))
    if layer.bias is not None:
        return _static_gemm(editor, layer, step, zero)
    return _static_matmul(editor, split_gemm(editor, layer), step, zero)


def _static_matmul(editor: ModelEditor, layer: DenseLayer, step: np.float32, zero: int) -> int:
    """Without a bias the product is written in integers.

    Written as a float product of restored numbers, onnxruntime first joins it with the addition behind it, then does
    not recognise it, and restores the weights in every call: slower than never having rounded them.
    """
    weight, scale = round_weights(layer.weight)
    grid = [editor.constant(f"{layer.name}.input_step", np.asarray(step))]
    grid.append(editor.constant(f"{layer.name}.input_zero", np.asarray(zero, np.uint8)))
    q = editor.constant(f"{layer.name}.int8", weight)
    steps = editor.constant(f"{layer.name}.scale", (scale * step).astype(np.float32))
    rounded, product, real = (editor.name(f"{layer.name}.{part}") for part in ("rounded", "integers", "real"))
    editor.replace(
        layer.node,
        make_node("QuantizeLinear", [layer.node.input[0], *grid], rounded),
        make_node("MatMulInteger", [rounded, q, grid[1]], product),
        make_node("Cast", [product], real, to=_FLOAT),
        make_node("Mul", [real, steps], layer.node.output[0]),
    )
    return weight.nbytes + scale.nbytes


def _static_gemm(editor: ModelEditor, layer: DenseLayer, step: np.float32, zero: int) -> int:
    """With a bias it is a `Gemm` of restored numbers and an integer bias, which onnxruntime turns into one in integers.

    It does so only if what comes behind the activation is rounded, too: a preset rounds all layers or none.
    """
    assert layer.bias is not None
    weight, scale = round_weights(layer.weight)
    grid = (scale * step).astype(np.float32)
    limit = 2.0**31 - 1
    bias = np.clip(np.rint(layer.bias.astype(np.float64) / grid), -limit, limit).astype(np.int32)

    def constants(**arrays: NDArray[Any]) -> list[str]:
        return [editor.constant(f"{layer.name}.{name}", array) for name, array in arrays.items()]

    a = constants(input_step=np.asarray(step), input_zero=np.asarray(zero - 128, np.int8))
    w = constants(int8=weight, scale=scale, zero=np.zeros(len(scale), np.int8))
    b = constants(bias_int32=bias, bias_scale=grid, bias_zero=np.zeros(len(grid), np.int32))
    rounded, *restored = (editor.name(f"{layer.name}.{part}") for part in ("rounded", "real", "weights", "bias_real"))
    editor.replace(
        layer.node,
        make_node("QuantizeLinear", [layer.node.input[0], *a], rounded),
        make_node("DequantizeLinear", [rounded, *a], restored[0]),
        make_node("DequantizeLinear", w, restored[1], axis=1),
        make_node("DequantizeLinear", b, restored[2], axis=0),
        make_node("Gemm", restored, layer.node.output[0]),
    )
    return weight.nbytes + scale.nbytes + bias.nbytes


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
