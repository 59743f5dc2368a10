"""What is to be answered, as a user names it: files, folders, patterns, tables and lines of names."""

from __future__ import annotations

import csv
import glob
import io
import os
from collections.abc import Iterable, Iterator, Sequence

from regraft.data.addresses import Place, as_place, below, forget, is_address, place_of, telling
from regraft.data.cells import cell_name, first_row, table_handle
from regraft.data.kind import Kind
from regraft.data.known import NewFile
from regraft.data.patterns import places_in
from regraft.data.readers import COLUMNS, DELIMITERS, read_column, take_long_cells
from regraft.data.rows import plainly, shown
from regraft.data.shards import is_shard, member_name, members
from regraft.data.tables import is_table_name, item_column
from regraft.data.walker import Passed, ends_in, walk
from regraft.errors import DataError

PIECE = 4_096  # rows of a parquet table that are held at once


def inputs(names: Sequence[str], lines: Iterable[str], kind: Kind, passed: Passed) -> Iterator[str | NewFile]:
    """The items that these names stand for, in order, as they are found.

    A name is a file, a folder (all files of the kind below it), a pattern such as `photos/**/*.jpg`, a
    table whose column `path` names files relative to it or whose cells hold them, a tar shard (its members of
    the kind), an address of any of these, or `-` for the `lines`, each the name of a file or a folder. Where
    items may be written down (the kind has `cells`), what names nothing that is there is an item itself, and a
    line is never a folder. A named file is always tried, one of a folder or a pattern by
    its ending. What is passed over is told to `passed`. Raises DataError for a table that is not there or has
    no such column, before anything is found, and at the end where there were no items.
    """
    names = [one for name in names for one in _named(name, kind)]
    tables = {name: _column(place_of(name), kind) for name in names if _is_table(name, kind)}
    if lost := [name for name in names if kind.cells and _is_lost_table(name)]:
        raise DataError("there is no such table:", [shown(name) for name in lost])

    def found() -> Iterator[str | NewFile]:
        for name in names:
            if name == "-":
                for line in lines:
                    if line.strip():
                        yield from _line(line.rstrip("\r\n"), kind, passed)
            elif name in tables:
                yield from _rows(place_of(name), tables[name], kind)
            elif is_shard(name) and _is_file(name):
                yield from _members(name, kind, passed)
            elif glob.has_magic(name) and not os.path.lexists(name):
                yield from _matching(name, kind, passed)
            else:
                yield from _files(name, kind, passed)

    return _some(found(), bool(names), passed)


def _named(name: str, kind: Kind) -> Iterator[str]:
    """The places that a name stands for, where it is a list in braces or a pattern of addresses, shards or
    tables; a file of `file://` by its path; else the name itself. Raises DataError for a pattern that nothing
    matches.
    """
    one = str(place_of(name)) if _is_address(name, kind) else name
    if is_address(one):
        forget(one)
    if _is_address(one, kind) or is_shard(one) or (is_table_name(one) and not kind.cells):
        yield from [str(place) for place in places_in(one)] or [one]
    else:
        yield one


def _is_address(name: str, kind: Kind) -> bool:
    """True for an address. Where items may be written down, one of a page of the web is a text unless it ends
    as a file of items does, and so is one with blanks.
    """
    if not is_address(name) or not kind.cells:
        return is_address(name)
    page = name.lower().startswith(("http://", "https://"))
    named = ends_in(name, kind.endings) or is_table_name(name) or is_shard(name)
    return not any(map(str.isspace, name)) and (named or not page)


def _is_file(name: str) -> bool:
    return place_of(name).is_file()


def _members(shard: str, kind: Kind, passed: Passed) -> Iterator[NewFile]:
    """The members of a shard that are of the kind; others, and hidden ones, are passed over."""
    for member, _ in members(shard):
        if os.path.basename(member.name).startswith("."):
            passed.hidden += 1
        elif member.ending in kind.endings:
            yield NewFile(member_name(shard, member))
        else:
            passed.stray.append(f"{shard}#{member.name}")


def _some(found: Iterator[str | NewFile], named: bool, passed: Passed) -> Iterator[str | NewFile]:
    count = 0
    for count, name in enumerate(found, start=1):  # noqa: B007
        yield name
    if count:
        return
    if not named:
        raise DataError("there is nothing to predict: no file or folder was named.", [])
    raise DataError(
        f"no {passed.noun}s were found in what was named.",
        [f"passed over: {passed.in_words()}"] if passed.in_words() else ["there is nothing in it"],
        "A file that is named itself is always tried.",
    )


