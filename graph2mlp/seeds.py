"""Several seeds of one configuration: a folder per seed, and their mean and deviation."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from graph2mlp.advice import seeds_advice
from graph2mlp.atomic import write_json
from graph2mlp.config import RunConfig
from graph2mlp.console import Reporter
from graph2mlp.device import CPU
from graph2mlp.distill import distill, read_inputs
from graph2mlp.report import write_report
from graph2mlp.result_file import SCHEMA
from graph2mlp.run_folder import check_folder, claim_folder, keep_if_resumable, locked_folder
from graph2mlp.summary import result_line

__all__ = ["distill_seeds", "summarise"]


def distill_seeds(
    config: RunConfig,
    seeds: int,
    out: Path,
    *,
    knowledge_files: Sequence[Path] = (),
    reporter: Reporter,
    force: bool = False,
    resume: bool = False,
    device: torch.device = CPU,
) -> dict[str, Any]:
    """Seeds 0 to `seeds - 1` into `out/seed-<n>`; the summary is written to `out/result.json` when all are done."""
    config = replace(config, seed=0)
    check_folder(out, config, force=force, resume=resume, several=True)
    with locked_folder(out):
        read_inputs(config, knowledge_files)
        new = claim_folder(out, config, force=force, resume=resume, several=True)
        runs: list[dict[str, Any]] = []
        for seed in range(seeds):
            folder, one = out / f"seed-{seed}", replace(config, seed=seed)
            with keep_if_resumable(out, new=new and not runs):  # only a failure at the start leaves nothing behind
                how: dict[str, Any] = {"knowledge_files": knowledge_files, "reporter": reporter, "device": device}
                run = distill(one, folder, **how, resume=True)
            reporter.say(result_line(run.result))
            runs.append(run.result)
        summary = summarise(runs)
        write_json(out / "result.json", summary)
        write_report(out)
        return summary


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`{"schema", "runs", "mean", "std", "advice"}`: mean and population deviation of every number that varies."""
    parts = ("teacher", "student", "mlp", "seconds", "cpu_seconds")
    kept = {part: [run[part] for run in runs] for part in parts if all(run[part] is not None for run in runs)}
    return {
        "schema": SCHEMA,
        "runs": list(runs),
        "mean": {part: _each(values, statistics.fmean) for part, values in kept.items()},
        "std": {part: _each(values, statistics.pstdev) for part, values in kept.items()},
        "advice": seeds_advice(runs),
    }


def _each(values: Sequence[dict[str, Any]], statistic: Callable[[list[float]], float]) -> dict[str, float]:
    """The statistic of every key whose values are numbers in all runs."""
    numeric = {
        key
        for key in values[0]
        if all(isinstance(value.get(key), int | float) and not isinstance(value.get(key), bool) for value in values)
    }
    return {key: statistic([float(value[key]) for value in values]) for key in values[0] if key in numeric}
