"""What every refusal must be: exit code 1, one line with the words that help, and nothing on the disk."""

from __future__ import annotations

from pathlib import Path

from tests.cli import assert_one_line_error, distill, invoke

__all__ = ["assert_refused"]


def assert_refused(
    graph: Path, folder: Path, *words: str, given: tuple[object, ...] = (), method: str = "glnn"
) -> None:
    """`distill` and (without further arguments) `inspect` refuse `graph` with `words`, and leave `folder` as it was."""
    before = sorted(folder.rglob("*"))
    refused = distill(graph, folder / "out", "--method", method, *given)
    assert_one_line_error(refused, *words)
    assert len(refused.stderr) < 700, "a wall of text is no clear line"
    assert "Traceback" not in refused.stderr
    if not given:
        assert_one_line_error(invoke("inspect", graph), *words)
    assert sorted(folder.rglob("*")) == before, "something was left behind"
