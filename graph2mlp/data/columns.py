"""Tables of csv and parquet: columns of names (ids, labels, parts of a split) and columns of numbers (all others).

csv needs numpy and the standard library only, and is read in blocks, so that text is never held twice.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.errors import DataError, require

__all__ = ["LONGEST_CELL", "TABLES", "Columns", "find_table", "is_number", "joined", "positions_of", "read_columns"]

TABLES = (".parquet", ".csv")
LONGEST_CELL = 2**31 - 1
"""Characters, as many as every system takes; at first it is 131,072, less than the neighbours of a hub."""
_BLOCK = 8192
_INDEX = ("", "Unnamed: 0", "__index_level_0__")
"""What pandas calls the numbers of the rows where it writes, or reads, them."""
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""What stands between cells elsewhere: spreadsheets of countries with decimal commas write semicolons."""


@dataclass(frozen=True, eq=False)
class Columns:
    """A table of R rows: `words` maps a column to `[R]` int64 or text, `numbers [R, K]` float32 has `number_names`.

    `unread` are the names of further columns that nobody asked for.
    """

    path: Path
    words: dict[str, NDArray[Any]]
    numbers: NDArray[np.float32]
    number_names: tuple[str, ...]
    unread: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def first(self, *names: str) -> str:
        """The first of `names` that the table has.

        Raises:
            DataError: it has none of them.
        """
        for name in names:
            if name in self.words:
                return name
        raise _missing(self.path, names[0], [*self.words, *self.number_names, *self.unread])


def find_table(folder: Path, stem: str) -> Path:
    """`stem.parquet` or `stem.csv` in `folder`.

    Raises:
        DataError: there is none, or both.
    """
    found = [folder / f"{stem}{suffix}" for suffix in TABLES if (folder / f"{stem}{suffix}").is_file()]
    if not found:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
        raise DataError(f"{folder} has no {stem}.csv or {stem}.parquet (it has: {there}). A graph's folder needs it.")
    if len(found) > 1:
        raise DataError(f"{folder} has both {stem}.parquet and {stem}.csv. Keep the one that is meant.")
    return found[0]


def read_columns(
    path: Path,
    words: Collection[str],
    *,
    needs: Collection[Sequence[str]] = (),
    numbers: Collection[str] | None = None,
) -> Columns:
    """Read a table whose columns named in `words`, where there, hold names; those in `numbers` hold numbers.

    Without `numbers` all others must. Of each group in `needs` one column must be there.

    Of parquet, a column of lists of equal length counts as that many columns.

    Raises:
        DataError: the file is no such table, or a cell that should be a number is none.
        MissingExtraError: a parquet file, and pyarrow is not installed.
    """
    try:
        read = _read_parquet if path.suffix == ".parquet" else _read_csv
        return read(path, words, needs, numbers)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def positions_of(wanted: NDArray[Any], names: NDArray[Any]) -> NDArray[np.int64]:
    """Where each of `wanted [M]` stands among the different `names [N]`; -1 for one that is not there.

    A number is the text it is written as: 7 and "7" are one name, "007" is another.
    """
    if wanted.dtype.kind != names.dtype.kind:
        wanted, names = wanted.astype(str), names.astype(str)
    order = np.argsort(names, kind="stable")
    place = np.searchsorted(names, wanted, sorter=order).clip(max=max(0, len(names) - 1))
    found = order[place] if len(names) else np.zeros(len(wanted), np.int64)
    return np.where(names[found] == wanted, found, -1) if len(names) else np.full(len(wanted), -1)


