"""The README is executed: what a newcomer types must work as written."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bench.tables import PAGES, TABLES, with_tables

README = Path(__file__).parents[1] / "README.md"


def _blocks() -> list[tuple[str, str]]:
    """Language and text of each fenced block that is meant to be run, in order."""
    return re.findall(r"^```(bash|python)\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_examples_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other in an empty folder, as a reader would; any failure ends the test."""
    monkeypatch.chdir(tmp_path)
    for language, text in _blocks():
        if language == "python":
            commands = [[sys.executable, "-c", text]]
        else:
            commands = [shlex.split(line) for line in text.splitlines() if line]
        for command in commands:
            if command[0] == "graph2mlp":
                command = [sys.executable, "-m", *command]
            elif command[0] == "python":
                command[0] = sys.executable
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    answers = (tmp_path / "answers.csv").read_text(encoding="utf-8").splitlines()
    assert answers[0] == "id,label,probability"
    assert len(answers) == 4
    assert (tmp_path / "bench.json").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_csv_files(page: Path) -> None:
    """A figure that no committed file holds cannot be checked by anyone. Remedy: python -m bench.tables"""
    text = page.read_text(encoding="utf-8")
    assert text == with_tables(text)


def test_every_table_has_its_place() -> None:
    """A page that lost its mark would keep its old figures for ever."""
    pages = [page.read_text(encoding="utf-8") for page in PAGES]
    for name in TABLES:
        for mark in (f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"):
            assert sum(text.count(mark) for text in pages) == 1, mark


def test_links_to_files_lead_somewhere() -> None:
    """A page that moves takes its links along."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
