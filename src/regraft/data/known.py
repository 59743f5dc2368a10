"""Items that have been looked at: whoever reads one is given the very bytes that were seen, or an error that
names it. Every modality reads items by `content` or `stream`, wherever they lie.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from regraft.data.places import opened, read_content, stat_of
from regraft.errors import ChangedError, Unreadable

DIGITS = 32  # hexadecimal digits of the SHA-256 that make a content id
BLOCK = 1 << 20  # bytes of a file that are hashed at once


def content_id(content: bytes) -> str:
    """The id of a file's content: the first DIGITS hexadecimal digits of its SHA-256."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def _opened(path: str) -> tuple[BinaryIO, str]:
    """A file at its beginning, and the id of its content. Raises OSError."""
    with contextlib.ExitStack() as stack:
        handle = stack.enter_context(opened(path))
        digest = hashlib.sha256()
        while block := handle.read(BLOCK):
            digest.update(block)
        handle.seek(0)
        stack.pop_all()  # it stays open
    return handle, digest.hexdigest()[:DIGITS]


@dataclass(frozen=True, slots=True)
class KnownFile(os.PathLike[str]):
    """A file, an object at an address, a cell of a table or a member of a shard (`places`), and the id of the
    content that it had when it was first looked at. Everything that reads items takes one; it is two texts, and
    any process opens it for itself.
    """

    path: str
    id: str

    def read(self) -> bytes:
        """The content. Raises ChangedError where it is another one by now, or cannot be had."""
        try:
            content = read_content(self.path)
        except OSError as error:
            raise self._gone(error) from None
        if content_id(content) != self.id:
            raise ChangedError(self.path, "its content is another one")
        return content

    def open(self) -> BinaryIO:
        """The same as an open file, of which only what is read lies in memory. Raises ChangedError as `read`
        does.
        """
        try:
            handle, found = _opened(self.path)
        except OSError as error:
            raise self._gone(error) from None
        if found != self.id:
            handle.close()
            raise ChangedError(self.path, "its content is another one")
        return handle

    def _gone(self, error: OSError) -> ChangedError:
        gone = isinstance(error, FileNotFoundError)
        return ChangedError(
            self.path, "it is gone" if gone else f"it cannot be read: {error.strerror or error}"
        )

    def __fspath__(self) -> str:
        return self.path

    def __str__(self) -> str:
        return self.path


class NewFile(os.PathLike[str]):
    """A file that is looked at for the first time: `id` is that of the content that `read` gave (""
    before).
    """

    def __init__(self, path: str) -> None:
        self.path, self.id = path, ""

    def read(self) -> bytes:
        """The content, as it is. Raises OSError."""
        content = read_content(self.path)
        self.id = content_id(content)
        return content

    def open(self) -> BinaryIO:
        """The same as an open file, of which only what is read lies in memory. Raises OSError."""
        handle, self.id = _opened(self.path)
        return handle

    def __fspath__(self) -> str:
        return self.path

    def __str__(self) -> str:
        return self.path


def known_file(path: str) -> KnownFile:
    """An item that is looked at now. Raises OSError where it cannot be had."""
    handle, found = _opened(path)
    handle.close()
    return KnownFile(path, found)


def content(item: Any, most: int) -> bytes:
    """All bytes of an item: bytes, a path, an address, or one of the above. Raises Unreadable for what is none,
    is empty, has more than `most` bytes or cannot be opened; of a KnownFile ChangedError.
    """
    if isinstance(item, KnownFile):
        return item.read()
    if isinstance(item, (bytes, bytearray, memoryview)):
        found = bytes(item)
    else:
        _check(item, most)
        with _openable():
            found = item.read() if isinstance(item, NewFile) else read_content(os.fspath(item))
        if len(found) > most:
            raise Unreadable(_too_large(len(found), most))
    if not found:
        raise Unreadable("empty (zero bytes)")
    return found


def stream(item: Any, most: int) -> BinaryIO:
    """The same as an open file: of one on this machine only what is read lies in memory."""
    if isinstance(item, KnownFile):
        return item.open()
    if isinstance(item, (bytes, bytearray, memoryview)):
        return io.BytesIO(bytes(item))
    _check(item, most)
    with _openable():
        return item.open() if isinstance(item, NewFile) else opened(os.fspath(item))


@contextlib.contextmanager
def _openable() -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise Unreadable(f"cannot be opened: {(error.strerror or 'permission denied').lower()}") from None
    except (OSError, ValueError) as error:  # a name may hold what no file system takes
        raise Unreadable(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from None


def _check(item: Any, most: int) -> None:
    """Raise Unreadable for what is no file, or too large."""
    with _openable():
        about = stat_of(item)
    if about.what == "folder":
        raise Unreadable("a folder, not a file")
    if about.what == "other":
        raise Unreadable("not a plain file (a pipe, a socket or a device)")
    if about.what == "file" and not about.size:
        raise Unreadable("empty (zero bytes)")
    if about.what == "file" and about.size > most:
        raise Unreadable(_too_large(about.size, most))


def _too_large(size: int, most: int) -> str:
    return f"too large ({size >> 20} MiB, the limit is {most >> 20})"
