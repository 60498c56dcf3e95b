"""Answers as a file of the caller's format: one row per request with `id`, `label` and `probability`. No torch."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from graph2mlp.atomic import atomic_path
from graph2mlp.errors import RequestError, require
from graph2mlp.export.inputs import FORMATS
from graph2mlp.export.runtime import Prediction

__all__ = ["answer_columns", "check_output", "write_answers", "write_csv"]


def answer_columns(
    prediction: Prediction, class_names: Sequence[str], ids: NDArray[Any] | None = None
) -> dict[str, NDArray[Any]]:
    """`id` (the row number unless `ids` are given), `label` (the class name), `probability` (of that label)."""
    return {
        "id": np.arange(len(prediction)) if ids is None else ids,
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
    check_output(path)
    columns = answer_columns(prediction, class_names, ids)
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".csv":
            with temporary.open("w", newline="", encoding="utf-8") as file:
                write_csv(file, columns)
        elif path.suffix.lower() == ".npz":
            with temporary.open("wb") as binary:
                np.savez(binary, allow_pickle=False, **columns)
        else:
            arrow = require("pyarrow", extra="tables", purpose="Writing parquet")
            parquet = require("pyarrow.parquet", extra="tables", purpose="Writing parquet")
            parquet.write_table(arrow.table(columns), temporary)


def write_csv(file: TextIO, columns: dict[str, NDArray[Any]]) -> None:
    """Columns as csv, six digits of probability."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for number, label, probability in zip(*(column.tolist() for column in columns.values()), strict=True):
        writer.writerow((number, label, f"{probability:.6f}"))
