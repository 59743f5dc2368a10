"""One rule for what is an input, and the one walk by it: for training, evaluation and prediction alike."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from regraft.data.addresses import Entry, Place, as_place, entries_of, is_address, real, within
from regraft.data.rows import shown

SYSTEM = frozenset(
    (  # what file managers, archives and notebooks leave behind, besides names that begin with a dot
        "__macosx",
        "thumbs.db",
        "desktop.ini",
        "@eadir",
        "$recycle.bin",
        "system volume information",
        "lost+found",
    )
)
OWN = {
    "run.json": "a run of regraft",
    "repeats.json": "runs of regraft",
    "regraft.json": "a model of regraft",
}


@dataclass
class Passed:
    """What walks passed over. Names are relative to `base`, or whole where there is none."""

    base: Place | None = None
    noun: str = "example"  # what one item of the data is called
    hidden: int = 0
    stray: list[str] = field(default_factory=list)  # files that are no items by their ending
    links: list[str] = field(default_factory=list)  # folders that lead to one already read
    own: list[str] = field(default_factory=list)  # runs and models of regraft
    unreadable: list[str] = field(default_factory=list)  # folders that cannot be listed

    def name(self, path: str | Place) -> str:
        """How a place is called here."""
        place = as_place(str(path))
        return shown(within(place, self.base) if self.base else place.as_posix())

    def in_words(self) -> str:
        """One line with counts; "" where nothing was passed over."""
        several = [
            f"{self.hidden:,} hidden" if self.hidden else "",
            f"{len(self.stray):,} no {self.noun}s ({endings(self.stray)})" if self.stray else "",
            f"{len(self.links):,} links to a folder already read" if self.links else "",
            f"{len(self.own):,} runs or models of regraft ({some(self.own)})" if self.own else "",
            f"{len(self.unreadable):,} folders that cannot be listed ({some(self.unreadable)})"
            if self.unreadable
            else "",
        ]
        return ", ".join(filter(None, several))


def is_hidden(name: str) -> bool:
    """True for a file or folder that is never data."""
    return name.startswith(".") or name.lower() in SYSTEM


def ends_in(name: str, endings: frozenset[str]) -> bool:
    """True for a name with one of these endings, in whatever case."""
    return os.path.splitext(name)[1].lower() in endings


def own_output(folder: str | Place) -> str:
    """What a folder that regraft wrote is, in words; "" for every other."""
    if is_address(str(folder)):
        there = {entry.name for entry in entries_of(folder)}
        return next((what for name, what in OWN.items() if name in there), "")
    return next((what for name, what in OWN.items() if os.path.isfile(os.path.join(str(folder), name))), "")


def walk(
    folder: str | Place, endings: frozenset[str], passed: Passed, seen: set[str] | None = None
) -> Iterator[Place]:
    """The files with one of these endings below a folder, sorted folder by folder, as they are found.

    Links are followed, and each real folder is entered once for a set `seen` of real paths, so loops end.
    What regraft wrote itself, hidden files and what has another ending are told to `passed`.
    """
    seen = set() if seen is None else seen
    stack = [_entries(str(folder), passed, seen)]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif is_hidden(entry.name):
            passed.hidden += 1
        elif is_folder(entry):
            stack.append(_entries(entry.path, passed, seen))
        elif ends_in(entry.name, endings):
            yield as_place(entry.path)
        else:
            passed.stray.append(passed.name(entry.path))


def is_folder(entry: os.DirEntry[str] | Entry) -> bool:
    """True for a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _entries(folder: str, passed: Passed, seen: set[str]) -> Iterator[os.DirEntry[str] | Entry]:
    place = real(folder)
    if place in seen:
        passed.links.append(passed.name(folder))
        return iter(())
    seen.add(place)
    try:
        entries = entries_of(folder)
    except OSError:
        passed.unreadable.append(passed.name(folder))
        return iter(())
    if not OWN.keys().isdisjoint(entry.name for entry in entries):
        passed.own.append(passed.name(folder))
        return iter(())
    return iter(entries)


def nearby(root: Place, name: str, endings: frozenset[str]) -> str:
    """The place of a file that is not at `root / name`: there with an ending, or in a folder of root. Gives
    "" where there is none.
    """
    with contextlib.suppress(OSError):
        folders = [
            root,
            *sorted(path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name)),
        ]
        for path in (folder / f"{name}{ending}" for folder in folders for ending in ("", *sorted(endings))):
            if path.is_file():
                return shown(within(path, root))
    return ""


def endings(names: Iterable[str]) -> str:
    """The commonest endings of file names, counted: `12 .txt, 3 .mp4`."""
    counts = Counter(
        "folders" if name.endswith("/") else os.path.splitext(name)[1].lower() or "without an ending"
        for name in names
    )
    return ", ".join(f"{count:,} {ending}" for ending, count in counts.most_common(4)) + (
        ", ..." if len(counts) > 4 else ""
    )


def some(names: list[str], most: int = 3) -> str:
    """The first few names."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
