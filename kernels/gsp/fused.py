"""GSP on a GPU: the square loss and its gradient in one sweep over the columns, the KL in one for each.

A feature row appears as row and as column; both coefficients of a pair are known from saved numbers of its two rows, so
each program finishes the rows it owns. Nothing is atomic and two runs agree bit by bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from graph2mlp.kernels import launch
from graph2mlp.kernels.gsp.pairs import Pairs
from graph2mlp.kernels.gsp.sweeps import divergence_pull, row_divergences, squares
from graph2mlp.kernels.launch import Tiles, padded, precision
from graph2mlp.kernels.rows import scatter_rows

__all__ = ["fused"]

_LOG2E = math.log2(math.e)
# Coefficients are multiplied in the features' type. The largest share becomes this, which keeps 1/N of it in the range
# of float16 and stays below its end: no coefficient is above 8 shares.
_PEAK = 4096.0
_NEVER = 1e30  # a log-sum-exp whose exponentials are 0: of columns that are no rows


@dataclass(frozen=True)
class Steps(Tiles):
    """Tiles of which not all features need be at hand."""

    step: int = 0
    """Features multiplied at a time; 0 keeps whole rows in registers, which two wide sides outgrow."""


# By padded width and bytes per feature: no spills on sm_90, two operands in flight (tests/kernels/test_sm90.py).
# Distances need more vectors beside each tile, float32 is split into three products.
_DIVERGENCE_TILES = {
    (64, 2): Steps(128, 64, 8, 3),
    (128, 2): Steps(128, 64, 8, 2),
    (256, 2): Steps(64, 64, 8, 2),
    (64, 4): Steps(128, 32, 8, 2, 32),
    (128, 4): Steps(128, 32, 8, 2, 32),
}
_PULL_TILES = {
    (64, 2): Steps(128, 64, 8, 3),
    (128, 2): Steps(128, 64, 8, 2),
    (256, 2): Steps(64, 32, 8, 2),
    (64, 4): Steps(128, 32, 8, 2, 32),
    (128, 4): Steps(64, 32, 8, 3, 32),
}
_DISTANCE_PULL_TILES = {
    (64, 2): Steps(128, 32, 8, 3),
    (128, 2): Steps(128, 32, 8, 2),
    (256, 2): Steps(64, 32, 8, 2, 128),
    (64, 4): Steps(128, 32, 8, 2, 32),
    (128, 4): Steps(64, 32, 8, 3, 32),
}


def fused(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    anchors: Tensor | None,
    kernel: str,
    divergence: str,
    tau: float,
    gamma: float,
    sign: int,
    diagonal: bool,
    need_student: bool,
    need_teacher: bool,
    *,
    divergence_tiles: Steps | None = None,
    pull_tiles: Steps | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `Core`: losses `[N]` and the gradients of `sum_i weight_i L_i`, for rows as `loss.py` prepares them."""
    pairs = Pairs.of(len(student), anchors, diagonal, weight)
    factor = -gamma * _LOG2E if kernel == "rbf" else float(sign)
    sweeps = _Sweeps(_Side.of(student, anchors), _Side.of(teacher, anchors), pairs, kernel, factor, pull_tiles)
    if divergence == "mse":
        share = 2 * weight / pairs.members
        losses, d_student = sweeps.squares(share, loss=True, pull=need_student)
        d_teacher = sweeps.swapped().squares(share, loss=False, pull=True)[1] if need_teacher else losses.new_empty(0)
        return losses / pairs.members, d_student, d_teacher
    statistics = sweeps.divergences(tau, divergence_tiles)
    d_student = sweeps.divergence_pull(statistics, weight / tau, teacher=False) if need_student else weight.new_empty(0)
    d_teacher = weight.new_empty(0)
    if need_teacher:
        d_teacher = sweeps.swapped().divergence_pull(statistics, weight / tau**2, teacher=True)
    return statistics.losses, d_student, d_teacher


@dataclass(frozen=True, eq=False)
class _Side:
    """One side's features as the kernels read them, and their squared lengths."""

    rows: Tensor
    norms: Tensor
    anchors: Tensor | None
    width: int
    """Of the features as given."""

    @staticmethod
    def of(features: Tensor, anchors: Tensor | None) -> _Side:
        return _Side(padded(features), features.float().square().sum(1), anchors, features.size(1))

    def columns(self) -> _Side:
        if self.anchors is None:
            return self
        return _Side(self.rows[self.anchors], self.norms[self.anchors], None, self.width)


@dataclass(frozen=True, eq=False)
class _Statistics:
    """The KL of each row and what its gradient needs, `[N]` each; log-sum-exps to base 2."""

    losses: Tensor
    student_lse: Tensor
    teacher_lse: Tensor
    mean: Tensor
    """Of the difference of the similarities, teacher minus student, under the teacher's softmax."""
    tau: float


