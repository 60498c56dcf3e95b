"""Files of requests in, files of answers out: csv, npz and parquet, recognised by suffix. No torch.

Columns of a csv or parquet file, in any order; others are refused, so that a typing error is not a missing feature:

    id                    optional; numbers or text, carried through to the answers (default: the row number from 0)
    x0 x1 ... x{F-1}      the features, which may also have the names of the graph's own feature columns; or, sparse:
    indices, values       positions of the non-zero features, and their values (default: ones)
    neighbors             for bundles that read structure: a node of the training graph gives its own id, any other
                          node its neighbours' ids; empty for a node without edges

The last three hold lists: numbers separated by spaces (csv), or also list columns (parquet). Where the nodes of the
training graph have names, `neighbors` holds those names; if any of them has spaces in it, all are separated by `;` (see
`graph2mlp.export.names`).

`label`, `y` and `split`, which the graph's own table of nodes has, are passed over; see `unread_note`.

Arrays of an npz file: `x [B, F]`; or `indices [B, J]` and `values [B, J]` padded with -1; or the CSR parts `data`,
`indices`, `indptr` (what `scipy.sparse.save_npz` writes). Beside them `neighbors [B, K]` padded with -1, or `[B]`, and
`ids [B]`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.data.columns import LONGEST_CELL
from graph2mlp.data.mapped import UNREADABLE
from graph2mlp.errors import RequestError, one_line, require
from graph2mlp.export.feature_columns import NODE_WORDS, Columns, FeatureColumns, feature_matrix
from graph2mlp.export.names import NodeNames
from graph2mlp.export.requests import Requests, pad_lists, read_lists, wraps

__all__ = [
    "FORMATS",
    "Columns",
    "arrow_columns",
    "check_source",
    "csv_parts",
    "from_columns",
    "read_requests",
    "unread_note",
]

FORMATS = (".csv", ".npz", ".parquet")

_LISTS: dict[str, type[np.generic]] = {"indices": np.int64, "values": np.float32, "neighbors": np.int64}


def read_requests(
    path: Path,
    *,
    features: int,
    names: NodeNames | None = None,
    structure: bool = True,
    feature_names: Sequence[str] = (),
) -> Requests:
    """Read requests for a bundle that takes `features` features; `names` are those of its nodes, if they have any.

    `feature_names` are those of the features, none or F of them.

    `structure=False`, for a bundle that reads features only: `neighbors` is passed over, whatever is in it, so that one
    file of requests serves every student of a graph.

    Raises:
        RequestError: the file is missing, of an unknown kind, unreadable, or does not have the columns above.
        MissingExtraError: a parquet file, and pyarrow is not installed.
    """
    readers: dict[str, Callable[[Path], Columns]] = {".csv": _read_csv, ".parquet": _read_parquet}
    suffix = check_source(path)
    try:
        if suffix == ".npz":
            return _from_arrays(path, names, structure)
        return from_columns(readers[suffix](path), path, FeatureColumns(features, feature_names), names, structure)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}.") from None


def check_source(path: Path) -> str:
    """The suffix of a file of requests.

    Raises:
        RequestError: it is missing or of an unknown kind.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise RequestError(f"{path} does not exist. Give a file of requests, a folder of them, or a quoted pattern.")
    if suffix not in FORMATS:
        raise RequestError(f"{path}: requests are read from {', '.join(FORMATS)} files, got '{path.suffix}'.")
    if not path.is_file():
        raise RequestError(f"{path} is not a plain file.")
    return suffix


def _read_csv(path: Path) -> Columns:
    return next(csv_parts(path, None))


