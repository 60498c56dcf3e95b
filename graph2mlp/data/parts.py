"""A table in one file or in many: `nodes.parquet`, or a folder `nodes/` of files, read as one in order of names.

A `manifest.json` beside them, `{"schema": 1, "rows": {"nodes/part-0.parquet": 1000, ...}}`, says what must be there: a
part that was lost or cut on the way would otherwise be a smaller graph, and nobody would know.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from graph2mlp.data.columns import TABLES, Columns, find_table, joined, read_columns
from graph2mlp.errors import DataError

__all__ = ["MANIFEST", "has_table", "read_manifest", "read_parts"]

MANIFEST = "manifest.json"
SCHEMA = 1


def has_table(folder: Path, stem: str) -> bool:
    """Whether the folder holds that table, in one file or in many."""
    return (folder / stem).is_dir() or any((folder / f"{stem}{suffix}").exists() for suffix in TABLES)


def read_manifest(folder: Path, stems: Sequence[str]) -> Mapping[str, int] | None:
    """Rows of each file by its name in `folder`, which hold the tables `stems`; None where there is no manifest.

    Raises:
        DataError: it is no manifest, a file it names is missing, or one is there that it does not name.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        rows = said["rows"]
        valid = said["schema"] == SCHEMA and all(isinstance(count, int) and count >= 0 for count in rows.values())
        if not valid:
            raise ValueError(f"expected schema {SCHEMA} and a number of rows for each file")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{path} is no manifest ({error}). Expected {{"schema": 1, "rows": {{FILE: ROWS}}}}.') from None
    there = {str(file.relative_to(folder)) for stem in stems for file in _files(folder, stem)}
    if missing := sorted(rows.keys() - there):
        raise DataError(f"{folder}: {missing[0]} is missing ({len(missing)} of {len(rows)} files of {MANIFEST}).")
    if extra := sorted(there - rows.keys()):
        raise DataError(f"{folder}: {extra[0]} is not in {MANIFEST}. Remove the file, or write the manifest again.")
    return {str(name): int(count) for name, count in rows.items()}


def read_parts(
    folder: Path,
    stem: str,
    words: Collection[str],
    *,
    needs: Collection[Sequence[str]] = (),
    numbers: Collection[str] | None = None,
    rows: Mapping[str, int] | None = None,
) -> Columns:
    """The table `stem` of `folder`; what it must hold: see `read_columns`. `rows` is what a manifest says.

    Raises:
        DataError: there is no such table, a part is damaged, has other columns than the first, or not its rows.
    """
    files = _files(folder, stem) or [find_table(folder, stem)]
    parts = []
    for file in files:
        part = read_columns(file, words, needs=needs, numbers=numbers)
        wanted = len(part) if rows is None else rows[str(file.relative_to(folder))]
        if len(part) != wanted:
            raise DataError(f"{file} has {len(part)} rows, but {MANIFEST} says {wanted}. Write it again.")
        parts.append(part)
    first = parts[0]
    for part in parts[1:]:
        if _header(part) != _header(first):
            names = ", ".join([*part.words, *part.number_names, *part.unread][:8])
            raise DataError(f"{part.path} has other columns than {first.path.name} ({names}). All parts need the same.")
    if len(parts) == 1:
        return first
    columns = {name: joined([part.words[name] for part in parts]) for name in first.words}
    joined_numbers = np.concatenate([part.numbers for part in parts])
    return Columns(folder / stem, columns, joined_numbers, first.number_names, first.unread)


def _header(part: Columns) -> tuple[Collection[str], ...]:
    return part.words.keys(), part.number_names, part.unread


def _files(folder: Path, stem: str) -> list[Path]:
    """The files of a table, in order; none where it is missing.

    Raises:
        DataError: it is there twice, or in files of different kinds.
    """
    many = folder / stem
    single = [folder / f"{stem}{suffix}" for suffix in TABLES if (folder / f"{stem}{suffix}").is_file()]
    if not many.is_dir():
        return [find_table(folder, stem)] if single else []
    if single:
        raise DataError(f"{folder} has both {stem}/ and {single[0].name}. Keep the one that is meant.")
    files = sorted(file for file in many.iterdir() if file.is_file() and not file.name.startswith((".", "_")))
    kinds = sorted({file.suffix for file in files})
    if len(kinds) != 1 or kinds[0] not in TABLES:
        raise DataError(f"{many} must hold files of one kind, .parquet or .csv (it has: {', '.join(kinds) or 'none'}).")
    return files
