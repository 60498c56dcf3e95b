"""`make demo`: the main job on a small real graph, and a table that makes the point at a glance."""

from __future__ import annotations

import os
import time
from pathlib import Path

from graph2mlp.config import resolve_config
from graph2mlp.console import Reporter, show, table
from graph2mlp.distill import distill
from graph2mlp.export.deploy import export_run
from graph2mlp.latency.bench import bench_bundle
from graph2mlp.latency.rows import FETCH, MLP, RUN_ONLY, TORCH, Row
from graph2mlp.run import Run

__all__ = ["main"]

OUT = Path("runs/demo")


def main() -> None:
    """Distill `digits`, export it, measure it against its teacher, and print one table."""
    started = time.perf_counter()
    reporter = Reporter()
    config = resolve_config(graph="digits", method="nosmog")
    reporter.say("1/3 distill   graph2mlp distill digits --method nosmog --out runs/demo")
    run = distill(config, OUT, reporter=reporter, force=True)
    reporter.say("2/3 export    graph2mlp export runs/demo --onnx")
    summary = export_run(run, out=OUT / "bundle")
    reporter.say(f"              {summary.summary()}")
    reporter.say("3/3 measure   graph2mlp bench runs/demo/bundle --against runs/demo --batch 1")
    with reporter.work("measuring"):
        rows = bench_bundle(OUT / "bundle", batches=(1,), seconds=1.0, against=run)
    show(_table(run, {row.what: row for row in rows}, summary.metrics["test"]))
    reporter.say(f"Done in {time.perf_counter() - started:.0f} s. Everything is in {OUT}{os.sep}.")


def _table(run: Run, rows: dict[str, Row], exported: float) -> object:
    result = run.result
    student, teacher = result["student"], result["teacher"]
    lines = [
        ("teacher, fetches neighbours", teacher["test"], teacher["parameters"], rows[FETCH]),
        ("plain MLP, torch", result["mlp"]["test"], result["mlp"]["parameters"], rows[MLP]),
        ("student, torch", student["test"], student["parameters"], rows[TORCH]),
        ("student, exported file", exported, student["parameters"], rows[RUN_ONLY]),
    ]
    cells = [
        [
            name,
            f"{100 * accuracy:.2f}",
            f"{parameters:,}",
            f"{row.p50_us:.1f}",
            f"{row.ratio:.0f}x" if row.ratio else "-",
        ]
        for name, accuracy, parameters, row in lines
    ]
    graph = result["graph"]
    title = f"{graph['name']}: {graph['nodes']} nodes, {graph['edges']} edges, {graph['classes']} classes"
    note = "one request at a time, one thread, all four in one run; p50 in microseconds"
    return table(title, ["", "accuracy %", "parameters", "p50 us", "faster"], cells, note=note)


if __name__ == "__main__":
    main()