def csv_parts(path: Path, most: int | None) -> Iterator[Columns]:
    """The columns of at most `most` rows after the other (None: of all), at least once."""
    csv.field_size_limit(LONGEST_CELL)
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark in front
        try:
            rows = csv.reader(file)
            names = [name.strip() for name in next(rows, [])]
            if len(set(names)) != len(names):
                raise RequestError(f"{path}: a column name comes twice.")
            cells, first = [], True
            for row in rows:
                if row and len(row) != len(names):
                    raise RequestError(f"{path}, line {rows.line_num}: {len(row)} cells, expected {len(names)}.")
                if row:
                    cells.append(row)
                if len(cells) == most:
                    yield dict(zip(names, zip(*cells, strict=True), strict=True))
                    cells, first = [], False
        except (csv.Error, UnicodeDecodeError) as error:
            raise RequestError(f"{path} is not a csv file in UTF-8 ({error}).") from None
    if cells or first:
        columns = zip(*cells, strict=True) if cells else ([] for _ in names)
        yield dict(zip(names, columns, strict=True))


def _read_parquet(path: Path) -> Columns:
    parquet = require("pyarrow.parquet", extra="tables", purpose="Reading parquet")
    arrow = require("pyarrow", extra="tables", purpose="Reading parquet")
    try:
        table = parquet.read_table(path)
    except (arrow.ArrowException, ValueError) as error:
        raise RequestError(f"{path} is not a parquet file ({str(error).splitlines()[0]}).") from None
    return arrow_columns(table, path)


def unread_note(path: Path, feature_names: Sequence[str] = ()) -> str:
    """Says which columns of a file of requests nobody reads, because they belong to a table of nodes; else empty.

    Of a file that cannot be read nothing is said: whoever reads it will.
    """
    given: list[str] = []
    with suppress(RequestError, OSError, ValueError):
        if path.suffix.lower() == ".csv":
            given = list(next(csv_parts(path, 1)))
        elif path.suffix.lower() == ".parquet":
            given = require("pyarrow.parquet", extra="tables", purpose="Reading parquet").read_schema(path).names
    left = [name for name in NODE_WORDS if name in given and name not in feature_names]
    return f"{path}: not part of a request, and not read: {', '.join(left)}" if left else ""


def arrow_columns(table: Any, path: Path) -> Columns:
    """The columns of a pyarrow table: arrays, lists of arrays, or lists of text."""
    arrow = require("pyarrow", extra="tables", purpose="Reading parquet")
    columns: Columns = {}
    for name, chunked in zip(table.column_names, table.columns, strict=True):
        if name in columns:
            raise RequestError(f"{path}: the column '{name}' comes twice.")
        if chunked.null_count and name not in ("neighbors", *NODE_WORDS):
            raise RequestError(f"{path}: column '{name}' has missing values.")
        kind = chunked.type
        if arrow.types.is_list(kind) or arrow.types.is_large_list(kind) or arrow.types.is_fixed_size_list(kind):
            if name == "id":
                raise RequestError(f"{path}: column 'id' must hold one number or text for each request, got {kind}.")
            columns[name] = [np.asarray(item or []) for item in chunked.to_pylist()]
        elif not chunked.null_count and _is_numeric(arrow.types, kind):
            columns[name] = chunked.to_numpy()
        else:  # whole numbers, too, where one is missing: numpy would make them floats
            columns[name] = ["" if item is None else str(item) for item in chunked.to_pylist()]
    return columns


def _is_numeric(types: Any, kind: Any) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def from_columns(
    columns: Columns, path: Path, features: FeatureColumns, names: NodeNames | None, structure: bool = True
) -> Requests:
    """Requests made of the columns of a csv or parquet file."""
    if not structure:
        columns = {name: column for name, column in columns.items() if name != "neighbors"}
    columns = features.spread(columns, path)
    dense = features.find(columns, path)
    if not dense and "indices" not in columns:
        raise RequestError(f"{path} has no features. Give columns {features.form}, or 'indices' and 'values'.")
    parts: dict[str, Any] = {"x": feature_matrix(columns, dense, path)} if dense else {}
    if names is not None and "neighbors" in columns:
        columns["neighbors"] = [
            names.positions(cell, f"{path}, request {row}") for row, cell in enumerate(columns["neighbors"])
        ]
    if _is_whole(columns.get("neighbors")):  # the usual form of a long file: each node's own id
        parts["neighbors"] = np.asarray(columns.pop("neighbors"))[:, None]
    lists = {name: read_lists(name, columns[name], _LISTS[name], str(path)) for name in _LISTS if name in columns}
    if "values" in lists and "indices" in lists:
        for row, (one, other) in enumerate(zip(lists["indices"], lists["values"], strict=True)):
            if len(one) != len(other):
                raise RequestError(f"{path}, request {row}: {len(one)} indices, but {len(other)} values.")
    for name, rows in lists.items():
        parts[name] = pad_lists(rows, _LISTS[name], fill=0 if name == "values" else -1)
    if "id" in columns:
        parts["ids"] = _ids(columns["id"])
    return _requests(parts, path)


