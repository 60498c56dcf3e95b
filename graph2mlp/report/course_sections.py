"""The sections of a run's page that say how it went and how to repeat it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from graph2mlp.report.data import Curve, RunFiles
from graph2mlp.report.lines import Series, curve_chart
from graph2mlp.report.markup import Markup, element
from graph2mlp.report.page import charts, details, facts, paragraph, section, table
from graph2mlp.report.words import ROLES, capital, count, percent, shortened

__all__ = ["about_section", "seeds_section", "training_section"]


def training_section(run: RunFiles) -> Markup:
    """Metric and loss on the validation nodes by epoch, and the terms of the student's loss."""
    blocks: list[Markup] = []
    curves = [one for one in run.curves if one.epochs]
    if not curves:
        blocks.append(
            paragraph("This run folder holds no metrics.jsonl, so its training cannot be shown.", class_="missing")
        )
    if run.unreadable:
        blocks.append(
            paragraph(f"{count(run.unreadable, 'damaged line')} of metrics.jsonl left out.", class_="missing")
        )
    if curves:
        if note := _training_note(run, curves):
            blocks.append(paragraph(note, class_="note"))
        blocks.append(charts(*_training_charts(curves, run.metric)))
    return section("Training", *blocks)


def _training_note(run: RunFiles, curves: Sequence[Curve]) -> str:
    """What the lines do not say themselves."""
    teachers = [one.stage.split()[1] for one in curves if one.role == "teacher" and " " in one.stage]
    notes = ["Large marks: the epoch whose weights were kept."] if any(one.kept for one in curves) else []
    if (run.result.get("teacher") or {}).get("cached"):
        notes.append("The teacher came from the cache of an earlier run, so it has no curve here.")
    if forms := [name for name in teachers if "-" in name]:
        notes.append(f"Of the forms of one teacher ({', '.join(dict.fromkeys(forms))}) the best on validation taught.")
    if any(one.stage == _REFIT for one in curves):
        notes.append(f"'{_STAGES[_REFIT]}' had learned from the validation nodes it is shown on.")
    return " ".join(notes)


_REFIT = "student, validation nodes taught"
_STAGES = ROLES | {"student, first stage": "first stage", _REFIT: "student, refit"}
"""Lines by the stages they are of, short enough to stand beside them."""


def _training_charts(curves: Sequence[Curve], metric: str) -> list[Markup]:
    figures = []
    accuracy = _series(curves, "val")
    if accuracy:
        figures.append(
            curve_chart("val-accuracy", f"Validation {metric}, %", accuracy, x="epoch", form=_percentage, least=0.02)
        )
    loss = _series(curves, "val_loss")
    if loss:
        log = _wide(loss)
        title = "Validation loss" + (", logarithmic" if log else "")
        figures.append(curve_chart("val-loss", title, loss, x="epoch", form=_short, log=log))
    students = [curve for curve in curves if curve.role == "student"]
    for number, curve in enumerate(students, 1):
        terms = [name for name in curve.figures if name not in ("val", "val_loss")]
        if drawn := [one for name in terms if (one := _one(curve, name, name))]:
            log = _wide(drawn)
            which = f" ({_STAGES.get(curve.stage, curve.stage)})" if len(students) > 1 else ""
            title = f"Terms of the student's training loss{which}" + (", logarithmic" if log else "")
            figures.append(curve_chart(f"student-loss-{number}", title, drawn, x="epoch", form=_short, log=log))
    return figures


def _series(curves: Sequence[Curve], figure: str) -> list[Series]:
    """A line for each stage; several teachers have names of their own."""
    several = sum(one.role == "teacher" for one in curves) > 1
    found = []
    # The student before its other stages: the first line of a role is drawn without dashes.
    for curve in sorted(curves, key=lambda one: one.stage.startswith("student, ")):
        name = _STAGES.get(curve.stage, curve.stage.removeprefix("teacher "))
        if curve.role == "teacher" and not several:
            name = ROLES["teacher"]
        if one := _one(curve, figure, shortened(name, 18)):
            found.append(one)
    return found


def _one(curve: Curve, figure: str, name: str) -> Series | None:
    values = curve.figures.get(figure, ())
    points = tuple(
        (float(epoch), value) for epoch, value in zip(curve.epochs, values, strict=False) if math.isfinite(value)
    )
    mark = None if curve.kept is None or figure not in ("val", "val_loss") else float(curve.kept)
    return Series(curve.role, name, points, mark) if points else None


def _wide(series: Sequence[Series]) -> bool:
    """Whether small values would lie on the axis of large ones; never with a value that has no logarithm."""
    values = [value for one in series for _, value in one.points]
    return min(values) > 0 and max(values) > 20 * min(values)


def _percentage(value: float) -> str:
    return f"{100 * value:.4g}" if 100 * value == round(100 * value) else f"{100 * value:.1f}"


def _short(value: float) -> str:
    return f"{value:.3g}"


