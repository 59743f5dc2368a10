"""Rows of tables as items: `train.csv#text:12` is the cell of row 12 in the column `text`, and is read as a
file of that content is.
"""

from __future__ import annotations

import functools
import os
import re
import stat
from typing import Any

ROW = re.compile(r"(.*\.(?:csv|tsv|parquet))#([^#]*):(\d+)", re.IGNORECASE | re.DOTALL)


def cell_name(table: str, column: str, row: int) -> str:
    """What a cell is called as an item; rows are counted as `first_row` says."""
    return f"{table}#{column}:{row}"


def first_row(table: str) -> int:
    """The number of a table's first row: 2 of a csv, whose header is its first, as spreadsheets count."""
    return 1 if table.lower().endswith(".parquet") else 2


def read_content(path: str) -> bytes:
    """The content of a file or of a cell of a table, a text as UTF-8, bytes as they are. Raises OSError where there is none."""
    named = ROW.fullmatch(path)
    if named is None or os.path.exists(path):
        with open(path, "rb") as handle:
            return handle.read()
    table, column, row = named[1], named[2], int(named[3]) - first_row(named[1])
    about = os.stat(table)
    cells = _column(table, column, about.st_mtime_ns, about.st_size)
    if not 0 <= row < len(cells):
        raise FileNotFoundError(2, "there is no such row", path)
    value = cells[row].as_py()
    if isinstance(value, bytes):
        return value
    return b"" if value is None else str(value).encode("utf-8", "surrogatepass")


def stat_of(path: str | os.PathLike[str]) -> os.stat_result:
    """What the file system tells of a file, or of the table that a cell is in. Raises OSError."""
    name = os.fspath(path)
    named = ROW.fullmatch(name)
    return os.stat(name if named is None or os.path.exists(name) else named[1])


def is_there(path: str | os.PathLike[str]) -> bool:
    """True for a file, and for a cell whose table is one."""
    try:
        return stat.S_ISREG(stat_of(path).st_mode)
    except OSError:
        return False


@functools.lru_cache(maxsize=8)
def _column(table: str, column: str, mtime_ns: int, size: int) -> Any:
    """The cells of a column, read once as long as the table's file stays the same."""
    from regraft.data.tables import read_column

    return read_column(table, column)
