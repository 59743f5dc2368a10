"""Do pictures of one set show what pictures of another show? By content, by pixels, and nearly."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.data.audit.align import similarity
from regraft.data.audit.duplicates import ALONE, CHUNK, MOST, NEIGHBOURS, Read
from regraft.data.audit.features import SHARP
from regraft.data.audit.files import Audited
from regraft.data.audit.looks import bits, dhashes
from regraft.data.examples import Inputs
from regraft.data.known import KnownFile
from regraft.data.sources import Source
from regraft.errors import ChangedError

ALIKE = (
    1 - 2 * 6 / 64
)  # cosine of hashes of which six bits differ: the same pixels, decoded small from one format or another
SAME = 1 - 2 * 1 / 64  # one bit: what looks the same where pixels cannot be compared
BLOCK = 1 << 24  # similarities held at once


@dataclass(frozen=True)
class Known:
    """M pictures to compare with: content ids, `pixels` (the id where nothing else of its set showed the
    same), difference hashes ("" where there is none), (M, 2) sizes, splits, and the files, None where they
    are gone."""

    ids: tuple[str, ...]
    pixels: tuple[str, ...]
    dhashes: tuple[str, ...]
    sizes: np.ndarray
    splits: tuple[str, ...]
    files: tuple[KnownFile | None, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def some(self, rows: Sequence[int]) -> Known:
        """Those at some positions."""
        ids, pixels, dhashes, splits = (
            tuple(values[row] for row in rows)
            for values in (self.ids, self.pixels, self.dhashes, self.splits)
        )
        return Known(
            ids, pixels, dhashes, self.sizes[list(rows)], splits, tuple(self.files[row] for row in rows)
        )

    def then(self, other: Known) -> Known:
        """These, followed by the others."""
        return Known(
            self.ids + other.ids,
            self.pixels + other.pixels,
            self.dhashes + other.dhashes,
            np.concatenate([self.sizes, other.sizes]),
            self.splits + other.splits,
            self.files + other.files,
        )


@dataclass(frozen=True)
class Met:
    """For each of N pictures the position of the known one with the same content or the same pixels, or -1.

    `unsure` (N,): it looks like a known one of the same size whose file is gone or changed, so pixels could
    not be compared.
    """

    rows: np.ndarray
    unsure: np.ndarray

    def __len__(self) -> int:
        return int((self.rows >= 0).sum())


def inputs_of(audited: Audited, source: Source) -> Inputs:
    """What the audit knows of a source's readable pictures before they are split."""
    facts, sources = audited.facts, tuple(row.source for row in audited.rows)
    files = tuple(
        KnownFile(str(source.root / name), fact.id) for name, fact in zip(sources, facts, strict=True)
    )
    sizes = np.array([(fact.look.width, fact.look.height) for fact in facts], dtype=np.int64).reshape(-1, 2)
    ids, pixels = tuple(fact.id for fact in facts), tuple(fact.pixels for fact in facts)
    return Inputs(
        source.name,
        ids,
        sources,
        files,
        sizes,
        pixels,
        tuple(dhashes(fact.look for fact in facts)) if facts else (),
    )


def meet(new: Inputs, known: Known, digest: Callable[[Any], str], tick: Callable[..., None]) -> Met:
    """Compare by content, then by pixels: `digest` gives a hash of all pixels of a file.

    Whole pictures are hashed only where size and difference hash are alike, each once. Raises ChangedError
    for a new file that is not what it was.
    """
    first = {identity: row for row, identity in reversed(list(enumerate(known.ids)))}
    rows = np.array([first.get(identity, -1) for identity in new.ids], dtype=np.int64)
    unsure = np.zeros(len(new), dtype=bool)
    left = np.flatnonzero(rows < 0)
    ours, theirs = _alike(new, left, known, np.arange(len(known)), ALIKE)
    digests = {int(i): new.pixels[i] for i in ours if new.pixels[i] != new.ids[i]}
    read = [int(i) for i in ours if int(i) not in digests]
    others: dict[str, int] = {}
    gone: list[int] = []

    def of_known(row: int) -> str:
        file = known.files[row]
        if known.pixels[row] != known.ids[row]:
            return known.pixels[row]
        try:
            return "" if file is None else digest(file)
        except (ChangedError, ValueError):  # changed, or no picture any more
            return ""

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for row, text in zip(theirs, pool.map(of_known, theirs), strict=True):
            tick(label="comparing pixels", done=len(others) + len(gone), total=len(theirs) + len(read))
            if text:
                others.setdefault(text, int(row))
            else:
                gone.append(int(row))
        digests |= dict(zip(read, pool.map(lambda i: digest(new.paths[i]), read), strict=True))
    for i, text in digests.items():
        rows[i] = others.get(text, -1)
    still = np.array([i for i in ours if rows[i] < 0], dtype=np.int64)
    unsure[_alike(new, still, known, np.array(gone, dtype=np.int64), SAME)[0]] = True
    return Met(rows, unsure)


