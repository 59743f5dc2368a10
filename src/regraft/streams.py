"""The standard streams of a command: any text can be written to them, and none of them ends the work that
goes on.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, TextIO


class _Forgiving(io.RawIOBase):
    """A stream that what cannot be written is dropped from: messages about the work are not the work."""

    def __init__(self, stream: TextIO) -> None:
        self.stream: TextIO = stream
        self.raw: io.FileIO = _raw(stream)  # both: a stream that nobody holds closes what it writes to

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int | None:
        try:
            return self.raw.write(data)  # type: ignore[arg-type]
        except OSError:  # a full disk, a pipe that nobody reads any more
            return len(data)  # type: ignore[arg-type]

    def fileno(self) -> int:
        return self.raw.fileno()

    def isatty(self) -> bool:
        return self.raw.isatty()


def _raw(stream: TextIO) -> Any:
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)  # the same where PYTHONUNBUFFERED is set


def ready() -> None:
    """Prepare the standard streams of this process; a command calls it before anything else.

    A closed one leads nowhere. What standard output and standard error cannot encode is written as escapes
    (`\\u0436`), and so are the bytes of file names that are no text. Standard error never raises. Names
    that are read from standard input may hold any bytes that file names may hold.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper) and os.name == "posix":
        sys.stdin.reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape")
    if isinstance(_raw(sys.stderr), io.FileIO):
        buffer = io.BufferedWriter(_Forgiving(sys.stderr))
        sys.stderr = io.TextIOWrapper(buffer, sys.stderr.encoding, "backslashreplace", line_buffering=True)


def for_programs() -> TextIO:
    """Standard output for csv and JSON: UTF-8 wherever it goes but to a terminal, which has an encoding of
    its own.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    return sys.stdout


def flush() -> None:
    """Write what is left for standard output. Raises OSError where that cannot be; what is left then goes
    nowhere.
    """
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):  # Python writes once more when it ends
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        raise
