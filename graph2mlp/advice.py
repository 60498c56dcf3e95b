"""What to conclude from a run: what distillation changed, what features can do, when to keep the GNN. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from graph2mlp.significance import chance, half_width

__all__ = ["Gap", "advice", "advise", "run_advice", "seeds_advice"]

PARTS = {
    "test": "test nodes",
    "tran": "known nodes",
    "ind": "new nodes with edges",
    "cold": "new nodes without edges",
}
_LIKELY = 0.05
_WIDTHS = 1.96
_MOVED = 0.05
"""Share of the nodes whose class frequencies must have changed before it is worth a sentence."""


@dataclass(frozen=True)
class Gap:
    """How much more often the student is right than somebody else, as a fraction, and whether chance could do that."""

    difference: float
    sure: bool


Gaps = Mapping[str, Gap]
"""By part of the nodes; see `PARTS`."""


def advice(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The sentences that belong to a page of these runs; none for runs of a version that gave none."""
    return seeds_advice(results) if len(results) > 1 else list(results[0].get("advice", ()))


def run_advice(result: Mapping[str, Any], parts: Mapping[str, Any]) -> list[str]:
    """The sentences for one run, from its result and the counts of `breakdown`.

    Student and teacher are compared node by node (exact McNemar test), student and plain MLP by their two shares.
    Without counts (a task that has no right and wrong answers) one run shows differences, not whether they are chance.
    """
    if not parts:
        return _differences(result)
    student, teacher = result["student"], result["teacher"] or {}
    told: dict[str, Gap] = {}
    mlp: dict[str, Gap] = {}
    for name, part in parts.items():
        if name in student and name in teacher and "gained" in part:
            sure = chance(part["gained"], part["lost"]) < _LIKELY
            told[name] = Gap(student[name] - teacher[name], sure)
        if name in student and name in result["mlp"]:
            mlp[name] = _two_shares(student[name], result["mlp"][name], part["nodes"])
    return [*_frequencies([result]), *advise(told, mlp, result.get("fcr"), **_kind(result))]


def _kind(result: Mapping[str, Any]) -> dict[str, bool]:
    return {"plain": result["method"] == "mlp", "structure": result.get("regime") == "structure"}


def _differences(result: Mapping[str, Any]) -> list[str]:
    if result["method"] == "mlp":
        return []
    lines = []
    for role, whom in (("teacher", "its teacher"), ("mlp", "a plain MLP")):
        other = result[role] or {}
        apart = [
            f"{where} {100 * (result['student'][name] - other[name]):+.1f}"
            for name, where in PARTS.items()
            if name in result["student"] and name in other
        ]
        lines += [f"Against {whom}, in points of {result['metric']}: {', '.join(apart)}."] if apart else []
    return [*lines, "Whether that is chance, one seed does not say: repeat it with --seeds 5."]


def seeds_advice(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The sentences for several seeds: differences seed by seed, sure when their mean's 95 % interval leaves out 0."""
    told: dict[str, Gap] = {}
    mlp: dict[str, Gap] = {}
    for name in PARTS:
        for role, gaps in (("teacher", told), ("mlp", mlp)):
            pairs = [(run["student"].get(name), (run[role] or {}).get(name)) for run in runs]
            apart = [a - b for a, b in pairs if a is not None and b is not None]
            if len(apart) == len(runs):
                gaps[name] = Gap(fmean(apart), abs(fmean(apart)) > half_width(apart))
    ratios = [run["fcr"]["percent"] for run in runs if (run.get("fcr") or {}).get("percent") is not None]
    fcr = {"percent": fmean(ratios)} if ratios else runs[0].get("fcr")
    return [*_frequencies(runs), *advise(told, mlp, fcr, **_kind(runs[0]))]


def advise(
    teacher: Gaps, mlp: Gaps, fcr: Mapping[str, Any] | None, *, plain: bool = False, structure: bool = False
) -> list[str]:
    """What was gained and lost, what features can do, what to deploy; nothing for a `plain` MLP without a teacher.

    `structure`: the student's requests carry it, so that its gain over the plain MLP says something of edges.
    """
    if plain:
        return []
    lines = []
    if teacher:
        lines.append(f"Against its teacher, in points: {_points(teacher)}.")
    lines.append(f"Against a plain MLP, in points: {_points(mlp)}.")
    lines += _features(fcr, _edges(mlp, structure))
    lines.append(_decision(teacher, mlp))
    return lines


def _frequencies(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where labels were drawn otherwise than nodes are, what the answers assume of it: the class that changed most."""
    told = [(run["teacher"] or {}).get("frequencies") for run in runs]
    found = [one for one in told if one and one["moved"] >= _MOVED]
    if not found:
        return []
    name = Counter(one["class"] for one in found).most_common(1)[0][0]
    observed, labelled = (fmean(one[key] for one in found if one["class"] == name) for key in ("observed", "labelled"))
    return [
        f"Of all observed nodes {100 * observed:.0f} % are estimated to be of class '{name}', of the labelled ones "
        f"{100 * labelled:.0f} %. Answers assume the former, so that more nodes should be right; where each class "
        "counts alike, set teacher.frequencies=labelled."
    ]


def _two_shares(a: float, b: float, nodes: int) -> Gap:
    error = math.sqrt((a * (1 - a) + b * (1 - b)) / max(nodes, 1))
    return Gap(a - b, abs(a - b) > _WIDTHS * error)


def _points(gaps: Gaps) -> str:
    return ", ".join(
        f"{PARTS[name]} {100 * gap.difference:+.1f}{'' if gap.sure else ' (may be chance)'}"
        for name, gap in gaps.items()
    )


def _edges(mlp: Gaps, structure: bool) -> str:
    """Whether edges help, beyond what one teacher makes of them: the student that reads structure against plain MLP."""
    if not structure:
        return "whether edges help, a student with structure would show (--method blend)"
    read = [gap for name, gap in mlp.items() if name != "cold" and gap.sure]
    if read and all(gap.difference > 0 for gap in read):
        return "the student with structure is better than the plain MLP, which speaks for edges: try another teacher"
    return "nor is the student with structure clearly better than the plain MLP, so nothing here speaks for edges"


def _features(fcr: Mapping[str, Any] | None, edges: str) -> list[str]:
    """The feature contribution ratio in words (Cold Brew, ICLR 2022); beyond 100 %, what else is known of `edges`."""
    if not fcr:
        return []
    percent = fcr.get("percent")
    if percent is None:
        return [f"What features contribute (FCR) cannot be said: {fcr['reason']}."]
    if percent < 100 / 3:
        words = "edges carry most of it, so a student without structure, and a node without edges, will do worse"
    elif percent < 200 / 3:
        words = "features and edges both matter, so keep structure in the request"
    elif percent <= 100:
        words = "features do most of it; a student that reads features alone is worth a try (--method blend_features)"
    else:
        words = f"this teacher does worse than features alone; {edges}"
    return [f"Features contribute {percent:.0f} % of what the GNN knows (FCR, validation nodes): {words}."]


def _decision(teacher: Gaps, mlp: Gaps) -> str:
    if not any(gap.sure and gap.difference > 0 for gap in mlp.values()):
        return "Deploy the plain MLP: the student is not clearly better, and it needs no teacher."
    worse = [PARTS[name] for name, gap in teacher.items() if gap.sure and gap.difference < 0]
    if worse:
        where = " and ".join(worse)
        return f"Keep the GNN for {where} if accuracy counts more than latency; otherwise deploy the student."
    if not teacher:
        return "Deploy the student."
    return "Deploy the student: nothing measured here speaks for the GNN, except scoring every node in one pass."