def _alike(
    new: Inputs, some: np.ndarray, known: Known, others: np.ndarray, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which of some rows of both have the size of one of the other side, and a hash within `least` of its."""
    sizes: dict[tuple[int, int], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for i in some:
        sizes[int(new.sizes[i, 0]), int(new.sizes[i, 1])][0].append(int(i))
    for j in others:
        size = (int(known.sizes[j, 0]), int(known.sizes[j, 1]))
        if size in sizes and known.dhashes[j]:
            sizes[size][1].append(int(j))
    ours, theirs = np.zeros(len(new), dtype=bool), np.zeros(len(known), dtype=bool)
    for mine, others_here in sizes.values():
        if not mine or not others_here:
            continue
        base = _signs(known.dhashes, others_here)[:, 0]
        step = max(1, BLOCK // len(others_here))
        for start in range(0, len(mine), step):
            part = mine[start : start + step]
            close = _signs(new.dhashes, part)[:, 0] @ base.T >= least
            ours[np.array(part)[close.any(axis=1)]] = True
            theirs[np.array(others_here)[close.any(axis=0)]] = True
    return np.flatnonzero(ours), np.flatnonzero(theirs)


def _signs(dhashes: Sequence[str], rows: Iterable[int]) -> np.ndarray:
    return np.asarray(bits(dhashes[row] for row in rows) / 8)


def nearly(new: Inputs, known: Known, read: Read, tick: Callable[..., None]) -> np.ndarray:
    """(N,) whether a picture is a near-duplicate of a known one: resized, re-encoded, cropped a little,
    mirrored, lit otherwise.

    Candidates are the nearest by difference hash, confirmed on the pixels that `read` gives of a file; known
    files that are gone or changed are passed over, and so are pictures below SHARP pixels, of which looks
    tell nothing.
    """
    found = np.zeros(len(new), dtype=bool)
    mine = np.flatnonzero(new.sizes.min(axis=1) >= SHARP) if len(new) else np.zeros(0, np.int64)
    sharp = known.sizes.min(axis=1) >= SHARP if len(known) else np.zeros(0, bool)
    there = np.array([j for j in np.flatnonzero(sharp) if known.files[j] and known.dhashes[j]], np.int64)
    pairs: list[tuple[float, int, int]] = []
    base = _signs(known.dhashes, there)[:, 0] if len(there) else np.zeros((0, 64))
    step = max(1, BLOCK // max(1, len(there)))
    for start in range(0, len(mine) if len(there) else 0, step):
        part = mine[start : start + step]
        signs = _signs(new.dhashes, part)
        close = np.maximum(signs[:, 0] @ base.T, signs[:, 1] @ base.T)
        nearest = np.argpartition(-close, min(NEIGHBOURS, close.shape[1]) - 1, axis=1)[:, :NEIGHBOURS]
        for row, columns in enumerate(nearest):
            pairs += [
                (float(close[row, j]), int(part[row]), int(there[j]))
                for j in columns
                if close[row, j] >= ALONE
            ]
    pairs = sorted(pairs, reverse=True)[:MOST]

    def seen(file: KnownFile) -> np.ndarray | None:
        try:
            return read(file)
        except ChangedError:
            return None

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for start in range(0, len(pairs), CHUNK):
            some = [(i, j) for _, i, j in pairs[start : start + CHUNK] if not found[i]]
            files = [(new.paths[i], known.files[j]) for i, j in some]
            pictures = list(pool.map(lambda pair: (seen(pair[0]), seen(pair[1])), files))  # type: ignore[arg-type]
            whole = [number for number, (a, b) in enumerate(pictures) if a is not None and b is not None]
            if whole:
                a, b = (np.stack([pictures[number][side] for number in whole]) for side in (0, 1))  # type: ignore[misc]
                for number, value in zip(whole, similarity(a, b), strict=True):
                    found[some[number][0]] |= value > 0
            tick(label="looking for near-duplicates", done=min(start + CHUNK, len(pairs)), total=len(pairs))
    return found
