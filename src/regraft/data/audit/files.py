"""The first look at every file: hashed, inspected once, and what that one reading tells. Workers share it, where
there are some.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from regraft.crew import Crew, in_order
from regraft.data.addresses import below, is_address
from regraft.data.audit.findings import Finding, Severity
from regraft.data.kind import Kind
from regraft.data.known import KnownFile, NewFile
from regraft.data.places import stat_of
from regraft.data.rows import Quarantined, Row, counted
from regraft.data.sources import Source
from regraft.data.turns import in_turn
from regraft.data.walker import endings
from regraft.errors import Unreadable

PART = 256  # items a worker is handed at once
VERBS = {"were": "was", "hold": "holds", "lead": "leads"}  # in what is told: of several, and of one
READERS = 32  # items that are read at once from an address: each waits for its answer, not for a processor


@dataclass(frozen=True, slots=True)
class Fact:
    """A readable file. `id` is a hash of its content, `identity` one of what it shows: the id where nothing
    else shows the same. `about` is what the modality knows of it.
    """

    id: str
    identity: str
    about: Any
    bytes: int
    mtime_ns: int


@dataclass
class Audited:
    """Readable rows with what is known of their files, and what was found."""

    rows: list[Row]
    facts: list[Fact]
    quarantined: list[Quarantined] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class Look:
    """How items below a root are looked at, by this process or by a worker: what this makes does so."""

    kind: Kind
    root: str
    threads: int

    def __call__(self) -> Callable[[Sequence[Row]], list[Fact | str]]:
        return lambda rows: list(self.at(rows))

    def pool(self) -> ThreadPoolExecutor:
        """Threads that read: more of them where they wait for a network."""
        return ThreadPoolExecutor(max_workers=READERS if is_address(self.root) else self.threads)

    def at(self, rows: Sequence[Row]) -> Iterator[Fact | str]:
        """What is known of the item of each row, or why it cannot be read. Raises ChangedError."""
        with self.pool() as pool:
            yield from in_turn(pool, self._one, rows)

    def _one(self, row: Row) -> Fact | str:
        file = NewFile(below(self.root, row.source))
        try:
            # Before it is read: a file that changes meanwhile has another time than this
            about = stat_of(file)
            seen = self.kind.inspect(file)
            return Fact(file.id, seen.identity or file.id, seen, about.size, about.mtime_ns)
        except Unreadable as error:
            return str(error)
        except (OSError, ValueError) as error:  # a name may hold what no file system takes
            return f"cannot be opened: {getattr(error, 'strerror', None) or error}"


def audit_files(source: Source, tick: Callable[..., None], crew: Crew | None = None) -> Audited:
    """Hash and inspect every file, both from one reading, by the workers of a crew where there is one. Raises
    ChangedError for a file that becomes another one meanwhile.
    """
    look = Look(source.kind, str(source.root), os.cpu_count() or 1)
    audited = Audited([], [], list(source.aside))
    looked = zip(source.rows, _looked(look, source.rows, crew), strict=True)
    for number, (row, fact) in enumerate(looked, start=1):
        if isinstance(fact, str):
            audited.quarantined.append(Quarantined(row.source, row.split, fact))
        else:
            audited.rows.append(row)
            audited.facts.append(fact)
        tick(label="looking at the files", done=number, total=len(source.rows))
    _tell_apart(audited, look)
    _note_layout(source, audited)
    return audited


def _looked(look: Look, rows: Sequence[Row], crew: Crew | None) -> Iterator[Fact | str]:
    """What is known of the item of each row, in their order."""
    if crew is None or len(rows) <= PART:
        yield from look.at(rows)
        return
    parts = (rows[start : start + PART] for start in range(0, len(rows), PART))
    for facts in in_order(crew.each(replace(look, threads=crew.threads), parts)):
        yield from facts


def _tell_apart(audited: Audited, look: Look) -> None:
    """Give items of which a first look cannot say whether they show the same the identity of all they show."""
    ids = [fact.id for fact in audited.facts]
    about, alike = look.kind.together(ids, [fact.about for fact in audited.facts])
    audited.facts = [replace(fact, about=seen) for fact, seen in zip(audited.facts, about, strict=True)]
    files = [KnownFile(below(look.root, audited.rows[i].source), audited.facts[i].id) for i in alike]
    with look.pool() as pool:
        for i, identity in zip(alike, pool.map(look.kind.digest, files), strict=True):
            audited.facts[i] = replace(audited.facts[i], identity=identity)


def _note_layout(source: Source, audited: Audited) -> None:
    def note(kind: str, noun: str, what: list[str], message: str, severity: Severity = "warning") -> None:
        if what:
            for verb, of_one in VERBS.items():
                message = message.replace(f"{{{verb}}}", of_one if len(what) == 1 else verb)
            said = f"{counted(noun, len(what))} {message}"
            audited.findings.append(Finding(kind, severity, said, tuple(what)))

    where = Counter(q.split or "not split yet" for q in audited.quarantined)
    per_split = ", ".join(f"{count} {split}" for split, count in sorted(where.items()))
    aside, passed = [q.source for q in audited.quarantined], source.passed
    note("quarantined", "file", aside, f"could not be read and {{were}} set aside ({per_split})")
    strays = f"{{were}} passed over ({endings(passed.stray)})"
    note("stray", "stray file or folder", passed.stray, strays)
    note("empty", "folder", source.empty, f"{{hold}} no {source.kind.noun}s")
    note(
        "links",
        "folder",
        passed.links,
        "{lead} by a symbolic link to one already read and {were} not read again",
    )
    note("own output", "folder", passed.own, "that regraft wrote (runs or models) {were} passed over", "info")
    note("unreadable folders", "folder", passed.unreadable, "could not be listed and {were} passed over")
    audited.findings += [Finding(noted.kind, noted.severity, noted.message) for noted in source.notes]
