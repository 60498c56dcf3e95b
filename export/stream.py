"""Requests of a file of any length, a part at a time, in bounded memory. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from graph2mlp.errors import RequestError, require
from graph2mlp.export.feature_columns import FeatureColumns
from graph2mlp.export.inputs import Columns, arrow_columns, check_source, csv_parts, from_columns, read_requests
from graph2mlp.export.names import NodeNames
from graph2mlp.export.requests import Requests

__all__ = ["request_parts"]

_ROWS, _FEATURES = 2**16, 2**22
"""Of one part, at most: rows, and numbers in its features (16 MB)."""


def request_parts(
    path: Path,
    *,
    features: int,
    names: NodeNames | None = None,
    structure: bool = True,
    feature_names: Sequence[str] = (),
) -> Iterator[Requests]:
    """The requests of a file, in order, in parts; at least one, which may be empty.

    Parquet and csv are read in parts: a parquet file costs a part and one page per column, whatever its row groups. An
    npz file is one part. Ids of a csv file are text, because the first part does not know the last.

    Raises:
        RequestError: as `graph2mlp.export.inputs.read_requests`.
        MissingExtraError: a parquet file, and pyarrow is not installed.
    """
    suffix, rows = check_source(path), min(_ROWS, max(1, _FEATURES // features))
    if suffix == ".npz":
        yield read_requests(path, features=features, names=names, structure=structure)
        return
    begun, wanted = 0, FeatureColumns(features, feature_names)
    try:
        for columns in csv_parts(path, rows) if suffix == ".csv" else _parquet_parts(path, rows):
            if not isinstance(columns.get("id", np.empty(0)), np.ndarray):
                columns["id"] = np.asarray(columns["id"], dtype=str)
            requests = from_columns(columns, path, wanted, names, structure)
            yield requests
            begun += len(requests)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}.") from None
    except RequestError as error:
        raise (RequestError(f"{error} (counted from request {begun})") if begun else error) from None


def _parquet_parts(path: Path, rows: int) -> Iterator[Columns]:
    parquet = require("pyarrow.parquet", extra="tables", purpose="Reading parquet")
    arrow = require("pyarrow", extra="tables", purpose="Reading parquet")
    empty = True
    try:
        # Without a buffer of this size whole columns of a row group are loaded at once.
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            for batch in file.iter_batches(batch_size=rows):
                empty = False
                yield arrow_columns(arrow.Table.from_batches([batch]), path)
            if empty:
                yield arrow_columns(file.schema_arrow.empty_table(), path)
    except (arrow.ArrowException, ValueError) as error:
        raise RequestError(f"{path} is not a parquet file ({str(error).splitlines()[0]}).") from None
