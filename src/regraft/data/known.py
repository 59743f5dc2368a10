"""Files that have been looked at: whoever reads one is given the very bytes that were seen, or an error
that names it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from typing import BinaryIO

from regraft.data.cells import read_content
from regraft.errors import ChangedError

DIGITS = 32  # hexadecimal digits of the SHA-256 that make a content id
BLOCK = 1 << 20  # bytes of a file that are hashed at once


def content_id(content: bytes) -> str:
    """The id of a file's content: the first DIGITS hexadecimal digits of its SHA-256."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def _opened(path: str) -> tuple[BinaryIO, str]:
    """A file at its beginning, and the id of its content. Raises OSError."""
    with contextlib.ExitStack() as stack:
        handle = stack.enter_context(open(path, "rb"))
        digest = hashlib.sha256()
        while block := handle.read(BLOCK):
            digest.update(block)
        handle.seek(0)
        stack.pop_all()  # it stays open
    return handle, digest.hexdigest()[:DIGITS]


@dataclass(frozen=True, slots=True)
class KnownFile(os.PathLike[str]):
    """A file, or a cell of a table (`cells`), and the id of the content that it had when it was first looked
    at. Everything that reads items takes one.
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
