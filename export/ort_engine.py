"""A network in onnxruntime: one session, its own Python wrapper left out where it costs more than the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from graph2mlp.errors import BundleError, one_line
from graph2mlp.export.requests import Floats

__all__ = ["OnnxruntimeEngine"]

_RUN_OPTIONS = ort.RunOptions()
"""Options at their defaults, never changed: without any, onnxruntime makes new ones in every call, for 0.5 us."""


class OnnxruntimeEngine:
    """Runs a model with onnxruntime on the CPU. Thread-safe.

    Raises:
        BundleError: onnxruntime refuses the model.
    """

    name = "onnxruntime"

    def __init__(self, model: bytes | str, *, where: str, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # its errors arrive as exceptions; twice would be once too often
        self._where = where
        try:
            # Without a second attempt, which it would announce on the terminal and which ends the same.
            self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise BundleError(
                f"{where}: onnxruntime {ort.__version__} refuses the model: {one_line(error, 200)}"
            ) from None
        self.inputs = [item.name for item in self.session.get_inputs()]
        self.outputs = [item.name for item in self.session.get_outputs()]
        try:  # what session.run does, without 1 us of Python around it
            self._run = self.session._sess.run
        except AttributeError:  # another version of onnxruntime
            self._run = self.session.run

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[Floats]:
        """The outputs for checked inputs, in the order of `outputs`.

        Raises:
            BundleError: the model fails on them.
        """
        try:
            found: list[Floats] = self._run(self.outputs, feeds, _RUN_OPTIONS)
        except Exception as error:
            raise BundleError(f"{self._where}: the model fails in onnxruntime: {one_line(error, 200)}") from None
        return found

    def bind(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[Floats]) -> Callable[[], object]:
        """A call that answers `feeds` into the arrays `outputs`; both must be contiguous and outlive it."""
        binding = self.session.io_binding()
        for name, array in feeds.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in zip(self.outputs, outputs, strict=True):
            binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        try:  # what session.run_with_iobinding does, without 0.4 us of Python around it
            return partial(self.session._sess.run_with_iobinding, binding._iobinding, _RUN_OPTIONS)
        except AttributeError:
            return partial(self.session.run_with_iobinding, binding, _RUN_OPTIONS)
