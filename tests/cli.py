"""The command line in this process, with settings that make a run take a fraction of a second."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from graph2mlp.cli import app
from tests.pipeline import SMALL


def invoke(*arguments: object) -> Result:
    """`graph2mlp ARGUMENTS`; anything but our own exits is raised here."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def distill(graph: object, out: Path, *arguments: object) -> Result:
    """`graph2mlp distill` with small settings."""
    small = [part for setting in SMALL for part in ("--set", setting)]
    return invoke("distill", graph, "--out", out, *small, *arguments)


def hears_interrupts() -> None:
    """For `preexec_fn`: a shell that starts the tests in the background has Ctrl-C ignored, which children inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def result_of(out: Path) -> dict[str, Any]:
    """`result.json` of a run; NaN and infinities are not JSON and fail here."""

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} in result.json")

    found: dict[str, Any] = json.loads((out / "result.json").read_text(), parse_constant=refuse)
    return found


def assert_one_line_error(result: Result, *parts: str, shown: str = "") -> None:
    """Exit code 1, one line on standard error that holds all `parts`, and nothing on standard output unless `shown`."""
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0], lines[0]
    assert shown in result.stdout if shown else not result.stdout.strip()
