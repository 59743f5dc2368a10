"""A disk that is full, for tests of what is written to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def little_room(most: int) -> Iterator[None]:
    """No file may grow beyond `most` bytes, as if the disk were full then."""
    resource = pytest.importorskip("resource", reason="the system has no limit on the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
