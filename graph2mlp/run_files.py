"""The files of a run and their checksums: a table that is damaged is a table all the same, and would be used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from graph2mlp.errors import RunError

__all__ = ["BREAKDOWN", "checked", "checksums"]

BREAKDOWN = "breakdown.json"
"""Counts of right answers; see `graph2mlp.breakdown`."""


def checksums(folder: Path) -> dict[str, str]:
    """sha256 of each file that holds tensors or counts, by its name within the run's `folder`."""
    files = [*folder.glob("*.safetensors"), *folder.glob("knowledge/*.safetensors"), *folder.glob(BREAKDOWN)]
    return {file.relative_to(folder).as_posix(): _sha256(file) for file in sorted(files)}


def checked(folder: Path, name: str, known: Mapping[str, str]) -> Path:
    """The path of the file `name`, once it is as it was; runs from before checksums were kept have none in `known`.

    Raises:
        RunError: it has changed.
    """
    path = folder / name
    if name in known and path.exists() and _sha256(path) != known[name]:
        raise RunError(
            f"{path} is damaged, or was changed since the run ended: its checksum differs. Run distill again."
        )
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
