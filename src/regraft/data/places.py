"""What an item's name stands for, and the one way to its bytes: a file, an object at an address
(`s3://bucket/a.jpg`), a cell of a table (`cells`), a member of a shard (`shards`).

A name is a text that any process on any machine that reaches the place can open for itself.
"""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from typing import BinaryIO, Literal

from regraft.data.addresses import fetched, is_address, told
from regraft.data.cells import ROW, first_row, read_cell
from regraft.data.shards import MEMBER


@dataclass(frozen=True)
class About:
    """What is told of an item before it is read: bytes, when it changed in nanoseconds, and what it is; of a
    cell the size of its table. What is in something else changed when that did.
    """

    size: int
    mtime_ns: int
    what: Literal["file", "folder", "cell", "other"] = "file"


def inside(path: str) -> tuple[str, str]:
    """The file or address that an item is in, and what of it it is ("": all)."""
    for pattern in (MEMBER, ROW):
        if (named := pattern.fullmatch(path)) is not None and (is_address(path) or not os.path.exists(path)):
            return named[1], path[len(named[1]) + 1 :]
    return path, ""


def stat_of(path: str | os.PathLike[str]) -> About:
    """What is known of an item without reading it. Raises OSError."""
    outer, part = inside(os.fspath(path))
    if is_address(outer):
        size, mtime, kind = told(outer)
        what: Literal["file", "folder", "cell", "other"] = "folder" if kind == "directory" else "file"
    else:
        about = os.stat(outer)
        size, mtime, mode = about.st_size, about.st_mtime_ns, about.st_mode
        what = "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"
    if part and what == "file":
        member = MEMBER.fullmatch(f"{outer}#{part}")
        return About(int(member[4]), mtime) if member else About(size, mtime, "cell")
    return About(size, mtime, what)


def is_there(path: str | os.PathLike[str]) -> bool:
    """True for a file or an object, and for what is in one that is there."""
    try:
        return stat_of(path).what in ("file", "cell")
    except OSError:
        return False


def read_content(path: str) -> bytes:
    """All bytes of an item, of a text in UTF-8. Raises OSError where there is none."""
    outer, part = inside(path)
    if not part:
        if is_address(path):
            return fetched(path)
        with open(path, "rb") as handle:
            return handle.read()
    if (member := MEMBER.fullmatch(path)) is not None:
        return _member(outer, int(member[3]), int(member[4]))
    column, _, row = part.rpartition(":")
    return read_cell(outer, column, int(row) - first_row(outer))


def _member(shard: str, offset: int, size: int) -> bytes:
    if is_address(shard):
        content = fetched(shard, offset, offset + size)
    else:
        with open(shard, "rb") as handle:
            handle.seek(offset)
            content = handle.read(size)
    if len(content) < size:
        raise OSError(5, f"the shard ends {size - len(content):,} bytes early", shard)
    return content


def opened(path: str) -> BinaryIO:
    """The same as an open file: of a file of this machine only what is read lies in memory. Raises OSError."""
    if not is_address(path) and not inside(path)[1]:
        return open(path, "rb")
    return io.BytesIO(read_content(path))
