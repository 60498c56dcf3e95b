"""What a run says, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from graph2mlp.report.data import RunFiles
from graph2mlp.report.words import PARTS, count, percent, points, significance
from graph2mlp.significance import chance

__all__ = ["headline", "mean", "reading", "verdict"]


def mean(runs: Sequence[RunFiles], role: str, column: str) -> float | None:
    """Mean accuracy over the seeds; None where one of them has none."""
    found = [run.accuracy(role, column) for run in runs]
    known = [one for one in found if one is not None]
    return fmean(known) if len(known) == len(found) else None


def headline(runs: Sequence[RunFiles]) -> str:
    """One sentence: how often the student is right, or its metric, against its teacher and the plain MLP."""
    column = "test" if "test" in runs[0].columns else "prod"
    student = mean(runs, "student", column)
    assert student is not None  # a run without an accuracy of its student is refused when it is read
    where = "the test nodes" if column == "test" else "the production mix"
    seeds = f", mean of {len(runs)} seeds" if len(runs) > 1 else ""
    if not runs[0].counted:
        return _headline_in_points(runs, column, f"{where}{seeds}", student)
    if runs[0].result["method"] == "mlp":
        return f"A plain MLP is right on {percent(student)} of {where}{seeds}; nothing was distilled."
    parts = []
    teacher, mlp = (mean(runs, role, column) for role in ("teacher", "mlp"))
    if teacher is not None:
        parts.append(_against(student - teacher, "its teacher"))
    if mlp is not None:
        parts.append(_against(student - mlp, "a plain MLP"))
    joined = " and ".join(parts)
    return f"The student is right on {percent(student)} of {where}{seeds}" + (f": {joined}." if joined else ".")


def _headline_in_points(runs: Sequence[RunFiles], column: str, where: str, student: float) -> str:
    who = "A plain MLP" if runs[0].result["method"] == "mlp" else "The student"
    apart = [
        f"{points(student - value)} points against {whom}"
        for role, whom in (("teacher", "its teacher"), ("mlp", "a plain MLP"))
        if who == "The student" and (value := mean(runs, role, column)) is not None
    ]
    against = f": {' and '.join(apart)}" if apart else ""
    return f"{who} reaches {percent(student)} ({runs[0].metric}) on {where}{against}."


def _against(difference: float, whom: str) -> str:
    size = points(abs(difference)).lstrip("+±")
    if float(size) == 0:
        return f"as often as {whom}"
    return f"{size} points {'more' if difference > 0 else 'less'} than {whom}"


def verdict(runs: Sequence[RunFiles]) -> list[str]:
    """The sentences below the headline: is the difference more than chance, what of unseen nodes, of which teacher."""
    found = []
    if runs[0].result.get("teacher"):
        found.append(_over_seeds(runs) if len(runs) > 1 else _on_nodes(runs[0]))
    if "ind" in runs[0].columns:
        found.append(_unseen(runs))
    return [one for one in found if one]


def _over_seeds(runs: Sequence[RunFiles]) -> str:
    column = "test" if "test" in runs[0].columns else "prod"
    pairs = [(run.accuracy("student", column), run.accuracy("teacher", column)) for run in runs]
    gaps = [student - teacher for student, teacher in pairs if student is not None and teacher is not None]
    if len(gaps) < len(runs):
        return ""
    better = sum(gap > 0 for gap in gaps)
    return (
        f"Against its teacher the student is ahead with {better} of {count(len(runs), 'seed')}; "
        f"the difference is {points(fmean(gaps))} points (standard deviation over seeds {100 * stdev(gaps):.1f})."
    )


def _on_nodes(run: RunFiles) -> str:
    parts = (run.details or {}).get("parts", {})
    part = parts.get("test") or parts.get("tran")
    if not part or "gained" not in part:
        return ""
    gained, lost, nodes = part["gained"], part["lost"], part["nodes"]
    likely = chance(gained, lost)
    where = "observed " if "tran" in parts else ""
    close = (
        "so many could fall either way by chance"
        if likely >= 0.05
        else f"more than chance would give, in favour of the {'student' if gained > lost else 'teacher'}"
    )
    return (
        f"Of {nodes:,} {where}test nodes, {gained} are right with the student only and {lost} with the teacher only: "
        f"{close} (exact McNemar test, {significance(likely)})."
    )


def _unseen(runs: Sequence[RunFiles]) -> str:
    sentences = []
    for column, how in (
        ("ind", "Unseen nodes that arrive with their edges"),
        ("cold", "those that arrive without edges"),
    ):
        student, teacher = (mean(runs, role, column) for role in ("student", "teacher"))
        if student is not None:
            beside = f" (teacher {percent(teacher)})" if teacher is not None else ""
            sentences.append(f"{how}: {percent(student)}{beside}")
    return "; ".join(sentences) + "."


def reading(part: str, found: Mapping[str, Any]) -> str:
    """How often student and teacher differ in one part, and in which group the student falls behind most."""
    if "gained" not in found:
        return ""
    where = PARTS[part]
    apart = f"Only the student is right on {found['gained']} of the {where}, only its teacher on {found['lost']}. "
    ranked = [
        (group["lost"] - group["gained"], kind, group) for kind, groups in found["groups"].items() for group in groups
    ]
    behind = [one for one in ranked if one[0] > 0]
    if not behind:
        return apart + "In no group does the student have fewer right than its teacher."
    _net, kind, worst = max(behind, key=lambda one: one[0])
    likely = chance(worst["gained"], worst["lost"])
    close = "chance alone could do that" if likely >= 0.05 else "more than chance alone would do"
    return apart + (
        f"It falls behind its teacher most in {group_name(kind, worst)}: of "
        f"{count(worst['nodes'], 'node')}, {worst['lost']} are right with the teacher only and {worst['gained']} with "
        f"the student only ({significance(likely)}: {close})."
    )


def group_name(kind: str, group: Mapping[str, Any]) -> str:
    """A group of nodes in a sentence."""
    if kind == "class":
        return f"class {group['name']}"
    if kind == "degree":
        low, high = group["low"], group["high"]
        return f"degree {low}" if low == high else f"degrees {low} to {high}"
    return f"the quarter with confidence {percent(group['low'], 0)} to {percent(group['high'], 0)}"
