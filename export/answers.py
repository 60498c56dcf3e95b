"""Answers as a file of the caller's format: one row per request with `id`, `label` and `probability`. No torch."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from graph2mlp.atomic import atomic_path
from graph2mlp.errors import RequestError, require
from graph2mlp.export.inputs import FORMATS
from graph2mlp.export.runtime import Prediction

__all__ = ["answer_columns", "answer_file", "check_output", "write_answers", "write_csv"]


def answer_columns(
    prediction: Prediction, class_names: Sequence[str], ids: NDArray[Any] | None = None, *, first: int = 0
) -> dict[str, NDArray[Any]]:
    """`id` (row number, from `first`, unless `ids` are given), `label` (class name), `probability` (of that label)."""
    return {
        "id": np.arange(first, first + len(prediction)) if ids is None else ids,
        "label": np.asarray(class_names, dtype=str)[prediction.labels],
        "probability": np.take_along_axis(prediction.probabilities, prediction.labels[:, None], 1)[:, 0],
    }


def check_output(path: Path) -> None:
    """Refuse an output of unknown kind before any work is done for it.

    Raises:
        RequestError: the suffix is unknown.
        MissingExtraError: a parquet file, and pyarrow is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise RequestError(f"{path}: answers are written as {', '.join(FORMATS)} files, got '{path.suffix}'.")
    if suffix == ".parquet":
        require("pyarrow", extra="tables", purpose="Writing parquet")


def write_answers(
    path: Path, prediction: Prediction, class_names: Sequence[str], ids: NDArray[Any] | None = None
) -> None:
    """Write csv, npz or parquet, by suffix, in one step.

    Raises:
        RequestError: the suffix is unknown.
        MissingExtraError: a parquet file, and pyarrow is not installed.
    """
    with answer_file(path) as write:
        write(answer_columns(prediction, class_names, ids))


@contextmanager
def answer_file(path: Path) -> Iterator[Callable[[dict[str, NDArray[Any]]], None]]:
    """Yield what takes the columns of one part of the answers after the other; the file appears when all are written.

    csv and parquet are written part by part, npz is kept in memory until the end.

    Raises:
        RequestError: the suffix is unknown.
        MissingExtraError: a parquet file, and pyarrow is not installed.
    """
    check_output(path)
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".csv":
            with temporary.open("w", newline="", encoding="utf-8") as file:
                yield lambda columns: write_csv(file, columns, header=file.tell() == 0)
        elif path.suffix.lower() == ".npz":
            parts: list[dict[str, NDArray[Any]]] = []
            yield parts.append
            with temporary.open("wb") as binary:
                np.savez(
                    binary, allow_pickle=False, **{name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
                )
        else:
            with _ParquetParts(temporary) as write:
                yield write


class _ParquetParts:
    """A parquet file, open from the first part on, whose types are those of the file."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, ExitStack()
        self._writer: Any = None

    def __enter__(self) -> Callable[[dict[str, NDArray[Any]]], None]:
        return self._write

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _write(self, columns: dict[str, NDArray[Any]]) -> None:
        arrow = require("pyarrow", extra="tables", purpose="Writing parquet")
        parquet = require("pyarrow.parquet", extra="tables", purpose="Writing parquet")
        table = arrow.table(columns)
        if self._writer is None:
            self._writer = self._file.enter_context(parquet.ParquetWriter(self._path, table.schema))
        self._writer.write_table(table)


def write_csv(file: TextIO, columns: dict[str, NDArray[Any]], *, header: bool = True) -> None:
    """Columns as csv, six digits of probability."""
    writer = csv.writer(file, lineterminator="\n")
    if header:
        writer.writerow(columns)
    for number, label, probability in zip(*(column.tolist() for column in columns.values()), strict=True):
        writer.writerow((number, label, f"{probability:.6f}"))