def seeds_section(runs: Sequence[RunFiles], opened: RunFiles) -> Markup:
    """Every seed with a link to its own page."""
    columns = runs[0].columns
    rows = []
    for run in runs:
        seed = run.result["seed"]
        link = element("a", f"seed {seed}", href=f"seed-{seed}/report.html")
        cells = [
            "-" if (value := run.accuracy(role, column)) is None else f"{100 * value:.2f}"
            for column in columns
            for role in runs[0].roles
        ]
        rows.append([link, f"{100 * run.result['student']['val']:.2f}", *cells])
    head = ["", "student, val", *(f"{ROLES[role]}, {column}" for column in columns for role in runs[0].roles)]
    best = percent(opened.result["student"]["val"])
    words = (
        f"What follows is about seed {opened.result['seed']}, the best on validation ({best}); "
        "it is also the one that export and bench take. The other seeds have pages of their own."
    )
    return section("Seeds", table(head, rows, caption=f"{capital(runs[0].metric)} by seed, %"), paragraph(words))


def about_section(run: RunFiles, *, seeds: int = 1) -> Markup:
    """The command that makes this run again; graph, cost, machine, versions, fingerprints; every setting."""
    result = run.result
    graph = result["graph"]
    columns = count(graph["classes"], run.task.unit, run.task.units)
    size = ", ".join([*(f"{graph[what]:,} {what}" for what in ("nodes", "edges", "features")), columns])
    rows: list[tuple[str, object]] = [("graph", f"{graph['name']}: {size}")]
    rows.append(
        ("method", f"{result['method']}, {result['setting']} setting, {result.get('regime', 'unknown')} regime")
    )
    if teacher := result.get("teacher"):
        origin = "read from a file" if teacher.get("parameters") is None else f"{teacher['parameters']:,} parameters"
        rows.append(("teacher", f"{teacher['name']}, {origin}"))
    for name, words in (("seconds", "wall clock"), ("cpu_seconds", "CPU time")):
        costs = {part: cost for part, cost in (result.get(name) or {}).items() if teacher or part != "teacher"}
        if cost := _listed(costs, unit=" s"):
            rows.append((words, cost))
    if "epochs" in result["student"]:
        rows.append(("student trained", count(result["student"]["epochs"], "epoch")))
    memory = result.get("peak_rss_mb")
    if memory is not None:
        rows.append(("peak memory", f"{memory:,.0f} MB, the whole process"))
    if "threads" in result:
        rows.append(("threads", str(result["threads"])))
    if "device" in result:
        rows.append(("networks learned on", str(result["device"])))
    machine = result.get("machine")
    rows.append(("machine", _listed(machine) if machine else "not noted by this version of the run"))
    rows.append(("versions", _listed(result.get("versions"))))
    rows += [
        (f"fingerprint of the {what}", element("code", result[key])) for what, key in _FINGERPRINTS if key in result
    ]
    where, command = _again(run, seeds)
    settings = element("pre", element("code", _settings(run.settings)))
    return section(
        "How it was made",
        paragraph(where),
        element("pre", element("code", command)),
        facts(rows),
        details("Show every setting", settings),
    )


def _again(run: RunFiles, seeds: int) -> tuple[str, str]:
    """Where to stand, and the command that makes the run again; code of the user's is named, or it would not run."""
    teacher = run.settings.get("teacher", {}) if run.result.get("teacher") else {}
    module, weights = str(teacher.get("module") or ""), str(teacher.get("weights") or "")
    command = ["graph2mlp", "distill", str(run.settings.get("graph", run.result["graph"]["name"]))]
    where = "In this folder, with the same versions, this makes the run again:"
    if module:
        place = module.split(":")[0]
        where = (
            "Its teacher is code of your own, which must be named to run. Where Python can import "
            f"'{place}' (in its folder, or with that in PYTHONPATH), with the path of this run's folder in place of "
            "RUN and with the same versions, this makes the run again:"
        )
        command += ["--config", "RUN/config.toml", "--teacher-module", module]
    else:
        command += ["--config", "config.toml", *(["--teacher-weights", weights] if weights else [])]
    for file in run.knowledge:
        command += ["--knowledge", f"knowledge/{file}"]
    command += ["--seeds", str(seeds)] if seeds > 1 else []
    return where, shlex.join([*command, "--out", "again"])


_FINGERPRINTS = (("student", "fingerprint"), ("graph", "graph_fingerprint"))


def _listed(values: Mapping[str, Any] | None, *, unit: str = "") -> str:
    kept = {name: value for name, value in (values or {}).items() if value is not None}
    return ", ".join(
        f"{name} {value:.1f}{unit}" if isinstance(value, float) else f"{name} {value}" for name, value in kept.items()
    )


def _settings(settings: Mapping[str, Any]) -> str:
    """As `--set` takes them, one in a line."""
    lines = []
    for key, value in settings.items():
        if isinstance(value, dict):
            lines += [f"{key}.{name} = {one}" for name, one in value.items()]
        else:
            lines.append(f"{key} = {value}")
    return "\n".join(lines)
