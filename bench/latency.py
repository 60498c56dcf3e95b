"""Latency of exported students beside their teachers: `python -m bench.latency`.

For each case, a graph and a teacher: distill (seed 0, all defaults but the teacher), export, then measure the bundle,
the torch student, the plain MLP and the teacher's four ways of answering in one interleaved run; and the rate of random
arrivals that each of them bears. Writes one CSV with the machine in every row; `--cases` measures some of them again
and keeps the others' rows.

The teachers differ in how far they see: `sage` and `gat` two hops, `appnp` ten, an ensemble as far as its farthest.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path

from graph2mlp.atomic import atomic_path
from graph2mlp.config import resolve_config
from graph2mlp.console import Reporter, show
from graph2mlp.distill import distill
from graph2mlp.export.deploy import export_run
from graph2mlp.latency.bench import bench_bundles
from graph2mlp.latency.rows import write_bench_csv
from graph2mlp.latency.summary import bench_tables

RESULTS = Path(__file__).parent / "results"
CASES = (
    "digits=sage",
    "cpf:cora=sage",
    "cpf:cora=gat",
    "cpf:cora=appnp",
    "cpf:cora=appnp+gcn+sage",
    "cpf:citeseer=sage",
    "amazon:Computers=sage",
)

Rows = list[dict[str, str]]


def main() -> None:
    """Measure every case and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default=",".join(CASES), help="GRAPH=TEACHER, separated by commas")
    parser.add_argument("--batches", default="1,64,1024")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--slo-p99-us", type=float, default=2000.0, help="promise of the server scenario; 0: skip it")
    parser.add_argument("--cold-starts", type=int, default=3)
    parser.add_argument("--root", default=None)
    parser.add_argument("--csv", type=Path, default=RESULTS / "latency.csv")
    given = parser.parse_args()
    cases = given.cases.split(",")
    rows = _kept(given.csv, without=cases)
    for case in cases:
        rows += measure_case(case, given)
        write_rows(given.csv, rows)


def measure_case(case: str, given: argparse.Namespace) -> Rows:
    """The rows of one graph and teacher, as text."""
    graph, teacher = case.split("=")
    reporter = Reporter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = resolve_config(graph=graph, teacher=teacher, root=given.root)
        run = distill(config, folder / "run", reporter=reporter)
        reporter.say(f"{case}: {export_run(run, out=folder / 'bundle').summary()}")
        found = bench_bundles(
            [folder / "bundle"],
            batches=[int(size) for size in given.batches.split(",")],
            seconds=given.seconds,
            against=run,
            slo_p99_us=given.slo_p99_us or None,
            cold_starts=given.cold_starts,
        )
        for table in bench_tables(found):
            show(table)
        write_bench_csv(folder / "rows.csv", found, bundle=graph)
        with (folder / "rows.csv").open(encoding="utf-8", newline="") as file:
            rows = [dict(row) for row in csv.DictReader(file)]
        about = {"graph": graph, "teacher": teacher, "hops": str(run.teacher().hops)}
    # The bundle was in a folder that is gone; the checksum of its model stays.
    return [about | {key: value for key, value in row.items() if key != "bundle"} for row in rows]


def write_rows(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """All rows, in one step, in the order of `CASES`."""
    order = {case: number for number, case in enumerate(CASES)}
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: order.get(_case(row), len(order))))


def _kept(path: Path, *, without: Sequence[str]) -> Rows:
    """Rows of an earlier run of cases that are not measured now."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [dict(row) for row in csv.DictReader(file) if "teacher" in row and _case(row) not in without]


def _case(row: dict[str, str]) -> str:
    return f"{row['graph']}={row['teacher']}"


if __name__ == "__main__":
    main()
