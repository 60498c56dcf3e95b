"""The page of a run, of one seed or several."""

from __future__ import annotations

from collections.abc import Sequence

from graph2mlp.report.course_sections import about_section, seeds_section, training_section
from graph2mlp.report.data import RunFiles
from graph2mlp.report.error_sections import calibration_section, confusion_section
from graph2mlp.report.markup import element
from graph2mlp.report.page import page, paragraph
from graph2mlp.report.run_sections import (
    accuracy_section,
    advice_section,
    deploy_section,
    groups_section,
    key_section,
)
from graph2mlp.report.verdict import headline, verdict

__all__ = ["run_html"]


def run_html(runs: Sequence[RunFiles]) -> str:
    """The page as text. Of several seeds it has the means, and the details of the best on validation."""
    result = runs[0].result
    opened = max(runs, key=lambda run: float(run.result["student"]["val"]))
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else f"seed {result['seed']}"
    name = f"{result['graph']['name']}, {result['method']}"
    return page(
        f"graph2mlp: {name}, {result['setting']}, {seeds}",
        paragraph(f"graph2mlp run · {name} · {result['setting']} setting · {seeds}", class_="kicker"),
        element("h1", headline(runs)),
        *(paragraph(words, class_="lead") for words in verdict(runs)),
        key_section(runs),
        advice_section(runs),
        accuracy_section(runs),
        deploy_section(runs),
        seeds_section(runs, opened) if len(runs) > 1 else None,
        *((groups_section(opened), calibration_section(opened), confusion_section(opened)) if opened.counted else ()),
        training_section(opened),
        about_section(opened, seeds=len(runs)),
    )