def _files(name: str, kind: Kind, passed: Passed) -> Iterator[str | NewFile]:
    """A file, or those below a folder; or the item that is written there."""
    if _is_address(name, kind):
        if place_of(name).is_dir():
            yield from (NewFile(str(place)) for place in walk(name, kind.endings, passed))
        else:
            yield NewFile(name)
    elif os.path.isdir(name):
        yield from map(str, walk(name, kind.endings, passed))
    else:
        yield NewFile(name) if kind.cells and os.path.isfile(name) else name


def _line(line: str, kind: Kind, passed: Passed) -> Iterator[str | NewFile]:
    """What a line names; one that may be an item itself is no folder: a word can be called as one is."""
    if kind.cells and os.path.isdir(line):
        yield line
    else:
        yield from _files(line, kind, passed)


def _matching(pattern: str, kind: Kind, passed: Passed) -> Iterator[str]:
    """The files that match, sorted; the pattern itself where nothing does: a file of this name is missing."""
    names = sorted(glob.iglob(pattern, recursive=True))
    if not names:
        yield pattern
    deep = "**" in pattern  # what is below a folder that matches does so too
    for name in names:
        if os.path.isdir(name):
            if not deep:
                yield from map(str, walk(name, kind.endings, passed))
        elif ends_in(name, kind.endings):
            yield name
        else:
            passed.stray.append(passed.name(name))


def _is_lost_table(name: str) -> bool:
    """True for one word that can only be the name of a table, which is not there."""
    return is_table_name(name) and not glob.has_magic(name) and " " not in name and not _is_there(name)


def _is_there(name: str) -> bool:
    return place_of(name).exists() if is_address(name) else os.path.lexists(name)


def _is_table(name: str, kind: Kind) -> bool:
    return is_table_name(name) and not ends_in(name, kind.endings) and _is_file(name)


def _column(table: Place, kind: Kind) -> tuple[str, str]:
    """The column of a table that names files, and what separates the cells of a csv ("" of parquet)."""
    wanted = (*kind.cells, "path", *COLUMNS["path"], *kind.columns)
    headers: list[tuple[list[str], str]]
    take_long_cells()
    try:
        if table.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            with telling(str(table)), table_handle(str(table)) as handle:
                schema = pq.read_schema(handle)
            if (holding := item_column(schema, kind)) is not None:
                return holding, ""
            headers = [(schema.names, "")]
        else:
            with (
                table_handle(str(table)) as handle,
                io.TextIOWrapper(handle, "utf-8-sig", newline="") as text,
            ):
                first = text.readline()
            headers = [(next(csv.reader([first], delimiter=mark), []), mark) for mark in DELIMITERS]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as a table.", [str(error).splitlines()[0]]) from None
    for name in wanted:
        for header, mark in headers:
            for column in header:
                if plainly(column) == name:
                    return column, mark
    said = ", ".join(max(headers, key=lambda pair: len(pair[0]))[0])
    raise DataError(
        f"{table} has no column `path` that names the {kind.noun}s to predict; it has {said[:200]}.", []
    )


def _rows(table: Place, column: tuple[str, str], kind: Kind) -> Iterator[str | NewFile]:
    """The files that a table names, relative to it; or its cells, where these are the items themselves."""
    name, mark = column
    place, first = str(table), first_row(table.name)
    if not mark:
        import pyarrow.parquet as pq

        with telling(place), table_handle(place) as handle:
            file = pq.ParquetFile(handle)
            if item_column(file.schema_arrow, kind) == name:
                rows = file.metadata.num_rows
                yield from (NewFile(cell_name(place, name, first + n)) for n in range(rows))
                return
            for batch in file.iter_batches(PIECE, columns=[name]):
                yield from (_file(table, cell, kind) for cell in batch.column(0).to_pylist())
        return
    if plainly(name) in kind.cells:
        rows = len(read_column(place, name))
        yield from (NewFile(cell_name(place, name, first + n)) for n in range(rows))
        return
    with (
        table_handle(place) as handle,
        io.TextIOWrapper(handle, "utf-8-sig", newline="", errors="surrogateescape") as text,
    ):
        for row in csv.DictReader(text, delimiter=mark):
            yield _file(table, row[name], kind)


def _file(table: Place, cell: object, kind: Kind) -> str | NewFile:
    """The file that a cell names, and never a text of that wording."""
    place = str(as_place(below(str(table.parent), str(cell or ""))))
    return NewFile(place) if kind.cells else place
