"""The first look at every file: hashed, inspected once, and what that one reading tells."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from regraft.data.addresses import below, is_address
from regraft.data.audit.findings import Finding, Severity
from regraft.data.known import KnownFile, NewFile
from regraft.data.places import stat_of
from regraft.data.rows import Quarantined, Row
from regraft.data.sources import Source
from regraft.data.turns import in_turn
from regraft.data.walker import endings
from regraft.errors import Unreadable

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


def audit_files(source: Source, tick: Callable[..., None]) -> Audited:
    """Hash and inspect every file, both from one reading. Raises ChangedError for a file that becomes
    another one meanwhile.
    """
    kind, root = source.kind, str(source.root)

    def look(row: Row) -> Fact | str:
        """What is known of one file, or why it cannot be read."""
        file = NewFile(below(root, row.source))
        try:
            # Before it is read: a file that changes meanwhile has another time than this
            about = stat_of(file)
            seen = kind.inspect(file)
            return Fact(file.id, seen.identity or file.id, seen, about.size, about.mtime_ns)
        except Unreadable as error:
            return str(error)
        except (OSError, ValueError) as error:  # a name may hold what no file system takes
            return f"cannot be opened: {getattr(error, 'strerror', None) or error}"

    audited = Audited([], [], list(source.aside))
    with ThreadPoolExecutor(max_workers=READERS if is_address(root) else os.cpu_count() or 1) as pool:
        for number, (row, fact) in enumerate(
            zip(source.rows, in_turn(pool, look, source.rows), strict=True), start=1
        ):
            if isinstance(fact, str):
                audited.quarantined.append(Quarantined(row.source, row.split, fact))
            else:
                audited.rows.append(row)
                audited.facts.append(fact)
            tick(label="looking at the files", done=number, total=len(source.rows))
        ids = [fact.id for fact in audited.facts]
        about, alike = kind.together(ids, [fact.about for fact in audited.facts])
        audited.facts = [replace(fact, about=seen) for fact, seen in zip(audited.facts, about, strict=True)]
        files = [KnownFile(below(root, audited.rows[i].source), audited.facts[i].id) for i in alike]
        for i, identity in zip(alike, pool.map(kind.digest, files), strict=True):
            audited.facts[i] = replace(audited.facts[i], identity=identity)
    _note_layout(source, audited)
    return audited


def _note_layout(source: Source, audited: Audited) -> None:
    def note(kind: str, what: list[str], message: str, severity: Severity = "warning") -> None:
        if what:
            audited.findings.append(Finding(kind, severity, f"{len(what)} {message}", tuple(what)))

    where = Counter(q.split or "not split yet" for q in audited.quarantined)
    per_split = ", ".join(f"{count} {split}" for split, count in sorted(where.items()))
    aside, passed = [q.source for q in audited.quarantined], source.passed
    note("quarantined", aside, f"file(s) could not be read and were set aside ({per_split})")
    note("stray", passed.stray, f"stray file(s) or folder(s) were passed over ({endings(passed.stray)})")
    note("empty", source.empty, f"folder(s) hold no {source.kind.noun}s")
    note(
        "links", passed.links, "folder(s) lead by a symbolic link to one already read and were not read again"
    )
    note("own output", passed.own, "folder(s) that regraft wrote (runs or models) were passed over", "info")
    note("unreadable folders", passed.unreadable, "folder(s) could not be listed and were passed over")
    audited.findings += [Finding(noted.kind, noted.severity, noted.message) for noted in source.notes]
