"""CTranslate2's binary of a model: named arrays one behind the other, read with `struct` and bounded.

A file is: uint32 version, the name of its specification, uint32 revision, uint32 count; then for each
array its name, uint8 rank, uint32 dimensions, uint8 type, uint32 bytes and the data. A name is uint16
length and as many bytes, the last of which is 0. Aliases after the arrays are not read: no weights are in
them.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from regraft.errors import BackboneError

VERSION = 6
TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}  # of the format's enumeration, those that are read
MOST_ARRAYS, MOST_DIMENSIONS = 10_000, 4


def read_arrays(file: Path, specification: str) -> dict[str, np.ndarray]:
    """The arrays of a file by name, each a copy of its own. Raises BackboneError for a file that is not one
    of this `specification`, is damaged, or holds what none should.
    """
    try:
        reader = _Reader(file.read_bytes())
        version, name = reader.number("I"), reader.name()
        reader.number("I")  # revision
        if version != VERSION or name != specification:
            raise ValueError(
                f"it is of {name[:40]!r}, version {version}, and {specification}, {VERSION} is read"
            )
        count = reader.number("I")
        if count > MOST_ARRAYS:
            raise ValueError(f"it counts {count:,} arrays")
        arrays: dict[str, np.ndarray] = {}
        for _ in range(count):
            name, values = reader.name(), reader.array()
            if name in arrays:
                raise ValueError(f"it holds {name!r} twice")
            arrays[name] = values
        return arrays
    except (OSError, ValueError, struct.error) as error:
        raise BackboneError(f"{file} cannot be read as a model of CTranslate2: {error}.") from None


class _Reader:
    """A place in the bytes of a file; whatever goes beyond their end is a ValueError."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        end = self.place + count
        if end > len(self.content):
            raise ValueError(f"it ends after {len(self.content):,} bytes, and {end:,} are announced")
        taken, self.place = self.content[self.place : end], end
        return taken

    def number(self, form: str) -> int:
        """The next whole number, little-endian."""
        return int(struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0])

    def name(self) -> str:
        """The next text."""
        return self.take(self.number("H")).rstrip(b"\0").decode("utf-8")

    def array(self) -> np.ndarray:
        """The next array, whose announced bytes must be those of its shape and type."""
        rank = self.number("B")
        if rank > MOST_DIMENSIONS:
            raise ValueError(f"it holds an array of {rank} dimensions")
        shape = tuple(self.number("I") for _ in range(rank))
        kind, size = self.number("B"), self.number("I")
        if kind not in TYPES:
            raise ValueError(f"it holds numbers of the type {kind}")
        form = np.dtype(TYPES[kind])
        wanted = form.itemsize
        for length in shape:
            wanted *= length
        if wanted != size:
            raise ValueError(f"an array of the shape {shape} has {size:,} bytes, {wanted:,} are wanted")
        return np.frombuffer(self.take(size), dtype=form).reshape(shape).copy()
