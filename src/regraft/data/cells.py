"""Rows of tables as items: `train.parquet#image:12` is the cell of row 12 in the column `image`, and is read as
a file of that content is. The table is a file, or lies at an address.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from regraft.data.addresses import below, is_address, is_remote, opened_at, place_of, telling, told

ROW = re.compile(r"(.*\.(?:csv|tsv|parquet))#([^#]*):(\d+)", re.IGNORECASE | re.DOTALL)
HELD = 256 << 20  # bytes of row groups that are kept for the items read next
CONTENT, NAME = (
    "bytes",
    "path",
)  # the fields of a cell that holds a file, as the Hugging Face libraries write it


def cell_name(table: str, column: str, row: int) -> str:
    """What a cell is called as an item; rows are counted as `first_row` says."""
    return f"{table}#{column}:{row}"


def first_row(table: str) -> int:
    """The number of a table's first row: 2 of a csv, whose header is its first, as spreadsheets count."""
    return 1 if table.lower().endswith(".parquet") else 2


def is_content(kind: pa.DataType) -> bool:
    """True for columns whose cells are the bytes of files: binary ones, and structs with such a field."""
    if pa.types.is_struct(kind):
        return any(
            kind.field(i).name == CONTENT and is_content(kind.field(i).type) for i in range(kind.num_fields)
        )
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    )


def table_handle(table: str) -> BinaryIO:
    """A table's file, opened where it lies. Raises OSError."""
    return opened_at(table) if is_address(table) else open(table, "rb")


def read_cell(table: str, column: str, row: int) -> bytes:
    """The content of a cell: bytes as they are, of a struct those of its field `bytes`, or of the file that
    its field `path` names; a text as UTF-8. `row` counts from 0. Raises OSError where there is none, and where
    a table of this machine names one on the network, which nobody sees before it is opened.
    """
    if is_address(table):
        size, time, _ = told(table)
    else:
        about = os.stat(table)
        size, time = about.st_size, about.st_mtime_ns
    if table.lower().endswith(".parquet"):
        cells, row = _GROUPS.cells(table, column, row, (size, time))
    else:
        cells = _column(table, column, time, size)
    if not 0 <= row < len(cells):
        raise FileNotFoundError(2, "there is no such row", table)
    return _content(cells[row].as_py(), table)


def _content(value: Any, table: str) -> bytes:
    if isinstance(value, dict):
        if value.get(CONTENT) is None and value.get(NAME):
            from regraft.data.places import read_content

            if is_remote(value[NAME]) and not is_remote(table):
                raise OSError(1, "its cell names a file on the network; a column `path` has to", value[NAME])
            return read_content(below(str(place_of(table).parent), value[NAME]))
        value = value.get(CONTENT)
    if isinstance(value, bytes):
        return value
    return b"" if value is None else str(value).encode("utf-8", "surrogatepass")


@functools.lru_cache(maxsize=8)
def _column(table: str, column: str, time: int, size: int) -> Any:
    """The cells of a column of a csv, read once as long as the table's file stays the same."""
    from regraft.data.readers import read_column

    return read_column(table, column)


class _Groups:
    """Columns of row groups of parquet files, those used last kept up to HELD bytes. Threads that want the
    same one wait for the first of them, so each is decoded once.
    """

    def __init__(self) -> None:
        self.kept: OrderedDict[tuple[Any, ...], pa.Array] = OrderedDict()
        self.lock, self.turns = threading.Lock(), [threading.Lock() for _ in range(8)]

    def cells(self, table: str, column: str, row: int, version: tuple[int, int]) -> tuple[pa.Array, int]:
        """The cells of the row group that a row is in, and its place among them. Raises OSError."""
        starts = _starts(table, version)
        number = int(np.searchsorted(starts, row, side="right")) - 1
        if not 0 <= row < starts[-1]:
            raise FileNotFoundError(2, "there is no such row", table)
        key = (table, column, number, version)
        with self.turns[hash(key) % len(self.turns)]:
            with self.lock:
                if key in self.kept:
                    self.kept.move_to_end(key)
                    return self.kept[key], row - starts[number]
            found = _read_group(table, column, number)
            with self.lock:
                self.kept[key] = found
                while len(self.kept) > 1 and sum(cells.nbytes for cells in self.kept.values()) > HELD:
                    self.kept.popitem(last=False)
        return found, row - starts[number]


_GROUPS = _Groups()


@functools.lru_cache(maxsize=256)
def _starts(table: str, version: tuple[int, int]) -> list[int]:
    """At which row each row group of a parquet file begins, and behind them how many rows there are."""
    import pyarrow.parquet as pq

    with telling(table), table_handle(table) as handle:
        about = pq.read_metadata(handle)
    counts: Sequence[int] = [about.row_group(number).num_rows for number in range(about.num_row_groups)]
    return [0, *np.cumsum(counts).tolist()]


def _read_group(table: str, column: str, number: int) -> pa.Array:
    import pyarrow.parquet as pq

    with telling(table), table_handle(table) as handle:
        file = pq.ParquetFile(handle)
        if column not in file.schema_arrow.names:
            raise FileNotFoundError(2, f"it has no column {column!r} any more", table)
        found = file.read_row_group(number, columns=[column]).column(column).combine_chunks()
    return found.chunk(0) if isinstance(found, pa.ChunkedArray) else found
