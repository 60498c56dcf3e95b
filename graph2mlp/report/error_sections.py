"""The sections of a run's page about how it errs: too sure or too modest, and what for what."""

from __future__ import annotations

from collections.abc import Sequence

from graph2mlp.report.data import RunFiles
from graph2mlp.report.lines import reliability_chart
from graph2mlp.report.markup import Markup, element
from graph2mlp.report.page import absent, beside, charts, paragraph, section, table, tabular
from graph2mlp.report.words import PARTS, ROLES, percent, points
from graph2mlp.significance import calibration_error

__all__ = ["calibration_section", "confusion_section"]


def calibration_section(run: RunFiles) -> Markup:
    """Is a network as often right as it says?"""
    title = "Calibration"
    if run.details is None:
        return section(title, absent("breakdown.json, the confidences"))
    rows: list[list[str]] = []
    figures = []
    parts = run.details["parts"]
    for part, found in parts.items():
        bins = found["calibration"]
        shown = {role: bins[role] for role in ("teacher", "student") if role in bins}
        name = "Right answers over confidence, %" + (f" ({part})" if len(parts) > 1 else "")
        figures.append(reliability_chart(f"{part}-calibration", name, shown))
        for role in ("mlp", "teacher", "student"):
            if role in bins and found["nodes"]:
                sure = sum(one["confidence"] * one["nodes"] for one in bins[role]) / found["nodes"]
                right = found["right"][role] / found["nodes"]
                name = ROLES[role] + (f", {part}" if len(parts) > 1 else "")
                rows.append(
                    [name, percent(calibration_error(bins[role])), percent(sure), percent(right), points(sure - right)]
                )
    columns = ["", "ECE", "confidence", "accuracy", "difference"]
    words = (
        "On the dashed line a network is right as often as it says; above it, it is too modest, below too sure. "
        "Ten bins; hollow marks hold fewer than 10 nodes; the whisker is the student's 95 % interval. ECE, the "
        "expected calibration error, is the mean distance from that line."
    )
    pair = beside if len(figures) == 1 else charts
    return section(title, paragraph(words, class_="note"), pair(*figures, table(columns, rows, caption="By how much")))


def confusion_section(run: RunFiles) -> Markup | None:
    """What the student takes for what; nothing for graphs of many classes."""
    if run.details is None:
        return None
    matrices = [
        _matrix(part, run.details["classes"], found["confusion"])
        for part, found in run.details["parts"].items()
        if found["confusion"] is not None
    ]
    if not matrices:
        return None
    words = "Rows: true class; columns: the student's answer; numbers of test nodes, shaded by their share of the row."
    return section("Which classes it confuses", paragraph(words, class_="note"), beside(*matrices))


def _matrix(part: str, names: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    # Long names stand upright: a matrix is read by its columns, which must stay narrow.
    upright = "tall" if max(map(len, names)) > 3 else None
    heads = [element("th", element("span", name, class_=upright), scope="col", title=name) for name in names]
    rows = []
    for number, (name, row) in enumerate(zip(names, counts, strict=True)):
        total = sum(row) or 1
        cells = [_matrix_cell(value, value / total, column == number) for column, value in enumerate(row)]
        rows.append(element("tr", element("th", name, scope="row", title=name), *cells))
    head = element("thead", element("tr", element("td", ""), *heads))
    inside = element("table", head, element("tbody", *rows), class_="matrix")
    return tabular(inside, caption=PARTS[part].capitalize())


def _matrix_cell(value: int, share: float, right: bool) -> Markup:
    if not value:
        return element("td", "·", class_="none")
    # Never so dark that the number on it is hard to read.
    return element("td", f"{value}", class_="right" if right else "wrong", style=f"--share:{8 + 27 * share:.0f}%")
