"""`python -m graph2mlp.report RUN` makes a run's page again; `BENCH.json ... --html FILE` one about several bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graph2mlp.commands.common import one_line_errors
from graph2mlp.report import write_bench_report, write_report


def main(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN | BENCH.json ...")],
    html: Annotated[Path | None, typer.Option("--html", help="Where to write the page of benches.")] = None,
) -> None:
    """Write the page of a finished run into its folder, or one page about several benches."""
    with one_line_errors():
        if html is not None:
            write_bench_report(html, paths)
            written = [html]
        elif files := [path for path in paths if path.is_file()]:
            raise typer.BadParameter(f"{files[0]} is a file; for a page about benches give --html FILE")
        else:
            written = [write_report(path) for path in paths]
        for file in written:
            typer.echo(f"report: {file}")


if __name__ == "__main__":
    typer.run(main)
