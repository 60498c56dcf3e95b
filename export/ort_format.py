"""A model in onnxruntime's own format (`.ort`): what its reduced builds for phones read. Same answers, to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnxruntime as ort

from graph2mlp.errors import BundleError, one_line
from graph2mlp.export.bundle import MODEL, ORT_MODEL

__all__ = ["to_ort"]


def to_ort(files: Mapping[str, bytes | Path], scratch: Path) -> dict[str, bytes | Path]:
    """The files of a bundle with `model.ort` in the place of `model.onnx`; `scratch` is a folder to work in.

    It is what `onnxruntime.tools.convert_onnx_models_to_ort` does, without its search for files: onnxruntime loads the
    model and saves what it has made of it.

    Raises:
        BundleError: the weights lie beside the model, which this format does not know, or onnxruntime refuses.
    """
    model = files[MODEL]
    if not isinstance(model, bytes):
        raise BundleError(
            "The weights are too large for onnxruntime's own format, which cannot keep them beside the model. "
            "Export with --onnx."
        )
    target = scratch / ORT_MODEL
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    # Only rewrites that any processor can run: the file may be made here and used on a phone.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    try:
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise BundleError(
            f"onnxruntime {ort.__version__} cannot write its own format: {one_line(error, 200)}"
        ) from None
    others = {name: content for name, content in files.items() if name != MODEL}
    return {ORT_MODEL: target.read_bytes(), **others}
