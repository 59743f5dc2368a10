"""Addresses of fsspec, such as `s3://bucket/photos`: places that are no folders of this machine, used as paths
are. Only what is named by its address is looked at.
"""

from __future__ import annotations

import contextlib
import functools
import os
import posixpath
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa

from regraft.errors import RegraftError, UsageError

ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL | re.IGNORECASE)
FILE, HERE = (
    ("file", "local"),
    ("file", "local", "memory"),
)  # protocols of files, and of what is on this machine
PACKAGES = {  # what a protocol is read with, where fsspec itself does not know it
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
}
TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
FRESH = 30.0  # seconds for which what a store tells of an object is not asked again
BUFFER = 1 << 20  # bytes that are fetched at once of what is read piece by piece


@dataclass(frozen=True, order=True)
class Address:
    """A place below an fsspec address, with those methods of pathlib.Path that reading data needs.

    `text` is the whole of it, without a slash at its end.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> Address:
        head, rest = _parts(self.text)
        below = posixpath.normpath(posixpath.join(rest, name)) if rest else posixpath.normpath(name)
        return Address(f"{head}://{below}")

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(_parts(self.text)[1]).name

    @property
    def stem(self) -> str:
        """The last part without its ending."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The ending of the last part, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Address:
        """The place that this one is in; of the topmost itself."""
        head, rest = _parts(self.text)
        above = posixpath.dirname(rest)
        return Address(f"{head}://{above}") if above else self

    def with_suffix(self, suffix: str) -> Address:
        """The same place with another ending."""
        return self.parent / PurePosixPath(self.name).with_suffix(suffix).name

    def resolve(self) -> Address:
        """The same: addresses have no links."""
        return self

    def as_posix(self) -> str:
        """The text."""
        return self.text

    def is_dir(self) -> bool:
        """True for what holds others. Raises OSError where the store cannot be asked."""
        system, path = system_of(self.text)
        with telling(self.text):
            return bool(system.isdir(path))

    def is_file(self) -> bool:
        """True for an object. Raises OSError where the store cannot be asked."""
        return self.exists() and not self.is_dir()

    def exists(self) -> bool:
        """True for an object, and for what holds others. Raises OSError where the store cannot be asked."""
        system, path = system_of(self.text)
        with telling(self.text):
            try:
                system.info(path)
            except FileNotFoundError:
                return False
        return True

    def iterdir(self) -> Iterator[Address]:
        """What it holds."""
        return (Address(entry.path) for entry in listed(self.text))


Place = Path | Address


@dataclass(frozen=True)
class Entry:
    """What lies at an address, as os.DirEntry tells of what lies in a folder."""

    name: str
    path: str
    folder: bool

    def is_dir(self) -> bool:
        """True for what holds others."""
        return self.folder


def is_address(text: str) -> bool:
    """True for `protocol://...`."""
    return ADDRESS.fullmatch(text) is not None


def is_remote(text: str) -> bool:
    """True for an address that is reached by a network."""
    found = ADDRESS.fullmatch(text)
    return found is not None and found[1].lower() not in HERE


def require_here(names: Iterable[str]) -> None:
    """Raise UsageError for an address among these that is reached by a network."""
    if (away := next(filter(is_remote, names), None)) is not None:
        raise UsageError(
            f"--offline: {away} is reached by a network. Leave out --offline, or give data of this machine "
            "(a path, file:// or memory://)."
        )


def place_of(text: str | os.PathLike[str] | Address) -> Place:
    """The path or the address that a text names; one of `file://` is the path of the file."""
    found = ADDRESS.fullmatch(str(text))
    if found is None:
        return Path(os.path.expanduser(str(text)))
    if found[1].lower() in FILE:
        return Path("/" + found[2].lstrip("/"))
    return Address(f"{found[1].lower()}://{found[2].rstrip('/')}")


def as_place(text: str) -> Place:
    """A path or an address as it was written by this machine: nothing in it is expanded."""
    return Address(text) if is_address(text) else Path(text)


def within(place: Place, root: Place) -> str:
    """How a place is called at a root that it is below, with forward slashes; "." for the root itself. Raises
    ValueError where it is not.
    """
    if isinstance(place, Address) or isinstance(root, Address):
        return str(PurePosixPath(_parts(str(place))[1]).relative_to(_parts(str(root))[1]))
    return place.relative_to(root).as_posix()


def real(place: str | Place) -> str:
    """The one name of a place that links lead to under several."""
    return str(place) if is_address(str(place)) else os.path.realpath(place)  # type: ignore[arg-type]


