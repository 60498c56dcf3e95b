"""Accuracy of teachers and students over seeds: `python -m bench.accuracy --graphs cpf:cora --methods glnn,nosmog`.

One CSV row per run; rows that are there already are not run again, so an interrupted table goes on where it stopped.
Several processes may fill one file, or files of their own that `--merge` joins. The summary at the end (alone with
`--summary`) compares every method with a baseline and with its own teacher, seed by seed. `--full` is every method on
the four CPF graphs in both settings, hours; `--part 1/2` and `--part 2/2` share any table out to two processes, which
may fill one file. `--quick` takes minutes: two graphs, the main methods, two seeds, into a file that is thrown away
unless `--csv` names one.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from bench.comparison import summary
from bench.rows import RowFile
from graph2mlp.config import RunConfig, resolve_config
from graph2mlp.console import Reporter
from graph2mlp.distill import distill
from graph2mlp.errors import DataError, Graph2MLPError
from graph2mlp.methods import METHODS, method_class
from graph2mlp.run import Run

RESULTS = Path(__file__).parent / "results"
PARTS = ("test", "tran", "ind", "prod", "cold")
FIGURES = (
    "val",
    *(f"{who}_{part}" for who in ("teacher", "mlp", "student") for part in PARTS),
    "agreement",
    "cpu_s_teacher",
    "cpu_s_structure",
    "cpu_s_student",
)
SHOWN = ("teacher_", "student_")
"""Columns whose figures are said when a run is done."""
KEYS = ("graph", "setting", "method", "teacher", "seed")
COLUMNS = (*KEYS, "regime", "layers", "hidden", "parameters", *FIGURES, "settings", "commit", "torch")
QUICK = {"graphs": "digits,cpf:cora", "settings": "production", "methods": "blend,nosmog,glnn", "seeds": 2}
FULL = {
    "graphs": "cpf:cora,cpf:citeseer,cpf:a-computer,cpf:a-photo",
    "methods": ",".join(method for method in METHODS if method != "mlp"),  # every run trains the plain MLP beside it
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: its settings, and how the table names it."""

    config: RunConfig
    changed: str
    """The `--set` texts, sorted."""

    @property
    def names(self) -> dict[str, str]:
        """The columns that tell this run from others."""
        config = self.config
        teacher = config.teacher.name if config.hyper.needs_teacher else ""
        values = (config.graph, config.setting, config.method, teacher, str(config.seed))
        return dict(zip(KEYS, values, strict=True)) | {"settings": self.changed}


