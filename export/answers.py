"""Answers as a file of the caller's format, one row per request: `id`, and what the task answers. No torch."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from graph2mlp.atomic import atomic_path
from graph2mlp.data.mapped import write_aligned
from graph2mlp.errors import RequestError, require
from graph2mlp.export.inputs import FORMATS
from graph2mlp.export.manifest import BundleManifest
from graph2mlp.export.runtime import Prediction
from graph2mlp.tasks import CLASSIFICATION

__all__ = ["answer_columns", "answer_file", "check_output", "write_answers", "write_csv"]


def answer_columns(
    prediction: Prediction, about: BundleManifest, ids: NDArray[Any] | None = None, *, first: int = 0
) -> dict[str, NDArray[Any]]:
    """`id` (row number, from `first`, unless `ids` are given), and the answers of the bundle that `about` describes.

    Of classes `label` (its name) and `probability` (of that label). Of labels of their own `labels`, the names joined
    by `;` (`-`: none), and `p_NAME` for each. Of quantities a column for each, called like it.
    """
    columns = {"id": np.arange(first, first + len(prediction)) if ids is None else ids}
    probabilities, names = prediction.probabilities, np.asarray(about.class_names, dtype=str)
    if probabilities is None:
        return columns | dict(zip(about.class_names, prediction.logits.T, strict=True))
    if about.kind is CLASSIFICATION:
        sure = np.take_along_axis(probabilities, prediction.labels[:, None], 1)[:, 0]
        return columns | {"label": names[prediction.labels], "probability": sure}
    joined = [";".join(names[row > 0]) or "-" for row in prediction.labels]
    each = {f"p_{name}": column for name, column in zip(about.class_names, probabilities.T, strict=True)}
    return columns | {"labels": np.asarray(joined, dtype=str)} | each


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


def write_answers(path: Path, prediction: Prediction, about: BundleManifest, ids: NDArray[Any] | None = None) -> None:
    """Write csv, npz or parquet, by suffix, in one step.

    Raises:
        RequestError: the suffix is unknown.
        MissingExtraError: a parquet file, and pyarrow is not installed.
    """
    with answer_file(path) as write:
        write(answer_columns(prediction, about, ids))


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
                # Not numpy.savez: a quantity may be called like one of its arguments.
                write_aligned(binary, {name: np.concatenate([p[name] for p in parts]) for name in parts[0]})
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
    """Columns as csv: a class's probability with six digits, other answers with as many as float32 has, ids whole."""
    writer = csv.writer(file, lineterminator="\n")
    if header:
        writer.writerow(columns)
    # The label of a class is text; quantities may be called `label` and `probability`, too.
    digits = ".6f" if list(columns) == ["id", "label", "probability"] and columns["label"].dtype.kind == "U" else ".7g"
    cells = [_id_cells(column) if name == "id" else _cells(column, digits) for name, column in columns.items()]
    writer.writerows(zip(*cells, strict=True))


def _cells(column: NDArray[Any], digits: str) -> list[Any]:
    return [f"{value:{digits}}" for value in column.tolist()] if column.dtype.kind == "f" else column.tolist()


def _id_cells(ids: NDArray[Any]) -> list[Any]:
    """Whole numbers as such, because pandas makes floats of them as soon as one is missing; others never rounded."""
    return [int(one) if one.is_integer() else str(one) for one in ids] if ids.dtype.kind == "f" else ids.tolist()
