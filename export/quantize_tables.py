"""Tables (a row per node, or per word) stored in fewer bytes; a request reads a few rows and restores those alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graph2mlp.export.onnx_edit import ModelEditor, attributes, make_node

if TYPE_CHECKING:
    import onnx

__all__ = ["int8_rows", "round_rows"]

_FLOAT = 1  # onnx.TensorProto.FLOAT


def round_rows(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """`rows [N, D]` as `q [N, D]` in -127 to 127 and `scale [N]`; a row of zeros stays one."""
    scale = np.abs(rows).max(1) / np.float32(127)
    safe = np.where(scale > 0, scale, 1)
    return np.rint(rows / safe[:, None]).astype(np.int8), scale.astype(np.float32)


def int8_rows(editor: ModelEditor, gather: onnx.NodeProto) -> int:
    """Store the table of a `Gather` as int8 rows with a scale each. Returns the bytes it takes now.

    Where the rows are only summed up, the scales become weights of the sum: restoring a row costs no pass over it.
    """
    table, ids = gather.input
    consumers = editor.consumers(gather.output[0])
    if len(consumers) == 1 and consumers[0].op_type == "MatMul" and consumers[0].input[1] == gather.output[0]:
        before = [node for node in editor.nodes if consumers[0].input[0] in node.output]
        if before and before[0].op_type == "Unsqueeze":
            return _weighted_sum(editor, gather, before[0])
    if len(consumers) == 1 and consumers[0].op_type == "ReduceSum":
        after = editor.consumers(consumers[0].output[0])
        if len(after) == 1 and _splits_off_last(editor, after[0], editor.constants[table].shape[1]):
            return _sum_and_count(editor, gather, consumers[0], after[0])
    rows, scale = round_rows(editor.constants[table])
    q, s = editor.constant(f"{table}.int8", rows), editor.constant(f"{table}.scale", scale[:, None])
    small, real, scales = (editor.name(f"{gather.output[0]}.{part}") for part in ("int8", "real", "scale"))
    editor.replace(
        gather,
        make_node("Gather", [q, ids], small, axis=0),
        make_node("Cast", [small], real, to=_FLOAT),
        make_node("Gather", [s, ids], scales, axis=0),
        make_node("Mul", [real, scales], gather.output[0]),
    )
    return rows.nbytes + scale.nbytes


def _weighted_sum(editor: ModelEditor, gather: onnx.NodeProto, unsqueeze: onnx.NodeProto) -> int:
    """`values [B, J]` times rows of the table, summed over J: the values take the rows' scales."""
    table, ids = gather.input
    rows, scale = round_rows(editor.constants[table])
    q, s = editor.constant(f"{table}.int8", rows), editor.constant(f"{table}.scale", scale)
    small, scales, values = (editor.name(f"{gather.output[0]}.{part}") for part in ("int8", "scale", "values"))
    editor.replace(
        unsqueeze,
        make_node("Gather", [s, ids], scales, axis=0),
        make_node("Mul", [unsqueeze.input[0], scales], values),
        make_node("Unsqueeze", [values, unsqueeze.input[1]], unsqueeze.output[0]),
    )
    _gather_small(editor, gather, q, small)
    return rows.nbytes + scale.nbytes


def _sum_and_count(editor: ModelEditor, gather: onnx.NodeProto, total: onnx.NodeProto, split: onnx.NodeProto) -> int:
    """Rows and what each counts, summed up: `[B, K, D + 1] -> [B, D], [B, 1]`. The counts stay as they are.

    A count of 2^-40 beside one of 1 is what tells padding from a node; no 8 bits hold both.
    """
    table, ids = gather.input
    whole = editor.constants[table]
    rows, scale = round_rows(whole[:, :-1])
    q, s = editor.constant(f"{table}.int8", rows), editor.constant(f"{table}.scale", scale)
    c = editor.constant(f"{table}.count", whole[:, -1].copy())
    one = editor.constant(f"{table}.axis", np.array([1]))
    base = gather.output[0]
    small, scales, weights, summed, counts = (
        editor.name(f"{base}.{part}") for part in ("int8", "scale", "weights", "sum", "counts")
    )
    _gather_small(editor, gather, q, small)
    editor.replace(
        total,
        make_node("Gather", [s, ids], scales, axis=0),
        make_node("Unsqueeze", [scales, one], weights),
        make_node("MatMul", [weights, base], summed),
        make_node("Squeeze", [summed, one], split.output[0]),
    )
    editor.replace(
        split,
        make_node("Gather", [c, ids], counts, axis=0),
        make_node("ReduceSum", [counts, one], split.output[1], keepdims=1),
    )
    return rows.nbytes + scale.nbytes + 4 * len(whole)


def _gather_small(editor: ModelEditor, gather: onnx.NodeProto, table: str, small: str) -> None:
    editor.replace(
        gather,
        make_node("Gather", [table, gather.input[1]], small, axis=0),
        make_node("Cast", [small], gather.output[0], to=_FLOAT),
    )


def _splits_off_last(editor: ModelEditor, node: onnx.NodeProto, width: int) -> bool:
    if node.op_type != "Split" or len(node.input) != 2 or attributes(node).get("axis", 0) not in (1, -1):
        return False
    sizes = editor.constants.get(node.input[1])
    return sizes is not None and sizes.tolist() == [width - 1, 1]
