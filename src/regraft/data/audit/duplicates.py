"""Near-duplicates: candidates by nearest neighbours in feature space, or by difference hash; confirmed on the pixels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from regraft.data.audit.align import SIDE, similarity
from regraft.data.audit.looks import bits

Read = Callable[[Any], "np.ndarray | None"]  # a path's (SIDE, SIDE, 3) uint8; None where it cannot be read any more
NEIGHBOURS = 5
LEAST = 0.5  # cosine of centred features; 99 in 100 planted copies have more, as do few other neighbours
ALONE, BESIDE = 1 - 2 * 14 / 64, 1 - 2 * 10 / 64  # the same of hashes, of which 14 or 10 bits differ: without features, or with
MOST = 30_000  # candidates that are looked at, the closest first: half a minute
BLOCK = 1 << 24  # similarities held at once
MANY, WIDE = 20_000, 128  # examples from which on only the first so many principal directions of the features count
CHUNK = 1_024  # pairs whose pictures are held at once
Pair = tuple[int, int, float]


def near_duplicates(
    paths: Sequence[Any], pixels: Sequence[str], features: np.ndarray | None, dhashes: Sequence[str], read: Read,
    tick: Callable[..., None],
) -> tuple[list[Pair], int]:  # fmt: skip
    """Pairs (i, j, similarity), i < j, that show the same though not pixel by pixel; and how many candidates were left out.

    Candidates come from `features` (N, D) and from hashes, of these alone where `features` is None. Where pictures are so
    uniform that hashes name more candidates than there are pictures, they say nothing and features alone count; so too where
    there are very many pictures, to save time.
    """
    if features is None:
        found = candidates(by_hash(dhashes, ALONE), pixels)
    else:
        unit = centred(features)
        found = candidates(neighbours(unit, unit, LEAST), pixels)
        beside = candidates(by_hash(dhashes, BESIDE), pixels) if len(paths) <= MANY else {}
        found = {**beside, **found} if len(beside) <= len(paths) else found
    order = sorted(found, key=lambda pair: -found[pair])[:MOST]
    confirmed: list[Pair] = []
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for start in range(0, len(order), CHUNK):
            some = order[start : start + CHUNK]
            rows = sorted({row for pair in some for row in pair})
            pictures = {r: p for r, p in zip(rows, pool.map(read, [paths[r] for r in rows]), strict=True) if p is not None}
            some = [pair for pair in some if pair[0] in pictures and pair[1] in pictures]
            first, second = (np.stack([pictures[pair[k]] for pair in some]) if some else _NONE for k in (0, 1))
            alike = similarity(first, second)
            confirmed += [(i, j, float(value)) for (i, j), value in zip(some, alike, strict=True) if value > 0]
            tick(label="looking for near-duplicates", done=min(start + CHUNK, len(order)), total=len(order))
    return sorted(confirmed), max(0, len(found) - MOST)


_NONE = np.zeros((0, SIDE, SIDE, 3), dtype=np.uint8)


def candidates(searched: Iterable[Pair], pixels: Sequence[str]) -> dict[tuple[int, int], float]:
    """(i, j), i < j: how close they are. What is the same to the pixel is not among them."""
    found: dict[tuple[int, int], float] = {}
    for i, j, close in searched:
        if pixels[i] != pixels[j]:
            pair = (min(i, j), max(i, j))
            found[pair] = max(close, found.get(pair, -1.0))
    return found


def by_hash(dhashes: Sequence[str], least: float) -> Iterator[Pair]:
    """Those whose hashes, or a hash and the other's mirrored one, differ in few bits."""
    signs = bits(dhashes) / 8
    for hand in (0, 1):
        yield from neighbours(signs[:, hand], signs[:, 0], least)


def centred(features: np.ndarray) -> np.ndarray:
    """(N, D) float32 rows of length 1, less the mean; of many rows the leading principal directions only."""
    values = np.asarray(features, dtype=np.float32) - features.mean(axis=0, dtype=np.float64).astype(np.float32)
    if len(values) > MANY and values.shape[1] > WIDE:
        some = values[:: len(values) // MANY]
        values = values @ np.linalg.eigh(some.T @ some)[1][:, -WIDE:]
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))


def neighbours(queries: np.ndarray, base: np.ndarray, least: float) -> Iterator[Pair]:
    """(row of queries, another row of base, cosine): the NEIGHBOURS closest of each that reach `least`. Rows of length 1."""
    rows = max(1, BLOCK // max(1, len(base)))
    for start in range(0, len(queries), rows):
        close = queries[start : start + rows] @ base.T
        own = np.arange(len(close))
        close[own, start + own] = -2
        crowded = np.flatnonzero((close >= least).sum(axis=1) > NEIGHBOURS)
        if len(crowded):
            cut = np.partition(close[crowded], -NEIGHBOURS, axis=1)[:, -NEIGHBOURS]
            close[crowded] = np.where(close[crowded] >= cut[:, None], close[crowded], -2)
        for i, j in zip(*np.nonzero(close >= least), strict=True):
            yield int(start + i), int(j), float(close[i, j])


def groups(pairs: Sequence[tuple[str, str, float]]) -> int:
    """How many clusters the pairs make."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    for a, b, _ in pairs:
        parent[find(a)] = find(b)
    return len({find(name) for name in list(parent)})
