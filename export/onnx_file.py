"""A small reader of ONNX files, for devices without onnxruntime: plain operators and their constants, nothing else.

ONNX is protobuf: a message is a row of fields, a field a number, a wire type and a value. What follows reads the few
fields that a network without branches has (onnx.proto names their numbers) and refuses control flow, functions and
constants whose bytes do not fit their shape. Nothing is executed, and nothing is larger than the file it comes from.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.errors import BundleError, one_line

__all__ = ["Node", "OnnxGraph", "external_files", "read_onnx"]

_DTYPES: dict[int, type[np.generic]] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
}
"""Numbers of `TensorProto.DataType`; the others (4-bit, text, complex) are refused where they are used."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_RANK = 8
_MAX_DEPTH = 100

Attribute = int | float | str | tuple[int, ...] | NDArray[Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Node:
    """One operator: what it reads and writes by name (an empty name: an input left out), and its settings."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]


@dataclass(frozen=True, eq=False, kw_only=True)
class OnnxGraph:
    """A network as operators in the order of their execution."""

    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: dict[str, NDArray[Any]]


def read_onnx(content: bytes, *, where: str, data: Path | None = None) -> OnnxGraph:
    """Read `model.onnx`; constants that lie in `data` (external data) are memory-mapped, not loaded.

    Raises:
        BundleError: the file is not ONNX, is cut off, or holds what this reader does not know.
    """
    try:
        return _model(memoryview(content), data)
    except (ValueError, TypeError, OverflowError, struct.error, OSError) as error:
        raise BundleError(f"{where}: the model cannot be read without onnxruntime ({one_line(error)}).") from None


_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
}
"""Where tensors can be: of each message, the fields that hold others, and which."""


def external_files(content: bytes, *, where: str) -> set[str]:
    """The files that a model wants to read weights from, wherever in it they are named.

    Raises:
        BundleError: the file is not ONNX, or is cut off.
    """
    found: set[str] = set()
    waiting: list[tuple[str, memoryview, int]] = [("model", memoryview(content), 0)]
    try:
        while waiting:
            kind, data, depth = waiting.pop()
            if depth > _MAX_DEPTH:
                raise ValueError("its graphs lie in each other too deeply")
            if kind == "tensor":
                entries = (_fields(_message(value)) for number, value in _fields(data) if number == 13)
                named = [{n: _text(part) for n, part in entry} for entry in entries]
                found |= {one.get(2, "") for one in named if one.get(1) == "location"}
                continue
            inside = _INSIDE[kind]
            waiting += [(inside[n], _message(value), depth + 1) for n, value in _fields(data) if n in inside]
    except (ValueError, TypeError) as error:
        raise BundleError(f"{where}: the model cannot be read ({one_line(error)}).") from None
    return found


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """The fields of one message: number and value, `int` or the bytes of text, message or fixed-width number."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        if tag >= 1 << 32:
            raise ValueError("a field's number is too large")
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == _BYTES:
            size, position = _varint(data, position)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"field of wire type {wire}")
        if size > len(data) - position:
            raise ValueError("the file is cut off")
        yield number, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("the file is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), position
    raise ValueError("a number does not end")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _text(value: Any) -> str:
    if isinstance(value, int):  # which bytes() would take for a length
        raise ValueError("a number where text belongs")
    return bytes(value).decode("utf-8", errors="replace")


def _message(value: Any) -> memoryview:
    if not isinstance(value, memoryview):
        raise ValueError("a number where a message belongs")
    return value


def _integers(value: Any) -> list[int]:
    """A repeated integer comes one by one, or packed."""
    if isinstance(value, int):
        return [_signed(value)]
    found, position = [], 0
    while position < len(value):
        number, position = _varint(value, position)
        found.append(_signed(number))
    return found


def _model(data: memoryview, external: Path | None) -> OnnxGraph:
    graph, opset = None, 0
    for number, value in _fields(data):
        if number == 7:
            if graph is not None:
                raise ValueError("two graphs")
            graph = _message(value)
        elif number == 8:
            entry = dict(_fields(_message(value)))
            if _text(entry.get(1, b"")) in ("", "ai.onnx"):
                opset = int(entry.get(2, 0))
        elif number == 25:
            raise ValueError("it defines functions")
    if graph is None or not opset:
        raise ValueError("it is not an ONNX model")
    return _graph(graph, opset, external)


def _graph(data: memoryview, opset: int, external: Path | None) -> OnnxGraph:
    nodes: list[Node] = []
    inputs: list[str] = []
    outputs: list[str] = []
    constants: dict[str, NDArray[Any]] = {}
    for number, value in _fields(data):
        if number == 1:
            nodes.append(_node(_message(value)))
        elif number == 5:
            name, array = _tensor(_message(value), external)
            constants[name] = array
        elif number in (11, 12):
            entry = dict(_fields(_message(value)))
            (inputs if number == 11 else outputs).append(_text(entry.get(1, b"")))
        elif number == 15:
            raise ValueError("it holds sparse constants")
    return OnnxGraph(
        opset=opset,
        inputs=tuple(name for name in inputs if name not in constants),
        outputs=tuple(outputs),
        nodes=tuple(nodes),
        constants=constants,
    )


def _node(data: memoryview) -> Node:
    inputs, outputs, operator, domain = [], [], "", ""
    attributes: dict[str, Attribute] = {}
    for number, value in _fields(data):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            operator = _text(value)
        elif number == 5:
            name, attribute = _attribute(_message(value))
            attributes[name] = attribute
        elif number == 7:
            domain = _text(value)
    name = operator if domain in ("", "ai.onnx") else f"{domain}.{operator}"
    return Node(operator=name, inputs=tuple(inputs), outputs=tuple(outputs), attributes=attributes)


def _attribute(data: memoryview) -> tuple[str, Attribute]:
    name, found, integers = "", None, []
    for number, value in _fields(data):
        if number == 1:
            name = _text(value)
        elif number == 2:
            found = struct.unpack("<f", _message(value))[0]
        elif number == 3:
            found = _integers(value)[0]
        elif number == 4:
            found = _text(value)
        elif number == 5:
            found = _tensor(_message(value), None)[1]
        elif number == 8:
            integers += _integers(value)
        elif number in (6, 10, 11):
            raise ValueError(f"setting '{name[:40]}' holds a graph or several tensors")
    return name, tuple(integers) if found is None else found


def _tensor(data: memoryview, external: Path | None) -> tuple[str, NDArray[Any]]:
    dims: list[int] = []
    name, kind, raw, listed, outside = "", 0, None, None, {}
    for number, value in _fields(data):
        if number == 1:
            dims += _integers(value)
        elif number == 2:
            kind = int(value)
        elif number == 4:
            listed = np.frombuffer(bytes(value), dtype="<f4")
        elif number in (5, 7):
            listed = np.concatenate([np.array([] if listed is None else listed, np.int64), _integers(value)])
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _message(value)
        elif number == 13:
            entry = {key: _text(part) for key, part in _fields(_message(value))}
            outside[entry.get(1, "")] = entry.get(2, "")
    if kind not in _DTYPES:
        raise ValueError(f"constant '{name[:40]}' is of type number {kind}")
    dtype = np.dtype(_DTYPES[kind]).newbyteorder("<")
    if len(dims) > _MAX_RANK or min(dims, default=0) < 0:
        raise ValueError(f"constant '{name[:40]}' has an impossible shape")
    size = math.prod(dims) * dtype.itemsize
    if outside:
        return name, _mapped(outside, external, dims, dtype, size)
    if raw is not None:
        if len(raw) != size:
            raise ValueError(f"constant '{name[:40]}' has {len(raw)} bytes, expected {size}")
        # A copy: numbers in the file start at any byte, and products of unaligned numbers are slow.
        return name, np.frombuffer(raw, dtype=dtype).reshape(dims).astype(_DTYPES[kind])
    values = np.zeros(0, np.int64) if listed is None else listed
    if len(values) != math.prod(dims) or kind == 10:  # float16 would come as bits
        raise ValueError(f"constant '{name[:40]}' has {len(values)} numbers, expected {math.prod(dims)}")
    return name, values.reshape(dims).astype(_DTYPES[kind])


def _mapped(
    outside: dict[str, str], external: Path | None, dims: list[int], dtype: np.dtype[Any], size: int
) -> NDArray[Any]:
    if external is None or outside.get("location") != external.name:
        raise ValueError(f"its constants lie in another file, {outside.get('location', '')[:40]!r}")
    offset, length = int(outside.get("offset", "0")), int(outside.get("length", str(size)))
    if offset < 0 or length != size or offset + size > external.stat().st_size:
        raise ValueError("constants end behind the file they lie in")
    if not size:
        return np.zeros(dims, dtype)
    # The bare array: every slice of numpy's own memmap type would cost microseconds of bookkeeping.
    return np.asarray(np.memmap(external, dtype=dtype, mode="r", offset=offset, shape=tuple(dims)))
