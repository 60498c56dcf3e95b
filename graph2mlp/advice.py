"""What to conclude from a run: what distillation changed, what features can do, when to keep the GNN."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["advise", "margin"]

_NAMES = {
    "test": "test nodes",
    "tran": "known nodes",
    "ind": "new nodes with edges",
    "cold": "new nodes without edges",
}
_Z = 1.96


def margin(accuracy: float, nodes: int) -> float:
    """Half the width of the 95 % interval of an accuracy over `nodes` nodes: a difference below it may be chance."""
    return _Z * math.sqrt(max(accuracy * (1 - accuracy), 0.25 / max(nodes, 1)) / max(nodes, 1))


def advise(result: Mapping[str, Any], nodes: Mapping[str, int]) -> list[str]:
    """One to three sentences; `nodes` says how many nodes each accuracy of the result stands on.

    `result` is a run's result, or the mean over seeds (with the same keys). Accuracies are compared with the teacher's,
    and a difference within the interval of either is called no difference.
    """
    student, mlp, teacher = result["student"], result["mlp"], result.get("teacher") or {}
    parts = [part for part in _NAMES if part in student and nodes.get(part)]
    lines = []
    if compared := [part for part in parts if part in teacher]:
        lines.append(f"Against the teacher, in points: {_differences(student, teacher, compared, nodes)}.")
    lines.append(f"Against a plain MLP: {_differences(student, mlp, parts, nodes)}.")
    lines += _features(result.get("fcr"))
    lines.append(_verdict(student, mlp, teacher, parts, compared, nodes))
    return lines


def _differences(
    student: Mapping[str, float], other: Mapping[str, float], parts: Sequence[str], nodes: Mapping[str, int]
) -> str:
    told = []
    for part in parts:
        gain = student[part] - other[part]
        chance = "" if _differ(student, other, part, nodes) else " (may be chance)"
        told.append(f"{_NAMES[part]} {100 * gain:+.1f}{chance}")
    return ", ".join(told)


def _differ(a: Mapping[str, float], b: Mapping[str, float], part: str, nodes: Mapping[str, int]) -> bool:
    return abs(a[part] - b[part]) > max(margin(a[part], nodes[part]), margin(b[part], nodes[part]))


def _features(fcr: Mapping[str, Any] | None) -> list[str]:
    """The feature contribution ratio in words."""
    if not fcr:
        return []
    percent = fcr.get("percent")
    if percent is None:
        return [f"What features contribute (FCR) cannot be said: {fcr['reason']}."]
    if percent < 100 / 3:
        words = "edges carry most of it; a student without structure, or a node without edges, will be much worse"
    elif percent < 200 / 3:
        words = "features and edges both matter; keep structure in the request"
    elif percent <= 100:
        words = "features do most of it; a student that reads features only is worth a try"
    else:
        words = "features alone do better than the GNN; its edges hurt more than they help"
    return [f"Features contribute {percent:.0f} % of what the GNN knows (FCR on validation nodes): {words}."]


def _verdict(
    student: Mapping[str, float],
    mlp: Mapping[str, float],
    teacher: Mapping[str, float],
    parts: Sequence[str],
    compared: Sequence[str],
    nodes: Mapping[str, int],
) -> str:
    if not any(student[part] > mlp[part] and _differ(student, mlp, part, nodes) for part in parts):
        return "Deploy the plain MLP: the student is not better than it, and it needs no teacher."
    lost = [p for p in compared if student[p] < teacher[p] and _differ(student, teacher, p, nodes)]
    if lost:
        names = " and ".join(_NAMES[part] for part in lost)
        return f"Keep the GNN for {names} where accuracy counts more than latency; deploy the student elsewhere."
    if not compared:
        return "Deploy the student."
    return "Deploy the student: nothing measured here speaks for the GNN, except scoring all nodes in one pass."