def entries_of(place: str | Place) -> Sequence[os.DirEntry[str] | Entry]:
    """What lies directly in a folder or at an address, sorted by name. Raises OSError."""
    if is_address(str(place)):
        return listed(str(place))
    with os.scandir(str(place)) as found:
        return sorted(found, key=lambda entry: entry.name)


def below(root: str, name: str) -> str:
    """The place that is called `name` at a root, both a path or an address.

    A table at an address names what is near it, or another address: never a file of this machine. Raises
    UsageError where it does.
    """
    if not is_address(root):
        return str(place_of(name)) if is_address(name) else os.path.join(root, name)
    found = ADDRESS.fullmatch(name)
    if os.path.isabs(name) or (found and found[1].lower() in FILE):
        raise UsageError(
            f"{root} names {name}, a file of this machine: it may name what lies beside it only."
        )
    return name if found else str(Address(root) / name)


def _parts(text: str) -> tuple[str, str]:
    head, _, rest = text.partition("://")
    return head, rest


def system_of(address: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path in it. Raises UsageError for a protocol that is not
    known, or whose package is not installed.
    """
    from fsspec.core import url_to_fs

    protocol = _parts(address)[0].lower()
    try:
        system, path = url_to_fs(address)
    except ImportError as error:
        package = PACKAGES.get(protocol, "")
        advice = f"pip install {package}" if package else str(error)
        raise UsageError(f"{protocol}:// is read with a package that is not installed: {advice}") from None
    except ValueError as error:
        raise UsageError(f"{address} is no address that can be read: {error}") from None
    return system, str(path)


@contextlib.contextmanager
def telling(address: str) -> Iterator[None]:
    """Whatever a library of a store raises is an OSError that names the address and says why; of a path nothing
    is changed.
    """
    if not is_address(address):
        yield
        return
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(2, "there is no such object", address) from None
    except PermissionError as error:
        raise PermissionError(13, f"permission denied ({error.strerror or error})", address) from None
    except (RegraftError, pa.ArrowException, UnicodeError):
        raise
    except Exception as error:
        said = str(getattr(error, "strerror", None) or error).strip().splitlines()
        raise OSError(
            5, f"{type(error).__name__}: {said[0] if said else 'no reason given'}", address
        ) from None


def listed(address: str) -> list[Entry]:
    """What lies directly at an address, sorted by name. Raises OSError."""
    system, path = system_of(address)
    with telling(address):
        found = system.ls(path, detail=True)
    entries = {}
    for info in found:
        name = str(info["name"]).rstrip("/").rpartition("/")[2]
        itself = str(info["name"]).strip("/") == path.strip("/")
        if name and not itself:  # stores list a folder's own mark in it
            entries[name] = Entry(name, str(Address(address) / name), info["type"] == "directory")
    return [entries[name] for name in sorted(entries)]


def matching(pattern: str) -> list[str]:
    """The addresses that match a pattern with `*`, `?` and `[...]`, sorted. Raises OSError."""
    system, path = system_of(pattern)
    head = _parts(pattern)[0]
    with telling(pattern):
        return sorted(f"{head}://{str(name).lstrip('/')}" for name in system.glob(path))


def forget(address: str) -> None:
    """Ask a store anew from now on: what it holds may have changed since it was asked."""
    _told.cache_clear()
    system_of(address)[0].invalidate_cache()


def told(address: str) -> tuple[int, int, str]:
    """The size in bytes of an object, when it changed in nanoseconds (0 where that is not told), and its type
    ("file", "directory"). Raises OSError.
    """
    return _told(address, int(time.monotonic() / FRESH))


@functools.lru_cache(maxsize=4_096)
def _told(address: str, _: int) -> tuple[int, int, str]:
    system, path = system_of(address)
    with telling(address):
        about = system.info(path)
    return int(about.get("size") or 0), _nanoseconds(about), str(about.get("type", "file"))


def _nanoseconds(about: dict[str, Any]) -> int:
    when = next((about[name] for name in TIMES if about.get(name)), 0)
    if hasattr(when, "timestamp"):
        when = when.timestamp()
    return int(float(when) * 1e9) if isinstance(when, (int, float)) else 0


def fetched(address: str, start: int | None = None, end: int | None = None) -> bytes:
    """The bytes of an object, or some of them, by one request. Raises OSError."""
    system, path = system_of(address)
    with telling(address):
        return bytes(system.cat_file(path, start=start, end=end))


def opened_at(address: str) -> BinaryIO:
    """An object as an open file of which pieces are fetched as they are read. Raises OSError."""
    system, path = system_of(address)
    with telling(address):
        handle: BinaryIO = system.open(path, "rb", block_size=BUFFER)
        return handle
