"""A network in plain numpy: for devices without onnxruntime, and as the third opinion when a bundle is made.

It reads the same `model.onnx` that onnxruntime runs, so nothing is stored twice and the very file is what is checked.
Operators outside the table of `numpy_operators` are refused when the bundle is opened, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.errors import BundleError, one_line
from graph2mlp.export.numpy_operators import MOST_PARTS, OPERATORS, SHAPED, Operator
from graph2mlp.export.onnx_file import Node, read_onnx
from graph2mlp.export.requests import Floats

__all__ = ["NumpyEngine", "UnsupportedModelError"]

Array = NDArray[Any]

OPSETS = range(13, 25)
"""Versions of the ONNX operators whose meaning is the one below."""


class UnsupportedModelError(BundleError):
    """The model is sound, but uses what numpy cannot run; onnxruntime can."""


class NumpyEngine:
    """Runs a model with numpy. Thread-safe; how many threads a product uses is numpy's own choice.

    Raises:
        BundleError: the file is damaged or not consistent.
        UnsupportedModelError: an operator or version of ONNX is not in the table.
    """

    name = "numpy"

    def __init__(self, content: bytes, *, where: str, data: Path | None = None) -> None:
        graph = read_onnx(content, where=where, data=data)
        if graph.opset not in OPSETS:
            raise UnsupportedModelError(
                f"{where}: the numpy engine knows ONNX opsets {OPSETS[0]} to {OPSETS[-1]}, the model has {graph.opset}."
            )
        self._where = where
        self.inputs, self.outputs = list(graph.inputs), list(graph.outputs)
        slots: dict[str, int] = {"": 0}  # slot 0: an input left out
        self._values: list[Array | None] = [None]

        def slot(name: str, value: Array | None = None) -> int:
            if name in slots:
                raise BundleError(f"{where}: the model defines '{one_line(name, 40)}' twice.")
            slots[name] = len(self._values)
            self._values.append(value)
            return slots[name]

        for name, value in graph.constants.items():
            slot(name, value)
        self._inputs = [(slot(name), name) for name in graph.inputs]
        self._steps: list[tuple[Operator, tuple[int, ...], tuple[int, ...]]] = []
        for node in graph.nodes:
            if missing := [name for name in (*node.inputs,) if name not in slots]:
                raise BundleError(f"{where}: the model uses '{one_line(missing[0], 40)}' before it is computed.")
            operator, count = _operator(node, graph.constants, where)
            sources = tuple(slots[name] for name in node.inputs[:count])
            self._steps.append((operator, sources, tuple(slot(name) for name in node.outputs)))
        if missing := [name for name in graph.outputs if name not in slots]:
            raise BundleError(f"{where}: the model never computes its output '{one_line(missing[0], 40)}'.")
        self._outputs = [slots[name] for name in graph.outputs]

    def run(self, feeds: Mapping[str, Array]) -> list[Floats]:
        """The outputs for checked inputs, in the order of `outputs`.

        Raises:
            BundleError: shapes inside the model do not fit.
        """
        values = self._values.copy()
        for number, name in self._inputs:
            values[number] = feeds[name]
        try:
            with np.errstate(all="ignore"):  # as onnxruntime: infinities are results, not warnings
                for operator, sources, targets in self._steps:
                    found = operator(*[values[source] for source in sources])
                    if len(targets) == 1:
                        values[targets[0]] = found
                    else:
                        for target, part in zip(targets, found, strict=True):
                            values[target] = part
        except (ValueError, IndexError, TypeError, AttributeError, ArithmeticError, MemoryError) as error:
            raise BundleError(f"{self._where}: the model fails in numpy ({one_line(error)}).") from None
        return [values[number] for number in self._outputs]  # type: ignore[misc]

    def bind(self, feeds: Mapping[str, Array], outputs: Sequence[Floats]) -> Callable[[], object]:
        """A call that answers `feeds` into the arrays `outputs`."""

        def call() -> None:
            for target, found in zip(outputs, self.run(feeds), strict=True):
                target[...] = found

        return call


def _operator(node: Node, constants: Mapping[str, Array], where: str) -> tuple[Operator, int]:
    """The function of an operator with its settings filled in, and how many of its inputs it reads at run time.

    Axes, sizes and shapes are inputs in ONNX; here they must be constants, and are turned into settings.
    """
    maker, shaped = OPERATORS.get(node.operator), SHAPED.get(node.operator)
    if maker is None:
        raise UnsupportedModelError(
            f"{where}: the numpy engine cannot run the operator '{one_line(node.operator, 60)}'. Install onnxruntime, "
            "or export the bundle with preset fp32."
        )
    settings: dict[str, Any] = dict(node.attributes)
    if shaped is not None and len(node.inputs) > 1 and node.inputs[1]:
        constant = constants.get(node.inputs[1])
        if constant is None or constant.dtype.kind != "i" or constant.size > MOST_PARTS:
            raise UnsupportedModelError(
                f"{where}: the numpy engine needs a constant of few integers for '{shaped}' of '{node.operator}'."
            )
        settings[shaped] = tuple(constant.reshape(-1).tolist())
    try:
        return maker(**settings), len(node.inputs) if shaped is None else 1
    except TypeError:
        raise UnsupportedModelError(
            f"{where}: the numpy engine does not know the settings {sorted(settings)} of '{node.operator}'."
        ) from None
