"""`graph2mlp inspect`: what a path holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graph2mlp.commands.common import one_line_errors, show
from graph2mlp.options import LabelTask

__all__ = ["inspect"]


def inspect(
    path: Annotated[Path, typer.Argument(help="A graph (name, file or folder), knowledge file, run or bundle.")],
    root: Annotated[Path | None, typer.Option(help="Folder of raw files, for a graph known by name.")] = None,
    task: LabelTask = "auto",
) -> None:
    """Say what a file or folder is, what is in it, and whether it is intact; of a graph also what that means."""
    with one_line_errors():
        from graph2mlp.inspection import describe

        title, rows = describe(path, root=root, task=task)
        from graph2mlp.console import table

        listing = table(title, ["", ""], rows)
        listing.show_header = False
        listing.columns[1].justify, listing.columns[1].no_wrap = "left", False
        show(listing)
