"""The command line: one file per command in `commands/`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from graph2mlp import __version__
from graph2mlp.commands.bench import bench
from graph2mlp.commands.distill import distill
from graph2mlp.commands.export import export
from graph2mlp.commands.inspect import inspect
from graph2mlp.commands.methods import methods
from graph2mlp.commands.predict import predict

__all__ = ["app"]

app = typer.Typer(
    help="Distill a graph neural network into an MLP that needs no graph, export it, and measure it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"graph2mlp {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """Distill a graph neural network into an MLP that needs no graph, export it, and measure it."""


for command in (distill, methods, export, bench, predict, inspect):
    app.command()(command)
