"""A model taken apart into nodes and constants, so that a rewrite is a few lines; put together again at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

__all__ = ["DenseLayer", "ModelEditor", "split_gemm"]

CONTRIB = "com.microsoft"
"""Domain of the operators that only onnxruntime has."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DenseLayer:
    """One product with constant weights: `node` computes `input [B, K] @ weight [K, N] (+ bias [N])`."""

    node: onnx.NodeProto
    name: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    """None where there is none, or where what is added is computed."""


class ModelEditor:
    """Nodes and constants of an exported model; the model given is left as it is."""

    def __init__(self, model: onnx.ModelProto) -> None:
        from onnx import numpy_helper

        self._model = model
        self.nodes = list(model.graph.node)
        self.constants: dict[str, NDArray[Any]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self._names = {name for node in self.nodes for name in (*node.input, *node.output)} | self.constants.keys()

    def name(self, base: str) -> str:
        """A name no tensor has yet."""
        found, number = base, 1
        while found in self._names:
            found, number = f"{base}_{number}", number + 1
        self._names.add(found)
        return found

    def constant(self, base: str, array: NDArray[Any]) -> str:
        """A new constant; returns its name."""
        name = self.name(base)
        self.constants[name] = array
        return name

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that read `tensor`."""
        return [node for node in self.nodes if tensor in node.input]

    def replace(self, old: onnx.NodeProto, *new: onnx.NodeProto) -> None:
        """Put `new` where `old` was; the last of them must give the outputs of `old`."""
        place = next(i for i, node in enumerate(self.nodes) if node is old)
        self.nodes[place : place + 1] = new

    def dense_layers(self) -> list[DenseLayer]:
        """Products of something computed and a constant matrix, in the order they run."""
        found = []
        for node in self.nodes:
            if node.op_type not in ("Gemm", "MatMul") or node.input[0] in self.constants:
                continue
            weight = self.constants.get(node.input[1])
            if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
                continue
            given = attributes(node)
            if given.get("transA", 0) or given.get("alpha", 1.0) != 1 or given.get("beta", 1.0) != 1:
                continue  # the exporter writes none of these
            bias = self.constants.get(node.input[2]) if len(node.input) > 2 else None
            weight = weight.T if given.get("transB", 0) else weight
            found.append(DenseLayer(node=node, name=node.input[1], weight=weight, bias=bias))
        return found

    def model(self) -> onnx.ModelProto:
        """The model put together again, without constants nobody reads and without inferred shapes.

        Shapes inferred before a rewrite are stale after it, and onnxruntime believes them.
        """
        import onnx
        from onnx import helper, numpy_helper

        read = {name for node in self.nodes for name in node.input}
        out = onnx.ModelProto()
        out.CopyFrom(_without_weights(self._model))
        out.graph.node.extend(self.nodes)
        for name, array in self.constants.items():
            if name in read:
                out.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        if any(node.domain == CONTRIB for node in self.nodes):
            out.opset_import.append(helper.make_opsetid(CONTRIB, 1))
        return out


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node as Python values."""
    from onnx import helper

    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def make_node(op: str, inputs: list[str], output: str, *, domain: str = "", **given: Any) -> onnx.NodeProto:
    """A node with one output."""
    from onnx import helper

    return helper.make_node(op, inputs, [output], name=output, domain=domain, **given)


def split_gemm(editor: ModelEditor, layer: DenseLayer) -> DenseLayer:
    """`Gemm` as `MatMul` and `Add`, which is what a product in integers can take the place of; a `MatMul` stays.

    Exact: the same products are added in the same order; onnxruntime joins the two again when it opens the file.
    """
    if layer.node.op_type == "MatMul":
        return layer
    weight, output = editor.constant(f"{layer.name}.t", layer.weight), layer.node.output[0]
    added = len(layer.node.input) > 2
    product = editor.name(f"{output}.product") if added else output
    matmul = make_node("MatMul", [layer.node.input[0], weight], product)
    new = [matmul]
    if added:
        new.append(make_node("Add", [product, layer.node.input[2]], output))
    editor.replace(layer.node, *new)
    return DenseLayer(node=matmul, name=layer.name, weight=layer.weight, bias=layer.bias)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    graph = onnx.GraphProto(name=model.graph.name)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    out = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    out.producer_version = model.producer_version
    out.graph.CopyFrom(graph)
    out.opset_import.extend(model.opset_import)
    out.metadata_props.extend(model.metadata_props)
    return out
