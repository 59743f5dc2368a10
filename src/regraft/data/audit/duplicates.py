"""Near-duplicates: candidates by nearest neighbours among features, or among vectors of the modality's
facts; confirmed on the items themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from regraft.data.blocks import blocks_of
from regraft.data.kind import Likeness
from regraft.data.part import Part
from regraft.evaluation.neighbours import EXACT, Features, Lists, compact

NEIGHBOURS = 5
# Cosine of centred features; 99 in 100 planted copies have more, as do few other neighbours
LEAST_COSINE = 0.5
MOST_CANDIDATES = 30_000  # candidates that are looked at, the closest first: half a minute
BLOCK = 1 << 24  # similarities held at once
CHUNK = 1_024  # pairs that are confirmed at once
HELD = 64 << 20  # bytes of items that were read and may come again in another pair, beside those of a chunk
Pair = tuple[int, int, float]


def near_duplicates(
    every: Part,
    features: Features | None,
    likeness: Likeness,
    tick: Callable[..., None],
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[list[Pair], int]:
    """Pairs (i, j, similarity), i < j, that show the same though not exactly; and how many candidates were
    left out.

    Candidates come from `features` (N, D), which may be memory-mapped and in several parts, and from the
    vectors of `likeness`, of these alone where `features` is None. Where items are so uniform that vectors
    name more candidates than there are items, they say nothing and features alone count; so too above EXACT
    items, whose nearest are looked up in an index: it finds 99 in 100 of those that comparing all with all
    finds, and takes a time that grows with their number. Where `stop` says so, the search ends with what it
    has found, and `say` is told.
    """
    shown = numbered(every.identities)
    if features is None:
        close = candidates(by_facts(every, likeness, likeness.alone, tick, stop), shown)
    else:
        unit = compact(features, centre=True)(features)
        close = candidates([neighbours(unit, unit, LEAST_COSINE, tick, stop)], shown)
        del unit
        if len(every) <= EXACT:
            beside = candidates(by_facts(every, likeness, likeness.beside, tick, stop), shown)
            close = joined(close, beside) if len(beside[1]) <= len(every) else close
    searched = not stop()
    order = [(int(i), int(j)) for i, j in close[0][np.argsort(-close[1], kind="stable")[:MOST_CANDIDATES]]]
    confirmed: list[Pair] = []
    done = 0
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        items = _Items(every, likeness, pool)
        while done < len(order) and not stop():
            some = order[done : done + CHUNK]
            done += len(some)
            items.read({row for pair in some for row in pair})
            some = [pair for pair in some if items.there(*pair)]
            if some:
                alike = likeness.confirm(items.stack(some, 0), items.stack(some, 1))
                confirmed += [(*pair, float(s)) for pair, s in zip(some, alike, strict=True) if s > 0]
            tick(label="looking for near-duplicates", done=done, total=len(order))
    if not searched:
        say("time ran out while near-duplicates were looked for: there may be more than were found")
    elif done < len(order):
        say(
            f"time ran out: {len(order) - done:,} of {len(order):,} likely near-duplicates were not looked at"
        )
    return sorted(confirmed), len(close[1]) - done


class _Items:
    """Items as `likeness` reads them, by their rows; what was read is kept for later pairs up to HELD bytes."""

    def __init__(self, every: Part, likeness: Likeness, pool: ThreadPoolExecutor) -> None:
        self.every, self.likeness, self.pool = every, likeness, pool
        self.kept: dict[int, np.ndarray | None] = {}

    def read(self, rows: set[int]) -> None:
        """Have these at hand, and perhaps others from before."""
        if sum(item.nbytes for item in self.kept.values() if item is not None) > HELD:
            self.kept.clear()
        lacking = sorted(rows - self.kept.keys())
        read = self.pool.map(self.likeness.read, [self.every.items[row] for row in lacking])
        self.kept |= zip(lacking, read, strict=True)

    def there(self, *rows: int) -> bool:
        """Whether all of them could be read."""
        return all(self.kept[row] is not None for row in rows)

    def stack(self, pairs: Sequence[tuple[int, int]], side: int) -> np.ndarray:
        """(P, ...) the first or the second of each of P pairs, all of which are there."""
        return np.stack([self.kept[pair[side]] for pair in pairs])  # type: ignore[misc]


Close = tuple[np.ndarray, np.ndarray]  # (P, 2) rows, (P,) how close they are
_NOTHING: Close = (np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.float32))


def numbered(names: Sequence[str]) -> np.ndarray:
    """(N,) a number for each; the same for the same name."""
    number: dict[str, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], dtype=np.int64)


def candidates(searched: Iterable[Close], shown: np.ndarray) -> Close:
    """Each pair once, the lower row first, with the highest closeness that was found for it.

    What is exactly the same, by the numbers `shown` (N,), is not among them.
    """
    every = list(searched)
    rows = np.concatenate([pairs for pairs, _ in every])
    close = np.concatenate([likeness for _, likeness in every])
    keys = rows.min(axis=1) << 32 | rows.max(axis=1)
    keys, close = (values[shown[rows[:, 0]] != shown[rows[:, 1]]] for values in (keys, close))
    del every, rows
    order = np.lexsort((-close, keys))
    keys, close = keys[order], close[order]
    new = np.r_[True, np.diff(keys) != 0][: len(keys)]
    return np.stack([keys[new] >> 32, keys[new] & 0xFFFFFFFF], axis=1), close[new]


def joined(close: Close, beside: Close) -> Close:
    """The pairs of both; what both hold is as close as the first says."""
    mine, others = (rows[:, 0] << 32 | rows[:, 1] for rows in (close[0], beside[0]))
    new = ~np.isin(others, mine)
    return np.concatenate([close[0], beside[0][new]]), np.concatenate([close[1], beside[1][new]])


def by_facts(
    every: Part, likeness: Likeness, least: float, tick: Callable[..., None], stop: Callable[[], bool]
) -> list[Close]:
    """Those of which the vector, or that of another guise, is close to the other's vector."""
    vectors = likeness.vectors(every.facts)
    return [neighbours(vectors[:, k], vectors[:, 0], least, tick, stop) for k in range(vectors.shape[1])]


