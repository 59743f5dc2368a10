"""The nearest rows by cosine among very many: an index of lists, whose cost grows with the number of rows
and not its square.

This is the inverted file of Jégou, Douze and Schmid (2011) with products of whole lists in place of scans.
faiss has it too, but its wheels bring an OpenMP of their own, which crashes on macOS beside torch's
(faiss-wheels 73); pynndescent needs numba.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Features = np.ndarray | Sequence[np.ndarray]  # (N, D), or several whose rows follow one another

EXACT = 20_000  # rows up to which all are compared with all
WIDE = 128  # principal directions that count of wider features
LIST = 1_000  # rows a list holds on average
LONGEST_LIST = 4_000  # rows of a list that one row is compared with
# Lists that are searched for each row. They find 993 in 1,000 of the five nearest above a cosine of 0.5,
# and all
PROBES = 8
# above 0.8 (100,000 synthetic rows of 100 classes with planted near-duplicates, 128 wide); 4 lists find 982
LEARNT = 48  # rows a list from which the lists' centres are found
ROUNDS = 8  # of k-means
BLOCK = 1 << 21  # similarities held at once
CHUNK = 1 << 25  # bytes of features looked at at once
HUGE = 1e15  # values above it have squares whose sums are beyond float32
ROWS = 4_096  # rows at least that a chunk holds


@dataclass(frozen=True)
class Compact:
    """How features become float32 rows of length 1 with at most WIDE columns: less a mean, turned,
    normalised.
    """

    mean: np.ndarray | float
    turn: np.ndarray | None

    def __call__(self, features: Features) -> Floats32:
        """(N, d) rows; the features, which may be memory-mapped, are read a chunk at a time.

        A row of zeros stays one, and one that holds what is no number becomes one: it is near to nothing.
        """
        parts = _parts(features)
        width = parts[0].shape[1] if self.turn is None else self.turn.shape[1]
        rows = np.empty((sum(map(len, parts)), width), dtype=np.float32)
        for span, x in chunks(features):
            with np.errstate(over="ignore", invalid="ignore"):
                x = x - self.mean if self.turn is None else (x - self.mean) @ self.turn
            rows[span] = _of_length_1(x)
        return rows


def compact(features: Features, centre: bool) -> Compact:
    """By the mean of all rows, where it is to be taken off, and the principal directions of about EXACT of
    them.
    """
    parts = _parts(features)
    count, width = sum(map(len, parts)), parts[0].shape[1]
    mean: np.ndarray | float = 0.0
    if centre and count <= EXACT:
        mean = np.concatenate(parts).mean(axis=0, dtype=np.float64).astype(np.float32)
    elif centre:
        total = np.zeros(width)
        for _, x in chunks(features):
            total += x.sum(axis=0, dtype=np.float64)
        mean = (total / count).astype(np.float32)
    if count <= EXACT or width <= WIDE:
        return Compact(mean, None)
    sample = np.concatenate([np.asarray(part[:: count // EXACT], dtype=np.float32) for part in parts]) - mean
    if not centre:  # what counts is the direction of a row
        sample /= np.maximum(np.linalg.norm(sample, axis=1, keepdims=True), 1e-12)
    np.nan_to_num(sample, copy=False)
    sample /= max(1.0, float(np.abs(sample).max()) / HUGE)
    return Compact(mean, np.ascontiguousarray(np.linalg.eigh(sample.T @ sample)[1][:, -WIDE:]))


def _of_length_1(x: Floats32) -> Floats32:
    """(n, d) rows divided by their lengths, also where the squares are beyond float32; of what is no
    number, a row of zeros.
    """
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(x, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        x = np.where(np.isnan(x).any(axis=1, keepdims=True), np.float32(0), np.nan_to_num(x))
        x /= np.maximum(np.abs(x).max(axis=1, keepdims=True), 1)
        lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.maximum(lengths, 1e-12))


def chunks(features: Features) -> Iterator[tuple[slice, Floats32]]:
    """The features as float32, a bounded number of rows at a time, with their positions."""
    begun = 0
    for part in _parts(features):
        step = max(ROWS, CHUNK // max(1, 4 * part.shape[1]))
        for start in range(0, len(part), step):
            x = np.asarray(part[start : start + step], dtype=np.float32)
            yield slice(begun + start, begun + start + len(x)), x
        begun += len(part)


def _parts(features: Features) -> Sequence[np.ndarray]:
    return (features,) if isinstance(features, np.ndarray) else features


class Lists:
    """(N, d) rows of length 1 in lists around centres found by k-means."""

    def __init__(self, rows: Floats32) -> None:
        from sklearn.cluster import KMeans

        self.rows, count = rows, max(1, len(rows) // LIST)
        rng = np.random.default_rng(0)
        sample = rows[np.sort(rng.permutation(len(rows))[: LEARNT * count])]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fewer different rows than lists
            means = (
                KMeans(count, init="random", n_init=1, max_iter=ROUNDS, random_state=0)
                .fit(sample)
                .cluster_centers_
            )
        self.centres = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        self.probes = self.nearest_lists(rows)  # a row lies in the first of these
        home = self.probes[:, 0]
        self.order = np.argsort(home, kind="stable")
        self.bounds = np.searchsorted(home[self.order], np.arange(count + 1))

    def nearest_lists(self, rows: Floats32) -> NDArray[np.int32]:
        """(Q, PROBES) numbers of the lists whose centres are the nearest, the nearest first."""
        import torch

        probes = min(PROBES, len(self.centres))
        nearest, step = np.empty((len(rows), probes), dtype=np.int32), max(1, BLOCK // len(self.centres))
        for start in range(0, len(rows), step):
            close = torch.from_numpy(rows[start : start + step] @ self.centres.T)
            nearest[start : start + step] = close.topk(probes, dim=1).indices.numpy()
        return nearest

    def search(
        self,
        asked: Floats32,
        many: int,
        *,
        least: float = -2.0,
        own: Ints | None = None,
        tick: Callable[..., None] = lambda **_: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> tuple[Ints, Floats32]:
        """(Q, many) rows that are nearest to (Q, d) `asked`, the nearest first, and their cosines; -1 and
        -2 where there is none.

        Only cosines of `least` and more count. `own` (Q,) are rows that do not count for the one asked, as
        they are it. Where `stop` says so, the search ends with what it has found.
        """
        rows, close = (
            np.full((len(asked), many), -1, dtype=np.int64),
            np.full((len(asked), many), -2.0, dtype=np.float32),
        )
        probed = (self.probes if asked is self.rows else self.nearest_lists(asked)).ravel()
        queries = np.argsort(probed, kind="stable") // max(1, len(probed) // max(1, len(asked)))
        ends = np.cumsum(np.bincount(probed, minlength=len(self.centres)))
        floor = np.full(len(asked), least, dtype=np.float32)  # what a further row has to reach
        for number, end in enumerate(ends):
            members = self.order[self.bounds[number] : self.bounds[number + 1]]
            asking = queries[(0 if number == 0 else ends[number - 1]) : end]
            # Where very many rows are nearly the same, a part of them will do
            pieces = -(-len(members) // LONGEST_LIST)
            for piece in range(pieces if len(asking) else 0):
                self._look(
                    asked, members[piece::pieces], asking[piece::pieces], rows, close, floor, own, least
                )
            tick(label="looking for neighbours", done=number + 1, total=len(ends))
            if stop():
                break
        return rows, close

    def _look(
        self,
        asked: Floats32,
        members: Ints,
        asking: Ints,
        rows: Ints,
        close: Floats32,
        floor: Floats32,
        own: Ints | None,
        least: float,
    ) -> None:
        """Look through one list for those who ask for it; what is nearer than what they have is put into
        `rows` and `close`.
        """
        import torch

        base, step = self.rows[members], max(1, BLOCK // len(members))
        for start in range(0, len(asking), step):
            askers = asking[start : start + step]
            cosines = asked[askers] @ base.T
            if own is not None:
                # Members are in rising order
                place = np.minimum(np.searchsorted(members, own[askers]), len(members) - 1)
                mine = np.flatnonzero(members[place] == own[askers])
                cosines[mine, place[mine]] = -2.0
            better = np.flatnonzero(cosines.max(axis=1) >= floor[askers])
            if not len(better):
                continue
            askers, count = askers[better], min(rows.shape[1], len(members))
            values, places = torch.from_numpy(cosines[better]).topk(count, dim=1)
            nearest = np.where(values.numpy() >= least, values.numpy(), np.float32(-2))
            both = np.concatenate([close[askers], nearest], axis=1)
            who = np.concatenate([rows[askers], np.where(nearest > -2, members[places.numpy()], -1)], axis=1)
            order = np.argsort(-both, axis=1, kind="stable")[:, : rows.shape[1]]
            rows[askers], close[askers] = (
                np.take_along_axis(who, order, axis=1),
                np.take_along_axis(both, order, axis=1),
            )
            floor[askers] = np.maximum(least, close[askers][:, -1])