Measure = Callable[[Job], list[dict[str, Any]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every combination that the CSV does not hold yet, then print the summary; 1 when a run failed."""
    given = _arguments(arguments)
    try:
        baseline = baseline_of(given.baseline)  # first, so that a wrong name costs nothing
        with _csv(given) as path:
            rows = accuracy_file(path)
            failed = 0
            if given.merge is not None:
                print(f"{path}: {rows.merge(given.merge)} rows")
            elif not given.summary:
                torch.set_num_threads(1)  # CPU seconds then compare between machines
                failed = run_missing(_jobs(given), rows, Reporter())
            if given.merge is None:
                print(summary(rows.read(), baseline))
    except Graph2MLPError as error:
        Reporter().say(f"Error: {error}")
        return 1
    return min(failed, 1)


def accuracy_file(path: Path) -> RowFile:
    """The table of accuracies in `path`."""
    numbers = frozenset((*FIGURES, "layers", "hidden", "parameters"))
    optional = frozenset({"cpu_s_teacher"})
    return RowFile(path=path, columns=COLUMNS, keys=(*KEYS, "settings"), numbers=numbers, optional=optional)


def baseline_of(text: str) -> tuple[str, str]:
    """Method and teacher of `METHOD` (its own teacher) or `METHOD:TEACHER`."""
    method, _, teacher = text.partition(":")
    config = resolve_config(graph="digits", method=method, teacher=teacher or None)
    return method, config.teacher.name if config.hyper.needs_teacher else ""


def accuracy_rows(job: Job) -> list[dict[str, Any]]:
    """Train one run; its figures as one CSV row."""
    with trained_run(job.config) as run:
        result = run.result
    student, cost = result["student"], result["cpu_seconds"]
    row: dict[str, Any] = {
        **job.names,
        "regime": result["regime"],
        **{name: student[name] for name in ("layers", "hidden", "parameters")},
        "val": _round(student["val"]),
        "agreement": _round(student["agreement"]),
        "commit": commit(),
        "torch": result["versions"]["torch"],
    }
    for stage in ("teacher", "structure", "student"):
        row[f"cpu_s_{stage}"] = "" if cost[stage] is None else round(cost[stage], 2)
    for who in ("teacher", "mlp", "student"):
        row |= {f"{who}_{part}": _round((result[who] or {}).get(part)) for part in PARTS}
    return [row]


def run_missing(
    jobs: Sequence[Job],
    rows: RowFile,
    reporter: Reporter,
    *,
    measure: Measure = accuracy_rows,
    first: Mapping[str, str] | None = None,
) -> int:
    """Run what `rows` lacks, one line per run; returns how many failed. A graph that cannot be read fails once.

    `measure` gives the rows of a run, which are added at once; `first` tells the first of them from the others.
    """
    commit()  # now: what is edited while this runs is not what runs
    unreadable: dict[tuple[str, str], str] = {}
    failed = 0
    for job in jobs:
        config, names = job.config, job.names
        place = (config.graph, config.setting)
        # Read anew each time: another process may have made this row meanwhile.
        if place in unreadable or rows.key({**names, **(first or {})}) in {rows.key(row) for row in rows.read()}:
            continue
        title = " ".join(filter(None, [*place, names["method"], names["teacher"], f"seed {config.seed}", job.changed]))
        try:
            made = measure(job)
        except DataError as error:
            unreadable[place] = str(error)
            failed += 1
            if list(unreadable.values()).count(str(error)) == 1:  # both settings fail alike when the file is missing
                reporter.say(f"{config.graph}: skipped. {error}")
        except Exception as error:  # one broken method must not cost the rest of a table of hours
            failed += 1
            reporter.say(f"{title}: FAILED, {type(error).__name__}: {next(iter(str(error).splitlines()), '')}")
        else:
            rows.append(made)
            figures = {name: made[0].get(name, "") for name in rows.columns if name in rows.numbers}
            shown = ", ".join(f"{name} {x}" for name, x in figures.items() if name.startswith(SHOWN) and x != "")
            reporter.say(f"{title}: {shown}")
    return failed


@contextmanager
def trained_run(config: RunConfig) -> Iterator[Run]:
    """A finished run of `config` in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        yield distill(config, Path(folder) / "run", reporter=Reporter(quiet=True))


def jobs_of(graphs: str, settings: str, methods: str, teachers: str, seeds: int, **common: Any) -> list[Job]:
    """Every combination of the comma-separated names, seeds last; `common` goes to `resolve_config`.

    Raises:
        ConfigError: a method, teacher, setting or override is unknown.
    """
    axes = itertools.product(*(axis.split(",") for axis in (graphs, settings, methods, teachers)), range(seeds))
    changed = " ".join(sorted(common.get("overrides", ())))
    jobs = {}
    for graph, setting, method, teacher, seed in axes:
        names: dict[str, Any] = {
            "graph": graph,
            "setting": setting,
            "method": method,
            "teacher": teacher if teacher and method_class(method).needs_teacher else None,
            "seed": seed,
        }
        job = Job(config=resolve_config(**names, **common), changed=changed)
        jobs[tuple(job.names.values())] = job  # a method without teacher appears once, however many are named
    return list(jobs.values())


@cache
def commit() -> str:
    """The commit the figures belong to, marked when files differed from it when this was first asked."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    folder = Path(__file__).parent
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout.strip()


def add_job_options(parser: argparse.ArgumentParser, *, methods: str, seeds: int, csv: Path | None) -> None:
    """The options that every script of runs has; `csv` is the file it fills."""
    parser.add_argument("--methods", default=methods)
    parser.add_argument("--teachers", default="", help="each method's own unless named")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--set", action="append", default=[], metavar="GROUP.KEY=VALUE")
    parser.add_argument("--root", default=None)
    parser.add_argument("--csv", type=Path, default=csv, help="file of the rows; default: one in bench/results")


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", default="digits,cpf:cora,cpf:citeseer")
    parser.add_argument("--settings", default="transductive,production")
    add_job_options(parser, methods="blend,nosmog,glnn,lsp,gsp,g_crd,gsdn", seeds=10, csv=None)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="two graphs, the main methods, two seeds: minutes")
    size.add_argument("--full", action="store_true", help="every method on the four CPF graphs: hours")
    parser.add_argument("--part", type=_part, default=(1, 1), metavar="K/N", help="every N-th run, from the K-th on")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--baseline", default="glnn", metavar="METHOD[:TEACHER]", help="what all are compared with")
    parser.add_argument("--merge", type=Path, nargs="*", metavar="CSV", help="add the rows of these files to --csv")
    given = parser.parse_args(arguments)
    parser.set_defaults(**(QUICK if given.quick else FULL if given.full else {}))
    return parser.parse_args(arguments)


def _part(text: str) -> tuple[int, int]:
    """K and N of `K/N`."""
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise argparse.ArgumentTypeError(f"expected K/N with K from 1 to N, for example 1/2 (got {text})")
    return int(number), int(parts)


@contextmanager
def _csv(given: argparse.Namespace) -> Iterator[Path]:
    """The file to fill; of `--quick` without `--csv` one that is thrown away, so that it measures the code of now."""
    if given.csv or not given.quick:
        yield given.csv or RESULTS / "accuracy.csv"
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "quick.csv"


def _jobs(given: argparse.Namespace) -> list[Job]:
    axes = (given.graphs, given.settings, given.methods, given.teachers)
    number, parts = given.part
    return jobs_of(*axes, given.seeds, root=given.root, overrides=given.set)[number - 1 :: parts]


def _round(value: float | None) -> float | str:
    return "" if value is None else round(value, 5)


if __name__ == "__main__":
    raise SystemExit(main())