def neighbours(
    queries: np.ndarray, base: np.ndarray, least: float, tick: Callable[..., None], stop: Callable[[], bool]
) -> Close:
    """(row of queries, another row of base) and their cosine: the NEIGHBOURS closest of each that reach
    `least`.

    Rows are of length 1. Both have as many; the row of the same number is never a neighbour. Where `stop`
    says so, there may be more than are found.
    """
    if len(base) > EXACT:
        asked, known = np.ascontiguousarray(queries), np.ascontiguousarray(base)
        near, cosines = Lists(known).search(
            asked, NEIGHBOURS, least=least, own=np.arange(len(asked)), tick=tick, stop=stop
        )
        which = np.nonzero(near >= 0)
        return np.stack([which[0], near[which]], axis=1), cosines[which]
    parts, step = [_NOTHING], max(1, BLOCK // max(1, len(base)))
    for start in range(0, len(queries), step):
        if stop():
            break
        close = queries[start : start + step] @ base.T
        own = np.arange(len(close))
        close[own, start + own] = -2
        crowded = np.flatnonzero((close >= least).sum(axis=1) > NEIGHBOURS)
        if len(crowded):
            cut = np.partition(close[crowded], -NEIGHBOURS, axis=1)[:, -NEIGHBOURS]
            close[crowded] = np.where(close[crowded] >= cut[:, None], close[crowded], -2)
        which = np.nonzero(close >= least)
        parts.append((np.stack([which[0] + start, which[1]], axis=1), close[which]))
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([close for _, close in parts])


def groups(pairs: Sequence[tuple[str, str, float]]) -> int:
    """How many clusters the pairs make."""
    place: dict[str, int] = {}
    linked = [(place.setdefault(a, len(place)), place.setdefault(b, len(place))) for a, b, _ in pairs]
    return len(set(blocks_of(tuple(place), pairs=linked).tolist()))
