"""The tables that end a command."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.table import Table

from graph2mlp.console import table
from graph2mlp.tasks import CLASSIFICATION

if TYPE_CHECKING:
    from graph2mlp.export.auto import Choice

__all__ = ["deploy_rows", "deploy_table", "metric_of", "preset_table", "result_line", "result_table"]

_SETTINGS = ("test", "tran", "ind", "prod", "cold")


def result_line(result: dict[str, Any]) -> str:
    """One run in one line."""
    key = "test" if "test" in result["student"] else "prod"
    scores = {part: (result[part] or {}).get(key) for part in ("teacher", "mlp", "student")}
    parts = [f"{part} {100 * score:.2f} %" for part, score in scores.items() if score is not None]
    return f"seed {result['seed']}: {key} {metric_of(result)}: {', '.join(parts)}"


def result_table(result: dict[str, Any]) -> Table:
    """Teacher, plain MLP and student side by side; mean and deviation for several seeds."""
    many = "runs" in result
    first = result["runs"][0] if many else result
    means = result["mean"] if many else result
    spread = result.get("std", {})
    columns = [key for key in ("val", *_SETTINGS) if key in first["student"]]
    teacher = first["teacher"]
    rows = []
    for part, name in (
        ("teacher", f"teacher ({teacher['name']})" if teacher else ""),
        ("mlp", "plain MLP"),
        ("student", f"student ({first['method']})"),
    ):
        values = means.get(part)
        if not values:
            continue
        cells = [_percent(values.get(key), spread.get(part, {}).get(key)) for key in columns]
        parameters = first[part].get("parameters")
        rows.append([name, *cells, f"{parameters:,}" if parameters else "-"])
    graph = first["graph"]
    seeds = f"{len(result['runs'])} seeds, mean ± deviation" if many else f"seed {first['seed']}"
    title = f"{graph['name']}, {first['setting']}, {seeds}: {metric_of(first)} in %"
    student = first["student"]
    note = f"student: {first['regime']} regime, {student['layers']} layers, {student['hidden']} wide"
    return table(title, ["", *columns, "parameters"], rows, note=note)


def deploy_table(result: dict[str, Any]) -> Table:
    """Everyone on the graphs of `--deploy`: the metric, of two classes also the area under the ROC curve."""
    columns, rows = deploy_rows(result)
    note = "Nothing was learned from these graphs. The teacher reads their edges, the student features alone."
    return table(f"Other graphs: {metric_of(result)} (of two classes: ROC AUC) in %", columns, rows, note=note)


def metric_of(result: Mapping[str, Any]) -> str:
    """What the figures of a result are; of several seeds, that of the first."""
    return str(result.get("runs", [result])[0].get("metric", CLASSIFICATION.metric))


def deploy_rows(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of a table of the graphs of `--deploy`; means over the seeds of several runs."""
    runs = result.get("runs", [result])
    first = runs[0]["deploy"]
    who = [one for one in ("teacher", "mlp", "student") if one in first[0]]
    rows = []
    for place, other in enumerate(first):
        cells = [other["graph"], f"{other['nodes']:,}", f"{100 * other['majority']:.2f}"]
        for one in who:
            seen = [run["deploy"][place][one] for run in runs]
            words = f"{100 * fmean(each['accuracy'] for each in seen):.2f}"
            if all("auc" in each for each in seen):
                words += f" ({100 * fmean(each['auc'] for each in seen):.2f})"
            cells.append(words)
        rows.append(cells)
    names = {"teacher": "teacher", "mlp": "plain MLP", "student": "student"}
    return ["graph", "nodes", "one answer for all", *(names[one] for one in who)], rows


def _percent(value: float | None, spread: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f}" + (f" ± {100 * spread:.2f}" if spread is not None else "")


def preset_table(choice: Choice) -> Table:
    """What every preset costs and keeps on this machine, which one was kept, and why."""
    from graph2mlp.measure import environment

    batches = sorted({batch for trial in choice.trials for batch in trial.latency})
    kind = choice.winner.manifest.kind
    cells = []
    notes = [f"kept: {choice.reason}"]
    for trial in choice.trials:
        times = [f"{trial.latency[batch].p50_us:.1f}" if batch in trial.latency else "-" for batch in batches]
        kept = trial.preset == choice.winner.preset.name
        status = "kept" if kept else trial.status if trial.passed else "refused"
        size = "-" if trial.bytes is None else f"{trial.bytes / 1024:.0f}"
        shares = ["-" if value is None else f"{100 * value:.2f}" for value in (trial.accuracy, trial.agreement)]
        cells.append([trial.preset, *times, size, *shares, status])
        if not trial.passed:
            notes.append(f"{trial.preset}: {trial.status}")
    notes.append(f"agree: {kind.same.format('the network')}; both on validation nodes, in %")
    notes.append(f"p50 in us per call, one thread, {environment()['cpu']}; took {choice.seconds:.1f} s")
    columns = ["preset", *(f"batch {batch}" for batch in batches), "KiB", f"val {kind.metric}", "agree", ""]
    return table("Presets on this machine", columns, cells, note="\n".join(notes))
