"""From the float32 file to the file of a preset; which tensor is stored how is decided here, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graph2mlp.export.bundle import MODEL
from graph2mlp.export.manifest import QuantizedTensor
from graph2mlp.export.onnx_edit import ModelEditor
from graph2mlp.export.presets import Preset
from graph2mlp.export.quantize_dense import int8_dynamic, int8_static, weight_blocks
from graph2mlp.export.quantize_float import halve_constant
from graph2mlp.export.quantize_tables import int8_rows

if TYPE_CHECKING:
    import onnx

__all__ = ["SMALL_LAYER", "SMALL_TABLE", "Ranges", "load_model", "quantize"]

SMALL_LAYER = 8192
"""Weights below which a layer stays float32: rounding its input takes longer than the product saves. Measured:
128 x 128 gains in batches, 32 x 128 and 128 x 10 lose everywhere."""

SMALL_TABLE = 1024
"""Numbers below which a constant is not worth another operator."""

Ranges = Mapping[str, tuple[float, float]]
"""Smallest and largest number seen in a tensor, by its name."""


def load_model(files: Mapping[str, bytes | Path]) -> onnx.ModelProto:
    """The model of an export, weights included, wherever they lie."""
    import onnx

    model = files[MODEL]
    return onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)


def quantize(
    model: onnx.ModelProto, preset: Preset, ranges: Callable[[list[str]], Ranges]
) -> tuple[onnx.ModelProto, tuple[QuantizedTensor, ...]]:
    """`model` as `preset` stores it, and what was done to which tensor; `model` itself is left alone.

    `ranges` is asked for the inputs of the layers when the preset needs them.
    """
    editor = ModelEditor(model)
    done = _halve(editor) if preset.dense == "float16" else [*_tables(editor, preset), *_dense(editor, preset, ranges)]
    return editor.model(), tuple(done)


def _halve(editor: ModelEditor) -> list[QuantizedTensor]:
    chosen = [name for name, a in editor.constants.items() if a.dtype == np.float32 and a.size >= SMALL_TABLE]
    shapes = {name: editor.constants[name].shape for name in chosen}
    return [
        QuantizedTensor(name=name, form="float16", shape=shapes[name], bytes=halve_constant(editor, name))
        for name in chosen
    ]


def _tables(editor: ModelEditor, preset: Preset) -> list[QuantizedTensor]:
    if preset.tables != "int8-rows":
        return []
    done = []
    for node in [node for node in editor.nodes if node.op_type == "Gather"]:
        table = editor.constants.get(node.input[0])
        if table is None or table.dtype != np.float32 or table.ndim != 2 or table.size < SMALL_TABLE:
            continue
        # A bank is searched as well as read: with both in few bits, its float32 form goes.
        products = [layer.node for layer in editor.dense_layers() if layer.weight.size >= SMALL_LAYER]
        if all(one is node or one in products for one in editor.consumers(node.input[0])):
            stored = int8_rows(editor, node)
            done.append(QuantizedTensor(name=node.input[0], form="int8-rows", shape=table.shape, bytes=stored))
    return done


def _dense(editor: ModelEditor, preset: Preset, ranges: Callable[[list[str]], Ranges]) -> list[QuantizedTensor]:
    layers = [layer for layer in editor.dense_layers() if layer.weight.size >= SMALL_LAYER]
    static = preset.dense == "int8-static" and bool(layers)
    known = ranges([layer.node.input[0] for layer in layers]) if static else {}
    done = []
    for layer in layers:
        if preset.dense == "int8-static":
            stored = int8_static(editor, layer, *known[layer.node.input[0]])
        elif preset.dense == "int8-dynamic":
            stored = int8_dynamic(editor, layer)
        else:
            stored = weight_blocks(editor, layer, 8 if preset.dense == "int8-blocks" else 4)
        rows, columns = layer.weight.shape
        done.append(QuantizedTensor(name=layer.name, form=preset.dense, shape=(rows, columns), bytes=stored))
    return done
