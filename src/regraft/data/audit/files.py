"""The first look at every file: hashed, decoded once, and what that one decoding tells."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from regraft.data.audit.findings import Finding, Severity
from regraft.data.audit.looks import Look, colours
from regraft.data.known import KnownFile, NewFile
from regraft.data.levels import levels_of
from regraft.data.rows import Row
from regraft.data.sources import Source
from regraft.data.walker import endings

CLOSE = 2.0  # grey levels that the mean of the same pixels may differ by, decoded small or whole
ROUGHER = 4.0  # times more for their spread


@dataclass(frozen=True)
class Fact:
    """A readable file. `id` is a hash of its content, `pixels` one of what it shows: the id where nothing
    else shows the same.
    """

    id: str
    pixels: str
    look: Look
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Quarantined:
    """A file that was set aside, where it would have gone (None: it had not been split yet), and why."""

    source: str
    split: str | None
    reason: str


@dataclass
class Audited:
    """Readable rows with what is known of their files, and what was found."""

    rows: list[Row]
    facts: list[Fact]
    quarantined: list[Quarantined] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def audit_files(
    source: Source,
    inspect: Callable[[NewFile], Look],
    digest: Callable[[KnownFile], str],
    unreadable: type[Exception],
    tick: Callable[..., None],
) -> Audited:
    """Hash and decode every file, both from one reading. `inspect` and `digest` (a hash of all pixels) raise
    `unreadable`.

    Raises ChangedError for a file that becomes another one meanwhile.
    """

    def look(row: Row) -> Fact | str:
        """What is known of one file, or why it cannot be read."""
        file = NewFile(str(source.root / row.source))
        try:
            about = os.stat(
                file
            )  # before it is read: a file that changes meanwhile has another time than this
            seen = inspect(file)
            return Fact(file.id, file.id, seen, about.st_size, about.st_mtime_ns)
        except unreadable as error:
            return str(error)
        except (OSError, ValueError) as error:  # a name may hold what no file system takes
            return f"cannot be opened: {getattr(error, 'strerror', None) or error}"

    audited = Audited([], [])
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for number, (row, fact) in enumerate(
            zip(source.rows, pool.map(look, source.rows), strict=True), start=1
        ):
            if isinstance(fact, str):
                audited.quarantined.append(Quarantined(row.source, row.split, fact))
            else:
                audited.rows.append(row)
                audited.facts.append(fact)
            tick(label="looking at the files", done=number, total=len(source.rows))
        audited.facts = _levelled(audited.facts)
        alike = _alike(audited.facts)
        files = [KnownFile(str(source.root / audited.rows[i].source), audited.facts[i].id) for i in alike]
        for i, pixels in zip(alike, pool.map(digest, files), strict=True):
            audited.facts[i] = replace(audited.facts[i], pixels=pixels)
    _note_layout(source, audited)
    return audited


def _levelled(facts: list[Fact]) -> list[Fact]:
    """The looks of deep pictures on one scale: that of all of them, since no model sees these."""
    levels = levels_of(fact.look.deep for fact in facts if fact.look.deep is not None)
    return [
        fact if fact.look.deep is None else replace(fact, look=fact.look.levelled(levels)) for fact in facts
    ]


def _alike(facts: list[Fact]) -> list[int]:
    """Positions of files that may show the same pixels as one of other bytes.

    Whole pictures are hashed for these only: decoding a large photograph small takes a fraction of the time.
    Within a format the same pixels look exactly alike; between formats, nearly so, as one may be decoded
    small and the other not.
    """
    sizes: dict[tuple[int, int], dict[str, Look]] = defaultdict(dict)
    for fact in facts:
        sizes[fact.look.width, fact.look.height][fact.id] = fact.look
    found: set[str] = set()
    for looks in sizes.values():
        if len(looks) < 2:
            continue
        same = Counter(look.small for look in looks.values())
        found |= {name for name, look in looks.items() if same[look.small] > 1}
        formats = np.array([look.format for look in looks.values()])
        if len(set(formats)) > 1:
            mean, spread, _ = colours(looks.values())
            found |= set(np.array(list(looks))[like_another(formats, np.hstack([mean, spread / ROUGHER]))])
    return [i for i, fact in enumerate(facts) if fact.id in found]


def like_another(formats: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(N,) truths: whether no column of (N, D) numbers differs by more than CLOSE from some row of another
    format.

    Each asks for the nearest row only, so the cost does not grow with the number of pairs, which in a uniform
    set is quadratic.
    """
    from scipy.spatial import cKDTree

    found = np.zeros(len(seen), dtype=bool)
    for one in np.unique(formats):
        own = formats == one
        others = cKDTree(
            np.unique(seen[~own], axis=0)
        )  # equal rows would lie in one leaf, which is looked through whole
        far, _ = others.query(seen[own], p=np.inf, distance_upper_bound=np.nextafter(CLOSE, np.inf))
        found[own] = far <= CLOSE
    return found


def _note_layout(source: Source, audited: Audited) -> None:
    def note(kind: str, what: list[str], message: str, severity: Severity = "warning") -> None:
        if what:
            audited.findings.append(Finding(kind, severity, f"{len(what)} {message}", tuple(what)))

    where = Counter(q.split or "not split yet" for q in audited.quarantined)
    per_split = ", ".join(f"{count} {split}" for split, count in sorted(where.items()))
    aside, passed = [q.source for q in audited.quarantined], source.passed
    note("quarantined", aside, f"file(s) could not be read and were set aside ({per_split})")
    note("stray", passed.stray, f"stray file(s) or folder(s) were passed over ({endings(passed.stray)})")
    note("empty", source.empty, "folder(s) hold no images")
    note(
        "links", passed.links, "folder(s) lead by a symbolic link to one already read and were not read again"
    )
    note("own output", passed.own, "folder(s) that regraft wrote (runs or models) were passed over", "info")
    note("unreadable folders", passed.unreadable, "folder(s) could not be listed and were passed over")
    audited.findings += [Finding(found.kind, found.severity, found.message) for found in source.notes]
