"""Learn from one country, answer in the others: `python -m bench.twitch`.

Nothing of the other graphs reaches training, and none of their nodes has a row in the structure table, so a student is
asked by features alone while its teacher reads their edges. One CSV row per run and country; the first is the country
that was learned from, and its test nodes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.accuracy import RESULTS, Job, add_job_options, commit, jobs_of, run_missing, trained_run
from bench.rows import RowFile
from graph2mlp.console import Reporter
from graph2mlp.data.twitch import COUNTRIES
from graph2mlp.errors import Graph2MLPError

KEYS = ("graph", "setting", "method", "teacher", "seed", "settings", "asked")
FIGURES = (
    "nodes",
    "majority",
    *(f"{who}_{what}" for who in ("teacher", "mlp", "student") for what in ("accuracy", "auc")),
)
COLUMNS = (*KEYS, *FIGURES, "agreement", "regime", "layers", "hidden", "parameters", "commit")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the CSV does not hold yet; 1 when a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learn", default="DE", choices=COUNTRIES)
    add_job_options(parser, methods="blend,blend_features,glnn", seeds=3, csv=RESULTS / "twitch.csv")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    others = [f"twitch:{country}" for country in COUNTRIES if country != given.learn]
    try:
        axes = (f"twitch:{given.learn}", "transductive", given.methods, given.teachers)
        jobs = jobs_of(*axes, given.seeds, root=given.root, overrides=given.set, deploy=others)
        first = {"asked": f"twitch:{given.learn}"}
        return min(1, run_missing(jobs, twitch_file(given.csv), Reporter(), measure=twitch_rows, first=first))
    except Graph2MLPError as error:
        Reporter().say(f"Error: {error}")
        return 1


def twitch_file(path: Path) -> RowFile:
    """The table in `path`."""
    numbers = frozenset({*FIGURES, "agreement", "layers", "hidden", "parameters"})
    return RowFile(path=path, columns=COLUMNS, keys=KEYS, numbers=numbers)


def twitch_rows(job: Job) -> list[dict[str, Any]]:
    """Train one run; what everyone makes of each country."""
    with trained_run(job.config) as run:
        result = run.result
        labels = run.graph().y[run.graph().split.test]
    student = result["student"]
    common = {
        **job.names,
        "regime": result["regime"],
        **{name: student[name] for name in ("layers", "hidden", "parameters")},
        "commit": commit(),
    }
    home = {
        "asked": job.config.graph,
        "nodes": len(labels),
        "majority": float(torch.bincount(labels).max()) / len(labels),
        "agreement": student["agreement"],
        **{f"{who}_accuracy": result[who]["test"] for who in ("teacher", "mlp", "student")},
    }
    rows = [home]
    for other in result["deploy"]:
        figures = {f"{who}_{what}": x for who in ("teacher", "mlp", "student") for what, x in other[who].items()}
        rows.append(
            {"asked": other["graph"], **{name: other[name] for name in ("nodes", "majority", "agreement")}, **figures}
        )
    return [common | {name: round(x, 5) if isinstance(x, float) else x for name, x in row.items()} for row in rows]


if __name__ == "__main__":
    raise SystemExit(main())
