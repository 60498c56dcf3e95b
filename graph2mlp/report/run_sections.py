"""The sections of a run's page that show its accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import pstdev
from typing import Any

from graph2mlp.advice import advice
from graph2mlp.report.data import RunFiles
from graph2mlp.report.dots import Group, Line, group_chart, setting_chart
from graph2mlp.report.markup import Markup, element
from graph2mlp.report.page import absent, beside, columns, details, key_figures, paragraph, section, table
from graph2mlp.report.verdict import mean, reading
from graph2mlp.report.words import PARTS, ROLES, capital, percent
from graph2mlp.significance import FEW, wilson
from graph2mlp.summary import deploy_rows
from graph2mlp.tasks import CLASSIFICATION, MULTILABEL, REGRESSION

__all__ = ["accuracy_section", "advice_section", "deploy_section", "groups_section", "key_section"]

_MOST_GROUPS = 40

AGREEMENT = {
    CLASSIFICATION.name: "same class on observed test nodes",
    MULTILABEL.name: "same decision on each label of observed test nodes",
    REGRESSION.name: "R2 for the teacher's answers on observed test nodes",
}

REGIMES = {
    "features": "a request carries the node's own features",
    "structure": "a request carries features and the node's id, or its neighbours' ids",
    "ingested": "a request carries features and aggregates stored with the node",
}


def key_section(runs: Sequence[RunFiles]) -> Markup:
    """The student's accuracy for each kind of node, with the others below; then what it is."""
    figures: list[tuple[str, str, list[str]]] = []
    for column in runs[0].columns:
        others = [
            f"{ROLES[role]} {percent(value)}"
            for role in ("teacher", "mlp")
            if (value := mean(runs, role, column)) is not None
        ]
        value = mean(runs, "student", column)
        figures.append((column, "-" if value is None else percent(value), [PARTS[column], ", ".join(others)]))
    result = runs[0].result
    student = result["student"]
    agreed = [run.result["student"].get("agreement") for run in runs]
    if all(one is not None for one in agreed):
        figures.append(
            ("agreement with the teacher", percent(sum(agreed) / len(agreed)), [AGREEMENT[runs[0].task.name]])
        )
    size = f"{student['layers']} layers, {student['hidden']} wide"
    figures.append(("student's parameters", f"{student['parameters']:,}", [size]))
    regime = str(result.get("regime", "unknown"))
    figures.append(("input regime", regime, [REGIMES.get(regime, "")]))
    return key_figures(figures)


def advice_section(runs: Sequence[RunFiles]) -> Markup | None:
    """What to conclude; None for runs of a version that said nothing of it."""
    lines = advice([run.result for run in runs])
    return section("What to do with it", element("ul", *(element("li", line) for line in lines))) if lines else None


def accuracy_section(runs: Sequence[RunFiles]) -> Markup:
    """Everyone in every setting; with several seeds each of them as a dot around the mean."""
    settings: dict[str, list[Line]] = {}
    for column in runs[0].columns:
        lines = []
        for role in runs[0].roles:
            values = [run.accuracy(role, column) for run in runs]
            known = tuple(value for value in values if value is not None)
            if known:
                seeds = known if len(runs) > 1 else ()
                interval = None if seeds else _interval(runs[0], role, column)
                lines.append(Line(role, ROLES[role], sum(known) / len(known), seeds, interval))
        settings[f"{column}: {PARTS[column]}"] = lines
    many = len(runs) > 1
    words = (
        "Each dot is one seed, the stroke their mean."
        if many
        else "Whiskers: 95 % Wilson interval over the test nodes."
        if runs[0].counted
        else "One seed."
    )
    what = capital(runs[0].metric)
    title = f"{what} by setting" if "ind" in runs[0].columns else f"{what} on the test nodes"
    chart = setting_chart("accuracy", title, settings, metric=runs[0].metric)
    return section(what, paragraph(words, class_="note"), beside(chart, _accuracy_table(runs)), _members_table(runs))


def _interval(run: RunFiles, role: str, column: str) -> tuple[float, float] | None:
    part = (run.details or {}).get("parts", {}).get(column)
    if not part or role not in part["right"] or not part["nodes"]:
        return None
    return wilson(part["right"][role], part["nodes"])


def _accuracy_table(runs: Sequence[RunFiles]) -> Markup:
    reported = ["val", *runs[0].columns]
    rows = []
    for role in runs[0].roles:
        name = ROLES[role]
        if role == "teacher":
            name += f" ({runs[0].result['teacher']['name']})"
        if role == "student":
            name += f" ({runs[0].result['method']})"
        cells = [_cell([run.accuracy(role, column) for run in runs]) for column in reported]
        parameters = runs[0].result[role].get("parameters")
        rows.append([name, *cells, "-" if parameters is None else f"{parameters:,}"])
    spread = ", mean ± standard deviation over seeds" if len(runs) > 1 else ""
    return table(["", *reported, "parameters"], rows, caption=f"{capital(runs[0].metric)}, %{spread}")


