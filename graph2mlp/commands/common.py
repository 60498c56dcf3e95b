"""What the commands share: how errors and interrupts end, and how results are shown."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from graph2mlp.errors import Graph2MLPError, OutOfMemoryError

__all__ = ["one_line_errors", "say", "show", "sizes", "terminated_like_interrupted"]


@contextmanager
def one_line_errors(resume: Path | None = None, *, again: str = "") -> Iterator[None]:
    """Our own errors become one line and exit code 1; an interrupt becomes 130."""
    try:
        yield
    except Graph2MLPError as error:
        full = isinstance(error, OutOfMemoryError) and _holds_work(resume)
        hint = f" Then go on with the same command and --resume (in {resume})." if full else ""
        typer.echo(f"error: {error}{hint}", err=True)
        raise typer.Exit(1) from None
    except MemoryError as error:  # outside any stage that could say more
        typer.echo(f"error: out of memory ({error or 'nothing more is known'}). Give it more.", err=True)
        raise typer.Exit(1) from None
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
        raise typer.Exit(0) from None
    except OSError as error:  # disk full, read-only folder, no permission
        where = f": {error.filename}" if error.filename else ""
        kept = _holds_work(resume)
        hint = f". When that is mended, go on with the same command and --resume (in {resume})." if kept else ""
        typer.echo(f"error: {error.strerror or error}{where}{hint}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        hint = f" Go on with the same command and --resume (in {resume})." if resume else again
        typer.echo(f"interrupted.{hint}", err=True)
        raise typer.Exit(130) from None


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, which schedulers and containers send, ends the block as Ctrl-C does: what is half written is removed."""
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _holds_work(run: Path | None) -> bool:
    return run is not None and (run / "config.toml").exists()


def say(line: str) -> None:
    """About work that goes on, so that results on standard output can be piped."""
    typer.echo(line, err=True)


def sizes(text: str) -> list[int]:
    """The numbers of --batch."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"expected whole numbers separated by commas, got {text!r}", param_hint="--batch"
        ) from None


def show(thing: Any) -> None:
    """Print a table."""
    from graph2mlp import console

    console.show(thing)
