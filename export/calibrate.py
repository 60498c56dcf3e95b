"""The ranges a student's activations have on real requests, which the static preset rounds by."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime as ort
from numpy.typing import NDArray

from graph2mlp.export.bundle import MODEL
from graph2mlp.export.quantize import Ranges
from graph2mlp.export.to_onnx import store_model

if TYPE_CHECKING:
    import onnx

__all__ = ["activation_ranges"]


def activation_ranges(
    model: onnx.ModelProto, tensors: list[str], batches: Iterable[dict[str, NDArray[Any]]], scratch: Path
) -> Ranges:
    """Smallest and largest number of each tensor over all `batches` of inputs.

    `scratch` is a folder for weights that do not fit into one file.
    """
    import onnx
    from onnx import TensorProto, helper

    inputs = {item.name for item in model.graph.input}
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    for name in dict.fromkeys(tensors):
        if name not in inputs:
            watched.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    content = store_model(watched, scratch)[MODEL]
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(content if isinstance(content, bytes) else str(content), options)
    wanted = [name for name in dict.fromkeys(tensors) if name not in inputs]
    found: dict[str, tuple[float, float]] = {}
    for feeds in batches:
        seen = dict(zip(wanted, session.run(wanted, feeds), strict=True)) if wanted else {}
        for name in tensors:
            values = seen[name] if name in seen else feeds[name]
            low, high = found.get(name, (float("inf"), float("-inf")))
            found[name] = min(low, float(values.min())), max(high, float(values.max()))
    return found
