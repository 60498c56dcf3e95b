"""The page of a run or of a bench: one HTML file that needs nothing else, made from the files they leave. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graph2mlp.atomic import write_text
from graph2mlp.report.bench_page import bench_html
from graph2mlp.report.data import read_benches, read_runs
from graph2mlp.report.run_page import run_html

__all__ = ["PAGE", "write_bench_report", "write_report"]

PAGE = "report.html"


def write_report(run: Path) -> Path:
    """Write `report.html` into a finished run folder, of one seed or several, from its other files; return its path.

    Equal files give an equal page.

    Raises:
        RunError: the folder is not a finished run, or a file in it is damaged.
    """
    write_text(run / PAGE, run_html(read_runs(run)))
    return run / PAGE


def write_bench_report(file: Path, benches: Sequence[Path]) -> None:
    """Write one page about what `graph2mlp bench --json` wrote, of one bundle or of several to be compared.

    Raises:
        DataError: one of `benches` is missing, damaged or no bench.
    """
    write_text(file, bench_html(read_benches(benches)))
