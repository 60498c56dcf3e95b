"""From a student and its structure table to ONNX bytes, with as few operators as the rules allow.

At batch 1 an operator costs about 0.3 us whatever it computes, so the graph is designed by its number of operators.
For sparse features and structure it has twelve: Gather, Unsqueeze, MatMul, Squeeze (features), Gather, ReduceSum,
Split, Div (structure and bias), Add, Relu, Gemm, Softmax.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph2mlp.errors import BundleError, MethodError, require
from graph2mlp.export.bundle import EXTERNAL_DATA, MODEL, TensorSpec
from graph2mlp.export.fold import first_bias, fold_student, fold_table
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student
from graph2mlp.tasks import MULTILABEL, REGRESSION, TASKS

if TYPE_CHECKING:
    import onnx

__all__ = [
    "EXTERNAL_DATA_FROM",
    "ONE_FILE_LIMIT",
    "DeployedStudent",
    "OnnxModel",
    "deploy_module",
    "store_model",
    "to_onnx",
]

EXTERNAL_DATA_FROM = 64 * 2**20
"""Bytes of weights from which they go beside the model in a folder: there they are memory-mapped, not loaded."""

ONE_FILE_LIMIT = 1_500_000_000
"""Bytes of weights that one model file can hold: a protobuf message ends at 2 GB."""


class DeployedStudent(nn.Module):
    """What a device computes: `(x | indices, values) [, neighbors] -> (logits [B, C], probabilities [B, C])`.

    Quantities have no probabilities: then the logits are alone.

    Shapes: `x [B, F]`; or `indices [B, J]` int64 and `values [B, J]`; `neighbors [B, K]` int64, K at least 1. In the
    ONNX file a padding id of -1 reads the last row of its table; torch's embedding does not wrap, so this module is
    there to be exported, not to be called.
    """

    feature_rows: Tensor
    bias: Tensor
    structure_rows: Tensor | None

    def __init__(self, student: Student, table: StructureTable | None, *, sparse: bool) -> None:
        super().__init__()
        student = fold_student(student)
        self.sparse = sparse
        self.student = student
        weight = student.feature_weight.detach()
        if sparse:  # padding reads the zero row
            weight = torch.cat([weight, weight.new_zeros(1, weight.size(1))])
        self.register_buffer("feature_rows", weight.clone())
        self.register_buffer("bias", first_bias(student))
        self.register_buffer("structure_rows", None if table is None else fold_table(table, student))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        logits = self.student.head(self._first_layer(*inputs)).logits
        task = self.student.spec.task
        if task == REGRESSION.name:
            return (logits,)
        return logits, logits.sigmoid() if task == MULTILABEL.name else logits.softmax(-1)

    def _first_layer(self, *inputs: Tensor) -> Tensor:
        if self.sparse:
            indices, values = inputs[:2]
            rows = F.embedding(indices, self.feature_rows)
            features = (values.unsqueeze(1) @ rows).squeeze(1)
        elif self.structure_rows is None:
            return torch.addmm(self.bias, inputs[0], self.feature_rows)
        else:
            features = inputs[0] @ self.feature_rows
        if self.structure_rows is None:
            return features + self.bias
        total = F.embedding(inputs[-1], self.structure_rows).sum(1)
        vector, count = torch.split(total, [total.size(1) - 1, 1], dim=1)
        return features + vector / count


@dataclass(frozen=True, eq=False, kw_only=True)
class OnnxModel:
    """An exported network: the files it consists of (content, or where it lies) and what goes in and out."""

    files: dict[str, bytes | Path]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[str, ...]


def deploy_module(student: Student, table: StructureTable | None, *, sparse: bool) -> DeployedStudent:
    """The module to export, everything foldable folded.

    Raises:
        MethodError: the student reads structure and there is no table, the reverse, or their widths differ.
    """
    wanted, given = student.spec.structure, table.width if table is not None else 0
    if wanted != given:
        raise MethodError(
            f"The student reads structure vectors of width {wanted}, but the table has width {given} (0: none). "
            "Export the student with the table it was trained on."
        )
    return DeployedStudent(student, table, sparse=sparse).eval()


def to_onnx(
    student: Student,
    table: StructureTable | None,
    *,
    sparse: bool,
    scratch: Path | None = None,
    external_from: int = EXTERNAL_DATA_FROM,
) -> OnnxModel:
    """Export with dynamic batch, J and K.

    `scratch` is a folder for weights of more than `external_from` bytes, which go beside the model file.

    Raises:
        MethodError: the table does not fit the student.
        MissingExtraError: onnx or onnxscript is not installed.
        BundleError: the weights need a folder and none is given.
    """
    for package in ("onnx", "onnxscript"):
        require(package, extra="distill", purpose="Export to ONNX")
    module = deploy_module(student, table, sparse=sparse)
    inputs = _input_specs(student, table, sparse)
    outputs = _output_specs(student)
    dims = {name: torch.export.Dim(name) for name in ("batch", "J", "K")}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(_example(spec) for spec in inputs),
            dynamo=True,
            dynamic_shapes=(
                tuple({i: dims[d] for i, d in enumerate(spec.shape) if isinstance(d, str)} for spec in inputs),
            ),
            input_names=[spec.name for spec in inputs],
            output_names=[spec.name for spec in outputs],
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = _clean(program.model_proto)
    files = store_model(model, scratch, external_from=external_from)
    operators = tuple(node.op_type for node in model.graph.node)
    return OnnxModel(files=files, inputs=inputs, outputs=outputs, operators=operators)


def store_model(
    model: onnx.ModelProto, scratch: Path | None, *, external_from: int = EXTERNAL_DATA_FROM
) -> dict[str, bytes | Path]:
    """The files of a model: one, or two in the folder `scratch` when the weights exceed `external_from` bytes.

    Raises:
        BundleError: the weights need a folder and none is given.
    """
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    return _external(model, scratch) if size > external_from else {MODEL: model.SerializeToString()}


def _input_specs(student: Student, table: StructureTable | None, sparse: bool) -> tuple[TensorSpec, ...]:
    width = student.spec.features
    if sparse:
        specs = [
            TensorSpec("indices", "int64", ("batch", "J"), f"non-zero features, 0 to {width - 1}; padding -1"),
            TensorSpec("values", "float32", ("batch", "J"), "their values; anything finite at padding"),
        ]
    else:
        specs = [TensorSpec("x", "float32", ("batch", width), "features of the node")]
    if table is not None:
        meaning = (
            f"ids, 0 to {len(table.rows) - 1}: the node's own id if it is in the table, else its neighbours' ids; "
            "padding -1; at least one column, a node without edges has only padding"
        )
        specs.append(TensorSpec("neighbors", "int64", ("batch", "K"), meaning))
    return tuple(specs)


def _output_specs(student: Student) -> tuple[TensorSpec, ...]:
    kind = TASKS[student.spec.task]
    scores = "the quantities" if kind is REGRESSION else f"one score per {kind.unit}"
    meanings = {"logits": scores, "probabilities": f"{'sigmoid' if kind is MULTILABEL else 'softmax'} of the logits"}
    return tuple(TensorSpec(name, "float32", ("batch", student.spec.classes), meanings[name]) for name in kind.outputs)


def _example(spec: TensorSpec) -> Tensor:
    # Sizes 0 and 1 would be taken for constants; different sizes keep the dimensions apart.
    sizes = {"batch": 2, "J": 3, "K": 5}
    shape = [sizes[size] if isinstance(size, str) else size for size in spec.shape]
    return torch.zeros(shape, dtype=getattr(torch, spec.dtype))


def _clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what the exporter leaves behind: stack traces with paths of this machine, and inferred shapes."""
    for item in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]
        item.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    del model.graph.value_info[:]  # stale ones also stop onnxruntime's quantizers
    _drop_zero_biases(model.graph)
    return model


def _drop_zero_biases(graph: onnx.GraphProto) -> None:
    """A product without a bias is written as a `Gemm` with zeros made in every call; `Gemm` does without them."""
    zeros = {node.output[0]: node for node in graph.node if node.op_type == "ConstantOfShape" and not node.attribute}
    for node in graph.node:
        if node.op_type == "Gemm" and len(node.input) == 3 and node.input[2] in zeros:
            del node.input[2]
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    unread = [node for name, node in zeros.items() if name not in read]
    for node in unread:
        graph.node.remove(node)
    shapes = {node.input[0] for node in unread} - {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name in shapes]:
        graph.initializer.remove(tensor)


def _external(model: onnx.ModelProto, scratch: Path | None) -> dict[str, bytes | Path]:
    import onnx

    if scratch is None:
        raise BundleError("The weights are too large for one model file, and there is no folder to put them beside it.")
    path = scratch / MODEL
    onnx.save_model(model, path, save_as_external_data=True, location=EXTERNAL_DATA, size_threshold=1024)
    return {MODEL: path, EXTERNAL_DATA: scratch / EXTERNAL_DATA}


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about things that are none of the user's business (torchvision is absent, names of axes)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