def _members_table(runs: Sequence[RunFiles]) -> Markup | None:
    """Of an ensemble: how each teacher validates, and what it weighs; None for a single teacher."""
    members: list[list[dict[str, Any]]] = [(run.result.get("teacher") or {}).get("members", []) for run in runs]
    if not all(members):
        return None
    rows = []
    for place, one in enumerate(members[0]):
        weights = [run[place]["weight"] for run in members]
        rows.append([one["name"], _cell([run[place]["val"] for run in members]), f"{sum(weights) / len(weights):.2f}"])
    metric = capital(runs[0].metric)
    return table(["", "val", "weight"], rows, caption=f"The teacher's members: {metric}, %, and share in its answer")


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return "-"
    middle = f"{100 * sum(known) / len(known):.2f}"
    return middle if len(known) == 1 else f"{middle} ± {100 * pstdev(known):.2f}"


def deploy_section(runs: Sequence[RunFiles]) -> Markup | None:
    """Everyone on other graphs; None where none was named."""
    results = [run.result for run in runs]
    if "deploy" not in results[0]:
        return None
    heads, rows = deploy_rows({"runs": results})
    words = (
        "Nothing was learned from these graphs. The teacher reads their edges, the student features alone: its table "
        "has no row for their nodes."
    )
    return section(
        "Other graphs",
        paragraph(words),
        table(heads, rows, caption=f"{capital(runs[0].metric)} (of two classes: area under the ROC curve), %"),
    )


def groups_section(run: RunFiles) -> Markup:
    """Student, teacher and MLP by degree, by class and by the student's confidence."""
    if run.details is None:
        return section("Where the student loses", absent("breakdown.json, the answers by group of nodes"))
    blocks: list[Markup] = [
        paragraph(
            "Whiskers: 95 % Wilson interval of the student. Hollow marks and grey differences: fewer than "
            f"{FEW} nodes, too few to tell. Degree counts edges from observed nodes.",
            class_="note",
        )
    ]
    parts = run.details["parts"]
    for part, found in parts.items():
        if len(parts) > 1:
            blocks.append(element("h3", f"{part}: {PARTS[part]}, {found['nodes']:,}"))
        if words := reading(part, found):
            blocks.append(paragraph(words))
        kinds = [kind for kind in _KINDS if kind in found["groups"]]
        figures = [_group_chart(part, kind, found["groups"][kind]) for kind in kinds]
        numbers = [_group_table(kind, found["groups"][kind]) for kind in kinds]
        blocks += [_key(run.roles), columns(*figures), details("Show the numbers", *numbers)]
    return section("Where the student loses", *blocks)


_KINDS = {"degree": "By degree", "confidence": "By the student's confidence", "class": "By true class"}


def _key(roles: Sequence[str]) -> Markup:
    """What the marks are, for a chart that has no room to say it at each."""
    signs = (("student", "●"), ("teacher", "◆"), ("mlp", "■"))
    words = [element("span", f"{sign} {ROLES[role]}  ", class_=f"{role}-text") for role, sign in signs if role in roles]
    return element("p", *words, class_="note")


def _group_chart(part: str, kind: str, groups: Sequence[Mapping[str, Any]]) -> Markup:
    shown, note = list(groups), None
    if len(groups) > _MOST_GROUPS:
        shown = sorted(groups, key=lambda one: -one["nodes"])[:_MOST_GROUPS]
        note = f"The {_MOST_GROUPS} with most nodes of {len(groups)}; the numbers below hold all."
    made = [Group(_short_name(kind, one), one["nodes"], one["right"]) for one in shown]
    return group_chart(f"{part}-{kind}", _KINDS[kind], made, note=note)


def _short_name(kind: str, group: Mapping[str, Any]) -> str:
    if kind == "class":
        return str(group["name"])
    low, high = group["low"], group["high"]
    if kind == "degree":
        return str(low) if low == high else f"{low} to {high}"
    return f"{100 * low:.0f} to {100 * high:.0f} %"


def _group_table(kind: str, groups: Sequence[Mapping[str, Any]]) -> Markup:
    roles = [role for role in ("mlp", "teacher", "student") if any(role in one["right"] for one in groups)]
    rows = []
    for one in groups:
        cells = [_with_interval(one["right"][role], one["nodes"]) for role in roles]
        against = [str(one["gained"]), str(one["lost"])] if "gained" in one else []
        rows.append([_short_name(kind, one), f"{one['nodes']:,}", *cells, *against])
    heads = ["", "nodes", *(ROLES[role] for role in roles)]
    heads += ["only student right", "only teacher right"] if "teacher" in roles else []
    return table(heads, rows, caption=f"{_KINDS[kind]}: accuracy in % and 95 % interval")


def _with_interval(right: int, nodes: int) -> str:
    if not nodes:
        return "-"
    low, high = wilson(right, nodes)
    return f"{100 * right / nodes:.1f} ({100 * low:.1f} to {100 * high:.1f})"
