"""Do items of one set show what items of another show? By content, by identity, and nearly."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from regraft.data.addresses import below
from regraft.data.audit.duplicates import CHUNK, MOST_CANDIDATES, NEIGHBOURS
from regraft.data.audit.files import Audited
from regraft.data.kind import Kind, Likeness
from regraft.data.known import KnownFile
from regraft.data.part import Part
from regraft.data.sources import Source
from regraft.errors import ChangedError, Unreadable

BLOCK = 1 << 24  # similarities held at once


@dataclass(frozen=True)
class Known:
    """M items to compare with: content ids, identities (the id where nothing else of its set showed the
    same), splits, `facts` (a table of M rows with the modality's columns), and the files, None where they
    are gone.
    """

    ids: tuple[str, ...]
    identities: tuple[str, ...]
    splits: tuple[str, ...]
    facts: pa.Table
    files: tuple[KnownFile | None, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def some(self, rows: Sequence[int]) -> Known:
        """Those at some positions."""
        ids, identities, splits = (
            tuple(values[row] for row in rows) for values in (self.ids, self.identities, self.splits)
        )
        facts = self.facts.take(pa.array(rows, pa.int64()))
        return Known(ids, identities, splits, facts, tuple(self.files[row] for row in rows))

    def then(self, other: Known) -> Known:
        """These, followed by the others."""
        return Known(
            self.ids + other.ids,
            self.identities + other.identities,
            self.splits + other.splits,
            pa.concat_tables([self.facts, other.facts], promote_options="default"),
            self.files + other.files,
        )


@dataclass(frozen=True)
class Met:
    """For each of N items the position of the known one with the same content or the same identity, or -1.

    `unsure` (N,): by its facts it is like a known one whose file is gone or changed, so that the two could
    not be compared.
    """

    rows: np.ndarray
    unsure: np.ndarray

    def __len__(self) -> int:
        return int((self.rows >= 0).sum())


def inputs_of(audited: Audited, source: Source) -> Part:
    """What the audit knows of a source's readable items before they are split."""
    facts, sources = audited.facts, tuple(row.source for row in audited.rows)
    root = str(source.root)
    files = tuple(KnownFile(below(root, name), fact.id) for name, fact in zip(sources, facts, strict=True))
    ids, identities = tuple(fact.id for fact in facts), tuple(fact.identity for fact in facts)
    about = source.kind.table([fact.about for fact in facts])
    return Part(name=source.name, ids=ids, sources=sources, items=files, identities=identities, facts=about)


def meet(new: Part, known: Known, kind: Kind, tick: Callable[..., None]) -> Met:
    """Compare by content, then by identity: whole items are read for their identity only where their facts
    are alike, each once. Raises ChangedError for a new file that is not what it was.
    """
    first = {identity: row for row, identity in reversed(list(enumerate(known.ids)))}
    shown = {
        identity: row
        for row, identity in reversed(list(enumerate(known.identities)))
        if identity != known.ids[row]
    }
    rows = np.array(
        [
            first.get(content, shown.get(identity, -1))
            for content, identity in zip(new.ids, new.identities, strict=True)
        ],
        dtype=np.int64,
    )
    unsure = np.zeros(len(new), dtype=bool)
    likeness = kind.likeness(new.facts) if new.facts.schema.equals(known.facts.schema) else None
    if likeness is None:
        return Met(rows, unsure)
    left = np.flatnonzero(rows < 0)
    ours, theirs = _alike(new, left, known, np.arange(len(known)), likeness, likeness.same)
    digests = {int(i): new.identities[i] for i in ours if new.identities[i] != new.ids[i]}
    read = [int(i) for i in ours if int(i) not in digests]
    others: dict[str, int] = {}
    gone: list[int] = []

    def of_known(row: int) -> str:
        file = known.files[row]
        if known.identities[row] != known.ids[row]:
            return known.identities[row]
        try:
            return "" if file is None else kind.digest(file)
        except (ChangedError, Unreadable):
            return ""

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for row, text in zip(theirs, pool.map(of_known, theirs), strict=True):
            tick(label="comparing contents", done=len(others) + len(gone), total=len(theirs) + len(read))
            if text:
                others.setdefault(text, int(row))
            else:
                gone.append(int(row))
        digests |= dict(zip(read, pool.map(lambda i: kind.digest(new.items[i]), read), strict=True))
    for i, text in digests.items():
        rows[i] = others.get(text, -1)
    still = np.array([i for i in ours if rows[i] < 0], dtype=np.int64)
    unsure[_alike(new, still, known, np.array(gone, dtype=np.int64), likeness, likeness.surely)[0]] = True
    return Met(rows, unsure)


def _alike(
    new: Part, some: np.ndarray, known: Known, others: np.ndarray, likeness: Likeness, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of both have the key of a row of the other side, and a vector within `least` of its."""
    groups: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    ours, theirs = np.zeros(len(new), dtype=bool), np.zeros(len(known), dtype=bool)
    keys = likeness.keys(new.facts)
    for i in some:
        groups[keys[int(i)]][0].append(int(i))
    keys = likeness.keys(known.facts)
    for j in others:
        if keys[int(j)] in groups:
            groups[keys[int(j)]][1].append(int(j))
    for mine, others_here in groups.values():
        if not mine or not others_here:
            continue
        base = _vectors(known.facts, others_here, likeness)[:, 0]
        step = max(1, BLOCK // len(others_here))
        for start in range(0, len(mine), step):
            part = mine[start : start + step]
            close = _vectors(new.facts, part, likeness)[:, 0] @ base.T >= least
            ours[np.array(part)[close.any(axis=1)]] = True
            theirs[np.array(others_here)[close.any(axis=0)]] = True
    return np.flatnonzero(ours), np.flatnonzero(theirs)


def _vectors(facts: pa.Table, rows: Sequence[int] | np.ndarray, likeness: Likeness) -> np.ndarray:
    return likeness.vectors(facts.take(pa.array(rows, pa.int64())))


def nearly(new: Part, known: Known, likeness: Likeness | None, tick: Callable[..., None]) -> np.ndarray:
    """(N,) whether an item is a near-duplicate of a known one.

    Candidates are the nearest by the vectors of `likeness`, confirmed on the items themselves; known files
    that are gone or changed are passed over, and so are items too small to tell. Without a `likeness` there
    are none.
    """
    same = np.zeros(len(new), dtype=bool)
    if likeness is None or not len(new) or not len(known):
        return same
    mine, tellable = np.flatnonzero(likeness.tellable(new.facts)), likeness.tellable(known.facts)
    there = np.array([j for j in np.flatnonzero(tellable) if known.files[j]], np.int64)
    pairs = _nearest(new, mine, known, there, likeness)

    def seen(file: KnownFile) -> np.ndarray | None:
        try:
            return likeness.read(file)
        except ChangedError:
            return None

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for start in range(0, len(pairs), CHUNK):
            some = [(i, j) for _, i, j in pairs[start : start + CHUNK] if not same[i]]
            files = [(new.items[i], known.files[j]) for i, j in some]
            items = list(pool.map(lambda pair: (seen(pair[0]), seen(pair[1])), files))  # type: ignore[arg-type]
            whole = [number for number, (a, b) in enumerate(items) if a is not None and b is not None]
            if whole:
                a, b = (np.stack([items[number][side] for number in whole]) for side in (0, 1))  # type: ignore[misc]
                for number, value in zip(whole, likeness.confirm(a, b), strict=True):
                    same[some[number][0]] |= value > 0
            tick(label="looking for near-duplicates", done=min(start + CHUNK, len(pairs)), total=len(pairs))
    return same


def _nearest(
    new: Part, mine: np.ndarray, known: Known, there: np.ndarray, likeness: Likeness
) -> list[tuple[float, int, int]]:
    """(cosine, row of new, row of known) of the candidates, the closest first, MOST_CANDIDATES of them at
    most.
    """
    pairs: list[tuple[float, int, int]] = []
    if not len(there):
        return pairs
    base = _vectors(known.facts, there, likeness)[:, 0]
    step = max(1, BLOCK // len(there))
    for start in range(0, len(mine), step):
        part = mine[start : start + step]
        vectors = _vectors(new.facts, part, likeness)
        close = np.max([vectors[:, k] @ base.T for k in range(vectors.shape[1])], axis=0)
        nearest = np.argpartition(-close, min(NEIGHBOURS, close.shape[1]) - 1, axis=1)[:, :NEIGHBOURS]
        for row, columns in enumerate(nearest):
            pairs += [
                (float(close[row, j]), int(part[row]), int(there[j]))
                for j in columns
                if close[row, j] >= likeness.alone
            ]
    return sorted(pairs, reverse=True)[:MOST_CANDIDATES]