def _read_csv(
    path: Path, words: Collection[str], needs: Collection[Sequence[str]], wanted: Collection[str] | None
) -> Columns:
    csv.field_size_limit(LONGEST_CELL)
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark in front
        rows = csv.reader(file, skipinitialspace=True)
        try:
            header = [name.strip() for name in next(rows, [])]
            if doubled := {name for name in header if header.count(name) > 1}:
                raise DataError(f"{path}: the column '{sorted(doubled)[0]}' comes twice. Rename one of them.")
            _check_header(path, header, needs, all_numbers=wanted is None)
            named = [index for index, name in enumerate(header) if name in words]
            rest = [index for index, name in enumerate(header) if name not in words]
            plain = [index for index in rest if wanted is None or header[index] in wanted]
            word_blocks: list[list[NDArray[Any]]] = [[] for _ in named]
            blocks: list[NDArray[np.float32]] = []
            for line, block in _blocks(rows, len(header), path):
                for place, index in enumerate(named):
                    word_blocks[place].append(_compact([row[index].strip() for row in block]))
                cells = [[row[index] for index in plain] for row in block]
                blocks.append(_numbers(cells, [header[index] for index in plain], path, line))
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is not a csv file in UTF-8 ({error}). Save it again as comma-separated.") from None
    columns = {header[index]: joined(word_blocks[place]) for place, index in enumerate(named)}
    numbers = np.concatenate(blocks) if blocks else np.empty((0, len(plain)), np.float32)
    unread = tuple(header[index] for index in rest if index not in plain)
    return Columns(path, columns, numbers, tuple(header[index] for index in plain), unread)


def _blocks(rows: Iterator[list[str]], width: int, path: Path) -> Iterator[tuple[int, list[list[str]]]]:
    """Blocks of rows with the number of the first; empty lines are passed over, rows of another width refused."""
    filled = (row for row in rows if row)
    start = 1
    while block := list(islice(filled, _BLOCK)):
        for offset, row in enumerate(block):
            if len(row) != width:
                raise DataError(
                    f"{path}, row {start + offset}: {len(row)} cells, but the header has {width}. "
                    "Quote cells that hold a comma."
                )
        yield start, block
        start += len(block)


def _numbers(cells: list[list[str]], names: list[str], path: Path, start: int) -> NDArray[np.float32]:
    try:
        if any("_" in "".join(row) for row in cells):
            raise ValueError  # 1_0 is ten to Python, and to nobody else
        with np.errstate(over="ignore"):  # too large becomes infinite, which `GraphData` refuses
            return np.array(cells, dtype=np.float64).reshape(len(cells), len(names)).astype(np.float32)
    except ValueError:
        for offset, row in enumerate(cells):
            for name, cell in zip(names, row, strict=True):
                if not is_number(cell):
                    raise DataError(_not_a_number(path, start + offset, name, cell)) from None
        raise


def _not_a_number(path: Path, row: int, name: str, cell: str) -> str:
    what = f"'{cell[:40]}' is no number" if cell else "the cell is empty"
    return (
        f"{path}, row {row}, column '{name}': {what}. Features and weights are numbers: fill or encode the column, or "
        "remove it."
    )


def is_number(cell: str) -> bool:
    """Whether the text is a number; `nan` and `inf` are some, `1_0` is none, though Python reads it."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _compact(cells: list[str]) -> NDArray[Any]:
    """int64 where every cell is written like a whole number (`7`, not `007`), else text."""
    text = np.array(cells, dtype=str)
    try:
        numbers = text.astype(np.int64)
    except (ValueError, OverflowError):
        return text
    return numbers if bool((numbers.astype(text.dtype) == text).all()) else text


def joined(blocks: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Blocks of one column as one array; as text where one of them is text."""
    if not blocks:
        return np.empty(0, dtype=np.int64)
    if any(block.dtype.kind == "U" for block in blocks):
        blocks = [block.astype(str) for block in blocks]
    return np.concatenate(blocks)


def _read_parquet(
    path: Path, words: Collection[str], needs: Collection[Sequence[str]], wanted: Collection[str] | None
) -> Columns:
    parquet = require("pyarrow.parquet", extra="tables", purpose="Reading parquet")
    arrow = require("pyarrow", extra="tables", purpose="Reading parquet")
    try:
        table = parquet.read_table(path)
        _check_header(path, table.column_names, needs, all_numbers=wanted is None)
        return _parquet_columns(arrow.types, table, path, words, wanted)
    except (arrow.ArrowException, ValueError, OSError, OverflowError, MemoryError) as error:
        # Damage inside a page shows only when its cells are taken out.
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise DataError(f"{path} is not a parquet file, or is damaged ({reason}). Write it again.") from None


