"""What a person sees while work goes on: progress bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

__all__ = ["Reporter", "show", "table"]

EpochLog = Callable[[int, Mapping[str, float]], None]


class Reporter:
    """Progress goes to standard error, so that results on standard output can be piped."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)

    def say(self, text: str) -> None:
        """One line about something that is done."""
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def work(self, what: str) -> Iterator[None]:
        """A step without countable parts: a spinner on a terminal, nothing elsewhere."""
        if self.console.is_terminal:
            with self.console.status(what):
                yield
        else:
            yield

    @contextmanager
    def training(self, what: str, epochs: int) -> Iterator[EpochLog]:
        """A bar that follows epochs; its `EpochLog` shows the validation accuracy."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("val {task.fields[val]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(what, total=epochs, val="  -")

            def log(epoch: int, figures: Mapping[str, float]) -> None:
                bar.update(task, completed=epoch, val=f"{100 * figures['val']:.1f} %")

            yield log


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, note: str = "") -> Table:
    """A table whose first column is text and whose others are numbers, aligned right."""
    out = Table(
        title=title,
        title_justify="left",
        caption=note or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for number, column in enumerate(columns):
        out.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        out.add_row(*map(Text, row))  # plain text: `[x]` must not be read as markup
    return out


def show(thing: object) -> None:
    """Print a table on standard output; wide where there is no terminal to fit."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    console.print(thing)