class _Sweeps:
    """The kernels for one pair of sides. Gradients are those of x."""

    def __init__(self, x: _Side, y: _Side, pairs: Pairs, kernel: str, factor: float, tiles: Steps | None) -> None:
        self.x, self.y, self.pairs, self.kernel, self.factor, self.tiles = x, y, pairs, kernel, factor, tiles
        self.size = (max(64, x.rows.size(1), y.rows.size(1)), x.rows.element_size())
        self.pull_tiles = tiles or (_DISTANCE_PULL_TILES if kernel in ("l2", "rbf") else _PULL_TILES)[self.size]

    def swapped(self) -> _Sweeps:
        """The same for the gradient of y."""
        return _Sweeps(self.y, self.x, self.pairs, self.kernel, self.factor, self.tiles)

    def squares(self, share: Tensor, *, loss: bool, pull: bool) -> tuple[Tensor, Tensor]:
        """Squared differences summed over each row, and the gradient if `pull`, in the same sweep."""
        losses = torch.empty_like(share)
        if pull:
            return losses, self._pull(squares, {"share": share}, {"losses": losses}, {"LOSS": loss, "PULL": True})
        unused = {"own_share": share, "key_share": share, "out": losses}
        self._run(squares, {**unused, "losses": losses}, {"LOSS": loss, "PULL": False}, self.pull_tiles)
        return losses, losses.new_empty(0)

    def divergences(self, tau: float, tiles: Steps | None) -> _Statistics:
        """x is the student."""
        losses, x_lse, y_lse, mean = (torch.empty_like(self.x.norms) for _ in range(4))
        outputs = {"losses": losses, "x_lse": x_lse, "y_lse": y_lse, "mean": mean}
        arguments = {**outputs, "scale": _LOG2E / tau}
        self._run(row_divergences, arguments, {}, tiles or _DIVERGENCE_TILES[self.size])
        return _Statistics(losses / _LOG2E, x_lse, y_lse, mean, tau)

    def divergence_pull(self, found: _Statistics, share: Tensor, *, teacher: bool) -> Tensor:
        """The gradient; `teacher` says that x is the teacher."""
        rows = {"share": share, "lse": found.student_lse, "other": found.teacher_lse}
        if teacher:
            rows = {"share": share, "lse": found.teacher_lse, "other": found.mean}
        return self._pull(divergence_pull, rows, {"scale": _LOG2E / found.tau}, {"TEACHER": teacher})

    def _pull(self, kernel: Any, rows: dict[str, Tensor], arguments: dict[str, Any], flags: dict[str, bool]) -> Tensor:
        """The gradient `[N, width]` from programs that own rows and, with anchors, from others that own columns."""
        peak = rows["share"].abs().max()
        lift = _PEAK / torch.where(peak == 0, 1, peak)
        rows = {**rows, "share": rows["share"] * lift}
        columns = rows
        if self.x.anchors is not None:
            count = len(self.x.anchors)
            columns = {name: one.new_full((count,), 0 if name == "share" else _NEVER) for name, one in rows.items()}
        slope = {"cosine": 1.0, "poly": 2.0, "l2": self.factor, "rbf": 2 * self.factor / _LOG2E}[self.kernel]
        total = self._half(kernel, rows, columns, arguments, flags, False)
        if self.x.anchors is not None:
            unlost = {name: False if name == "LOSS" else flag for name, flag in flags.items()}
            half = self._half(kernel, columns, rows, arguments, unlost, True)
            total += scatter_rows(half, self.x.anchors, len(total))
        return total * (slope / lift)

    def _half(
        self,
        kernel: Any,
        own: dict[str, Tensor],
        key: dict[str, Tensor],
        arguments: dict[str, Any],
        flags: dict[str, bool],
        transposed: bool,
    ) -> Tensor:
        out = self.x.rows.new_empty(len(own["share"]), self.x.rows.size(1), dtype=torch.float32)
        vectors = {f"own_{name}": one for name, one in own.items()} | {f"key_{name}": one for name, one in key.items()}
        self._run(kernel, {**vectors, "out": out, **arguments}, flags, self.pull_tiles, transposed)
        return out[:, : self.x.width]

    def _run(
        self,
        kernel: Any,
        arguments: dict[str, Any],
        flags: dict[str, bool],
        tiles: Steps,
        transposed: bool = False,
    ) -> None:
        own, key = (self.x, self.y), (self.x.columns(), self.y.columns())
        own_ids, key_ids = torch.arange(len(self.x.rows), device=self.x.rows.device), self.pairs.ids
        if transposed:
            own, key, own_ids, key_ids = key, own, key_ids, own_ids
        everything: dict[str, Any] = {
            **{f"own_{name}": side.rows for name, side in zip("xy", own, strict=True)},
            **{f"key_{name}": side.rows for name, side in zip("xy", key, strict=True)},
            **{f"own_{name}_norm": side.norms for name, side in zip("xy", own, strict=True)},
            **{f"key_{name}_norm": side.norms for name, side in zip("xy", key, strict=True)},
            "own_ids": own_ids.int(),
            "key_ids": key_ids.int(),
            **arguments,
            "n_own": len(own_ids),
            "n_key": len(key_ids),
            "factor": self.factor,
        }
        constants = {
            "X": self.x.rows.size(1),
            "Y": self.y.rows.size(1),
            "ROWS": tiles.rows,
            "COLUMNS": tiles.columns,
            "STEP": tiles.step,
            "KERNEL": self.kernel,
            "DIAGONAL": self.pairs.diagonal,
            "PRECISION": precision(self.x.rows),
            **flags,
        }
        launch.run(kernel, (triton.cdiv(len(own_ids), tiles.rows),), everything, constants, tiles)