def _parquet_columns(
    types: Any, table: Any, path: Path, words: Collection[str], wanted: Collection[str] | None
) -> Columns:
    columns: dict[str, NDArray[Any]] = {}
    numbers: list[NDArray[np.float32]] = []
    names: list[str] = []
    unread: list[str] = []
    for name, chunked in zip(table.column_names, table.columns, strict=True):
        if name in columns or name in names or name in unread:
            raise DataError(f"{path}: the column '{name}' comes twice. Rename one of them.")
        if name in words:
            columns[name] = _parquet_words(chunked, name, path)
        elif wanted is not None and name not in wanted:
            unread.append(name)
        else:
            block = _parquet_numbers(types, chunked, name, path)
            numbers.append(block)
            names += [name] if block.shape[1] == 1 else [f"{name}[{i}]" for i in range(block.shape[1])]
    joined = np.concatenate(numbers, axis=1) if numbers else np.empty((table.num_rows, 0), np.float32)
    return Columns(path, columns, joined, tuple(names), tuple(unread))


def _parquet_words(chunked: Any, name: str, path: Path) -> NDArray[Any]:
    kind = str(chunked.type)
    if "int" in kind and "<" not in kind and not chunked.null_count:
        numbers = np.asarray(chunked.to_numpy())
        # Hashes may be larger; they are text, as in csv, since a cast would make them negative.
        beyond = numbers.dtype == np.uint64 and bool((numbers > np.iinfo(np.int64).max).any())
        return numbers.astype(str if beyond else np.int64)
    if "<" in kind and not kind.startswith("dictionary"):
        raise DataError(f"{path}: column '{name}' must hold text or whole numbers, got {kind}.")
    cells = chunked.to_pylist()
    # pandas turns whole numbers into floats where one is missing.
    whole = [str(int(cell)) if isinstance(cell, float) and cell.is_integer() else cell for cell in cells]
    return _compact(["" if cell is None else str(cell).strip() for cell in whole])


def _parquet_numbers(types: Any, chunked: Any, name: str, path: Path) -> NDArray[np.float32]:
    """A column `[R, 1]`, or the lists of a column `[R, width]`."""
    kind = chunked.type
    if chunked.null_count:
        row = next(row for row, cell in enumerate(chunked.to_pylist(), start=1) if cell is None)
        raise DataError(_not_a_number(path, row, name, ""))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        try:
            lists = np.array(chunked.to_pylist(), dtype=np.float64)
        except (ValueError, TypeError):
            raise DataError(f"{path}: the lists of column '{name}' must hold numbers and be of one length.") from None
        return lists.reshape(len(chunked), -1).astype(np.float32)
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise DataError(_not_a_number(path, 1, name, str(chunked[0]) if len(chunked) else str(kind)))
    with np.errstate(over="ignore"):
        column: NDArray[np.float32] = np.asarray(chunked.to_numpy()).astype(np.float32)[:, None]
    return column


def _check_header(path: Path, header: Sequence[str], needs: Collection[Sequence[str]], *, all_numbers: bool) -> None:
    """Before any cell is read: a column of another name would be taken for a feature that is no number."""
    for names in needs:
        found = [name for name in names if name in header]
        if not found:
            raise _missing(path, names[0], header)
        if len(found) > 1:
            raise DataError(
                f"{path} has the columns {' and '.join(map(repr, found))}, which are two names of one thing. Remove "
                "one of them, or rename it if it is something else."
            )
    # The order of the rows is no feature, and often tells the label.
    if all_numbers and (index := [name for name in header if name in _INDEX]):
        raise DataError(
            f"{path}: a column is called {index[0]!r}, as an index that was saved along. Remove it (pandas: "
            "index=False), or give it a name if it is a feature."
        )


def _missing(path: Path, name: str, header: Sequence[str]) -> DataError:
    shown = list(header) if len(header) <= 8 else [*header[:6], "...", header[-1]]
    there = ", ".join(shown) or "nothing"
    remedy = "Add it, or rename the right one."
    if len(header) == 1 and (used := [called for mark, called in _SEPARATORS.items() if mark in header[0]]):
        remedy = f"Its columns seem to be separated by {used[0]}: save it with commas."
    return DataError(f"{path} has no column '{name}' (it has: {there}). {remedy}")
