"""Shards: tar files of examples as WebDataset writes them. They are indexed by one pass over their headers and
never unpacked; `000.tar#12.jpg:1536:20480` is the member 12.jpg, of 20,480 bytes from byte 1,536 on.
"""

from __future__ import annotations

import json
import posixpath
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from regraft.data.addresses import is_address, opened_at, told

ENDING = ".tar"
MEMBER = re.compile(r"(.*\.tar)#(.*):(\d+):(\d+)", re.IGNORECASE | re.DOTALL)
NO_TAR = "no tar file"
SMALL = 1 << 20  # bytes that a member with a label has at most
LABELS = (".cls", ".json", ".txt")  # members that tell of the example they are called as


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a shard: its name there, where its content begins, and how many bytes it has."""

    name: str
    offset: int
    size: int

    @property
    def ending(self) -> str:
        """Its ending in lower case, with the dot."""
        return posixpath.splitext(self.name)[1].lower()

    @property
    def example(self) -> str:
        """The basename that the members of one example share: up to the first dot of the file's name."""
        folder, name = posixpath.split(self.name)
        return posixpath.join(folder, name.partition(".")[0])


@dataclass(slots=True)
class Sample:
    """The members of one example: all that have its basename, and what those with a label say by ending."""

    members: list[Member] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)


@dataclass
class Index:
    """What a shard holds: examples by their basename in the order of the file, names of members that are not
    read (links, names that lead out of the shard), of those that are cut off, and why the shard could not be
    read to its end ("": it was).
    """

    samples: dict[str, Sample] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    damage: str = ""


def is_shard(name: str) -> bool:
    """True for the name of a tar file."""
    return name.lower().endswith(ENDING)


def member_name(shard: str, member: Member) -> str:
    """What a member is called as an item."""
    return f"{shard}#{member.name}:{member.offset}:{member.size}"


def handle_of(shard: str) -> tuple[BinaryIO, int]:
    """A shard's file, opened where it lies, and its size in bytes. Raises OSError."""
    if is_address(shard):
        return opened_at(shard), told(shard)[0]
    handle = open(shard, "rb")  # noqa: SIM115
    size = handle.seek(0, 2)
    handle.seek(0)
    return handle, size


def members(shard: str, index: Index | None = None) -> Iterator[tuple[Member, BinaryIO]]:
    """The plain files in a shard in order, each with the open shard; what is passed over and where the shard
    is damaged is told to `index`. Raises OSError where it cannot be opened.
    """
    index = Index() if index is None else index
    handle, whole = handle_of(shard)
    end = 0
    with handle:
        try:
            with tarfile.open(fileobj=handle, mode="r:") as file:
                while (one := file.next()) is not None:
                    end = one.offset_data + one.size
                    file.members = []  # type: ignore[attr-defined]  # else a million of them are kept
                    if not one.isfile() or one.issparse() or _leads_out(one.name):
                        if not one.isdir():
                            index.ignored.append(one.name)
                    elif end > whole:
                        index.cut.append(one.name)
                        index.damage = f"cut short: {end - whole:,} bytes of {one.name} are missing"
                        return
                    else:
                        yield Member(one.name, one.offset_data, one.size), handle
                handle.seek(file.offset)  # type: ignore[attr-defined]  # tarfile takes a bad header for the end
                if handle.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    index.damage = f"damaged: what is at byte {file.offset:,} is no header of a member"  # type: ignore[attr-defined]
        except (tarfile.TarError, EOFError, ValueError) as error:
            index.damage = f"damaged behind byte {end:,}: {error}" if end else _no_tar(handle)


def _no_tar(handle: BinaryIO) -> str:
    """Why a file is no shard."""
    handle.seek(0)
    packed = handle.read(2) == b"\x1f\x8b"
    return NO_TAR + (
        ": it is packed with gzip, so that no member can be read alone; unpack it with gunzip"
        if packed
        else ""
    )


def _leads_out(name: str) -> bool:
    return name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or not name.isprintable()


def indexed(shard: str) -> Index:
    """All that a shard holds, by one pass over its headers; of labels the content is read too. Raises OSError."""
    index = Index()
    for member, handle in members(shard, index):
        if posixpath.basename(member.name).startswith("."):
            continue
        sample = index.samples.setdefault(member.example, Sample())
        sample.members.append(member)
        if member.ending in LABELS and member.size <= SMALL:
            handle.seek(member.offset)
            content = handle.read(member.size)
            sample.said[member.ending] = _said(member, content)
    return index


def _said(member: Member, content: bytes) -> Any:
    """What a label's member says: the value of JSON, or a text; None where it is neither."""
    try:
        text = content.decode("utf-8-sig").strip()
        return json.loads(text) if member.ending == ".json" else text
    except ValueError:
        return None
