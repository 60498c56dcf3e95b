"""What every loss of this package checks before it computes anything: a wrong shape must never become a number."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graph2mlp.errors import KernelError

__all__ = ["check_index", "check_pair", "check_positive", "check_weight"]


def check_pair(
    loss: str, student: Tensor, teacher: Tensor, *, same_rows: bool = True, same_width: bool = False
) -> None:
    """Two floating-point matrices with rows, on one device.

    Raises:
        KernelError: they are not, or `same_rows` or `same_width` does not hold.
    """
    for name, side in (("student", student), ("teacher", teacher)):
        if side.dim() != 2 or not side.is_floating_point():
            raise KernelError(
                f"{loss}: {name} must be a floating-point matrix [rows, width], "
                f"got {str(side.dtype).removeprefix('torch.')} {list(side.shape)}."
            )
        if not len(side) or not side.size(1):
            raise KernelError(
                f"{loss}: {name} is empty, {list(side.shape)}; at least one row and one column are needed."
            )
    if student.device != teacher.device:
        raise KernelError(f"{loss}: student is on {student.device}, teacher on {teacher.device}; move one of them.")
    if same_rows and len(student) != len(teacher):
        raise KernelError(
            f"{loss}: student has {len(student)} rows and teacher {len(teacher)}; row i of one belongs to row i of the "
            "other, so they must match."
        )
    if same_width and student.size(1) != teacher.size(1):
        raise KernelError(
            f"{loss}: student is {student.size(1)} wide and teacher {teacher.size(1)}; their rows are multiplied with "
            "one another, so project one side first."
        )


def check_positive(loss: str, name: str, value: float) -> None:
    """A number above 0 and finite.

    Raises:
        KernelError: it is not.
    """
    if isinstance(value, Tensor):
        raise KernelError(f"{loss}: {name} must be a number, got a tensor; it would get no gradient.")
    if not 0 < value < math.inf:
        raise KernelError(f"{loss}: {name} must be positive and finite, got {value}.")


def check_weight(loss: str, weight: Tensor, rows: int) -> None:
    """One weight for each row: `[rows]`, floating point or bool. Values are the caller's; a negative one is legal.

    Raises:
        KernelError: another shape or type.
    """
    if weight.shape != (rows,) or not (weight.is_floating_point() or weight.dtype == torch.bool):
        raise KernelError(
            f"{loss}: weight must be [{rows}], floating point or bool, one for each row; "
            f"got {str(weight.dtype).removeprefix('torch.')} {list(weight.shape)}."
        )


def check_index(loss: str, name: str, index: Tensor, rows: int, below: int | None = None) -> None:
    """A vector `[rows]` of int32 or int64; with `below`, every entry in `[0, below)`.

    Raises:
        KernelError: another shape, type or range.
    """
    if index.shape != (rows,) or index.dtype not in (torch.int32, torch.int64):
        raise KernelError(
            f"{loss}: {name} must be integers [{rows}], int32 or int64; "
            f"got {str(index.dtype).removeprefix('torch.')} {list(index.shape)}."
        )
    if below is not None and bool(((index < 0) | (index >= below)).any()):
        raise KernelError(f"{loss}: {name} must lie in 0..{below - 1}, got {int(index.min())}..{int(index.max())}.")
