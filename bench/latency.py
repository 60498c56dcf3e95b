"""Latency of exported students beside their teachers: `python -m bench.latency`.

For each graph: distill (seed 0, all defaults), export, then measure bundle, torch student, plain MLP and the teacher's
three ways of answering in one interleaved run. Writes one CSV with the machine in every row.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

from graph2mlp.atomic import atomic_path
from graph2mlp.config import resolve_config
from graph2mlp.console import Reporter, show
from graph2mlp.distill import distill
from graph2mlp.export.deploy import export_run
from graph2mlp.latency import bench_bundle
from graph2mlp.latency_rows import write_bench_csv
from graph2mlp.summary import latency_table

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure every graph and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", default="digits,cpf:cora,cpf:citeseer")
    parser.add_argument("--batches", default="1,64,1024")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--root", default=None)
    parser.add_argument("--csv", type=Path, default=RESULTS / "latency.csv")
    given = parser.parse_args()
    rows: list[dict[str, str]] = []
    for graph in given.graphs.split(","):
        rows += measure_graph(graph, [int(size) for size in given.batches.split(",")], given.seconds, given.root)
    given.csv.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(given.csv) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def measure_graph(graph: str, batches: list[int], seconds: float, root: str | None) -> list[dict[str, str]]:
    """The rows of one graph, as text."""
    reporter = Reporter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = distill(resolve_config(graph=graph, root=root), folder / "run", reporter=reporter)
        reporter.say(export_run(run, out=folder / "bundle").summary())
        rows = bench_bundle(folder / "bundle", batches=batches, seconds=seconds, against=run)
        show(latency_table(rows))
        write_bench_csv(folder / "rows.csv", rows, bundle=graph)
        with (folder / "rows.csv").open(encoding="utf-8", newline="") as file:
            return [{"graph": row.pop("bundle"), **row} for row in csv.DictReader(file)]


if __name__ == "__main__":
    main()