def _requests(parts: dict[str, Any], path: Path) -> Requests:
    try:
        return Requests(**parts)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from None


def _is_whole(column: object) -> bool:
    return isinstance(column, np.ndarray) and column.ndim == 1 and column.dtype.kind in "iu"


def _ids(column: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """Integers where every id is written like one (`7`, not `007`), else text."""
    if isinstance(column, np.ndarray):
        return column
    if all(re.fullmatch(r"0|-?[1-9][0-9]{0,17}", text) for text in column):
        return np.asarray(column, dtype=np.int64)
    return np.asarray(column, dtype=str)


def _from_arrays(path: Path, names: NodeNames | None, structure: bool) -> Requests:
    with path.open("rb") as raw:  # opened here, because numpy forgets to close what it cannot read
        try:
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise RequestError(f"{path} holds a single array, not named ones; save it with numpy.savez.")
            with file:
                arrays = {name: np.asarray(file[name]) for name in file.files}  # what is no array comes as bytes
        except UNREADABLE as error:
            reason = one_line(error) or type(error).__name__
            raise RequestError(f"{path} cannot be read as npz without unpickling ({reason}). Save it again.") from None
    wanted = ("x", "values", "neighbors") if structure else ("x", "values")
    parts: dict[str, NDArray[Any]] = {name: arrays[name] for name in wanted if name in arrays}
    if "indptr" in arrays:
        parts["indices"], parts["values"] = _csr(arrays, path)
    elif "indices" in arrays:
        parts["indices"] = arrays["indices"]
    if "neighbors" in parts and parts["neighbors"].ndim == 1:
        parts["neighbors"] = parts["neighbors"][:, None]
    if names is not None and "neighbors" in parts:
        parts["neighbors"] = names.table(parts["neighbors"], str(path))
    if not {"x", "indices"} & parts.keys():
        raise RequestError(f"{path} has no features. Give 'x', 'indices' and 'values', or 'data', 'indices', 'indptr'.")
    if (ids := arrays.get("ids", arrays.get("id"))) is not None:
        parts["ids"] = ids
    return _requests(parts, path)


def _csr(arrays: dict[str, NDArray[Any]], path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    layout = arrays.get("format", np.array("csr"))
    if layout.ndim or layout.item() not in ("csr", b"csr") or not {"data", "indices"} <= arrays.keys():
        raise RequestError(f"{path}: sparse features must be CSR: 'data', 'indices', 'indptr' (scipy: .tocsr()).")
    data, indices, pointer = arrays["data"], arrays["indices"], arrays["indptr"]
    sound = data.ndim == pointer.ndim == 1 and data.shape == indices.shape and data.dtype.kind in "fiub"
    sound = sound and all(part.dtype.kind in "iu" and not wraps(part) for part in (indices, pointer))
    # An index of -1 would be taken for padding.
    if not sound or not len(pointer) or pointer[0] or (pointer[1:] < pointer[:-1]).any() or (indices < 0).any():
        raise RequestError(f"{path}: 'data', 'indices' and 'indptr' are not the parts of one CSR matrix.")
    if pointer[-1] != len(data):
        raise RequestError(f"{path}: 'indptr' ends at {pointer[-1]}, but there are {len(data)} numbers.")
    cuts = pointer[1:-1].astype(np.int64)
    values = pad_lists(np.split(data, cuts) if len(pointer) > 1 else [], np.float32, fill=0)
    return pad_lists(np.split(indices, cuts) if len(pointer) > 1 else [], np.int64), values
