"""CSV files of runs: one row per run, several processes may add to one file, and a damaged file is refused in one line.

A row is added by a single appending write, so rows of two processes never mix; the header is put in place whole, by
whoever comes first. Rows with equal keys are one run made twice: the last one counts.
"""

from __future__ import annotations

import csv
import io
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graph2mlp.atomic import write_text
from graph2mlp.errors import DataError

__all__ = ["RowFile", "read_rows"]

Row = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RowFile:
    """A CSV file with fixed columns."""

    path: Path
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    """What tells one run from another."""
    numbers: frozenset[str]
    """Columns that hold a finite number or nothing."""
    optional: frozenset[str] = frozenset()
    """Columns that older files may lack; they read as empty."""

    def read(self) -> list[Row]:
        """The rows, in the order of their first appearance; none when there is no file.

        Raises:
            DataError: a column is missing, or a row is not whole or holds something else than a number.
        """
        rows: dict[tuple[str, ...], Row] = {}
        for row in self._all_rows():
            rows[self.key(row)] = row
        return list(rows.values())

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add `rows` in one write; a new file gets its header first.

        Raises:
            DataError: the file that is there has other columns.
        """
        rows = list(rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._create()
        self._check_writable()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            data = self._text(rows).encode()
            if os.write(descriptor, data) != len(data):
                raise DataError(f"{self.path}: only half a row could be written. Is the disk full? Remove that row.")
        finally:
            os.close(descriptor)

    def merge(self, files: Sequence[Path]) -> int:
        """Add the rows of other files of this kind and return how many there are; of equal keys the last one stays.

        Not for a file that another process is adding rows to.

        Raises:
            DataError: a file is missing or damaged; this one is unchanged then.
        """
        rows = {self.key(row): row for row in self.read()}
        for file in files:
            if not file.exists():
                raise DataError(f"No such file to merge: {file}.")
            other = RowFile(
                path=file, **{name: getattr(self, name) for name in ("columns", "keys", "numbers", "optional")}
            )
            rows |= {self.key(row): row for row in other.read()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, self._header() + self._text(rows.values()))
        return len(rows)

    def key(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """What tells this run from others."""
        return tuple(str(row[name]) for name in self.keys)

    def _all_rows(self) -> list[Row]:
        if not self.path.exists():
            return []
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"Cannot read {self.path}: {error}") from None
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        found = reader.fieldnames or []
        if missing := [name for name in self.columns if name not in found and name not in self.optional]:
            raise DataError(
                f"{self.path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}: it is damaged or of an "
                "old version. Move it away, and its rows are made anew."
            )
        if not text.endswith("\n"):
            raise DataError(f"{self.path} ends in half a row. Remove its last line; that run is then made again.")
        try:
            return [self._checked(row, reader.line_num) for row in reader]
        except csv.Error as error:
            raise DataError(f"{self.path}, after line {reader.line_num}: {error}. Remove that line.") from None

    def _checked(self, row: dict[Any, Any], line: int) -> Row:
        if None in row or None in row.values():
            raise DataError(
                f"{self.path}, line {line}: the row has not as many fields as the header. Remove that line."
            )
        for name in self.numbers & row.keys():
            if row[name] and not _is_finite(row[name]):
                raise DataError(
                    f"{self.path}, line {line}: {name} must be a number, got {row[name]!r}. Remove that line."
                )
        return {name: str(row.get(name, "")) for name in self.columns}

    def _create(self) -> None:
        """Put the header in place unless there is a file: by a link, which fails when another process was first."""
        if self.path.exists():
            return
        with tempfile.TemporaryDirectory(dir=self.path.parent) as folder:
            ready = Path(folder) / "header"
            ready.write_text(self._header(), encoding="utf-8")
            try:
                self.path.hardlink_to(ready)
            except FileExistsError:
                return

    def _check_writable(self) -> None:
        with self.path.open(encoding="utf-8", newline="") as file:
            if file.readline() != self._header():
                raise DataError(
                    f"{self.path} has not the columns of this version, so no row can be added. Rewrite it with: "
                    f"python -m bench.accuracy --csv {self.path} --merge"
                )

    def _header(self) -> str:
        return ",".join(self.columns) + "\n"

    def _text(self, rows: Iterable[Mapping[str, Any]]) -> str:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self.columns, lineterminator="\n").writerows(rows)
        return text.getvalue()


def read_rows(path: Path) -> list[Row]:
    """Rows of any CSV file, unchecked; none when there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
