"""The tables that end a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from graph2mlp.console import table

if TYPE_CHECKING:
    from graph2mlp.export.auto import Choice

__all__ = ["preset_table", "result_line", "result_table"]

_SETTINGS = ("test", "tran", "ind", "prod", "cold")


def result_line(result: dict[str, Any]) -> str:
    """One run in one line."""
    key = "test" if "test" in result["student"] else "prod"
    scores = {part: (result[part] or {}).get(key) for part in ("teacher", "mlp", "student")}
    parts = [f"{part} {100 * score:.2f} %" for part, score in scores.items() if score is not None]
    return f"seed {result['seed']}: {key} accuracy: {', '.join(parts)}"


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
    title = f"{graph['name']}, {first['setting']}, {seeds}: accuracy in %"
    student = first["student"]
    note = f"student: {first['regime']} regime, {student['layers']} layers, {student['hidden']} wide"
    return table(title, ["", *columns, "parameters"], rows, note=note)


def _percent(value: float | None, spread: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f}" + (f" ± {100 * spread:.2f}" if spread is not None else "")


def preset_table(choice: Choice) -> Table:
    """What every preset costs and keeps on this machine, which one was kept, and why."""
    from graph2mlp.measure import environment

    batches = sorted({batch for trial in choice.trials for batch in trial.latency})
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
    notes.append(f"p50 in us per call, one thread, {environment()['cpu']}; took {choice.seconds:.1f} s")
    columns = ["preset", *(f"batch {batch}" for batch in batches), "KiB", "val acc", "agree %", ""]
    return table("Presets on this machine", columns, cells, note="\n".join(notes))
