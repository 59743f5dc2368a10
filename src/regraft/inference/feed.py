"""Reading ahead: items are decoded on threads while the network works, a bounded number of batches in
advance.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from regraft.modalities import bucket_of

Item = TypeVar("Item")
Raw = TypeVar("Raw")
Group = TypeVar("Group")
Made = TypeVar("Made")
AHEAD = 2  # batches decoded in advance: one is not always enough when sizes differ, more only costs memory
MOST_LANES = 8  # batches that run at once: each holds the activations of its own


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter."""
    stream = iter(items)
    while some := list(islice(stream, size)):
        yield some


class Feed:
    """Threads that read items ahead of a network, and run its batches where it takes several at once.

    With one lane, as many threads read as there are processors, and the batches run on the caller's. With
    more there are only as many threads as lanes, and each reads or runs: more would wait for each other.
    Pillow and the engines free the interpreter lock, so threads suffice. It is a context manager; on the way
    out what has not begun is dropped.
    """

    def __init__(self, lanes: int = 1) -> None:
        self.lanes = lanes
        self.pool = ThreadPoolExecutor(max_workers=lanes if lanes > 1 else os.cpu_count() or 1)

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *problem: object) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)

    def read(
        self, batches: Iterable[Sequence[Item]], read: Callable[[Item], Raw]
    ) -> Iterator[tuple[Sequence[Item], list[Raw]]]:
        """Each batch with what `read` made of its items, in order."""
        tasks = ((some, [self.pool.submit(read, item) for item in some]) for some in batches)
        for some, futures in _ahead(tasks, AHEAD * self.lanes):
            yield some, [future.result() for future in futures]

    def run(self, groups: Iterable[Group], run: Callable[[Group], Made]) -> Iterator[tuple[Group, Made]]:
        """Each group of prepared items with what `run` made of it, in order."""
        if self.lanes == 1:
            for group in groups:
                yield group, run(group)
        else:
            for group, future in _ahead(
                ((one, self.pool.submit(run, one)) for one in groups), AHEAD * self.lanes
            ):
                yield group, future.result()


def lanes_for(threads: int) -> int:
    """How many batches an engine on so many threads runs at once."""
    return min(threads, MOST_LANES)


def _ahead(tasks: Iterator[Item], count: int) -> Iterator[Item]:
    """The same items, of which `count` are drawn before the first is given away."""
    waiting = deque(islice(tasks, count))
    while waiting:
        first = waiting.popleft()
        waiting.extend(islice(tasks, 1))
        yield first


def prefetch(
    batches: Iterable[Sequence[Item]], read: Callable[[Item], Raw]
) -> Iterator[tuple[Sequence[Item], list[Raw]]]:
    """Each batch with what `read` made of its items, in order, read ahead by a `Feed` of its own."""
    with Feed() as feed:
        yield from feed.read(batches, read)


def alike(
    raws: Iterable[tuple[Item, np.ndarray]], size: int, ahead: int | None = None
) -> Iterator[tuple[list[Item], list[np.ndarray]]]:
    """Batches of `size` prepared items that go in one shape, by the bucket of their lengths, each item with
    what it came with; of items that all have one length, the batches that `batched` makes.

    A batch comes as soon as it is full, one that never is at the end. With `ahead` it comes, full or not,
    once so many others came after its first item, so that who waits for an item does not wait for all.
    """
    waiting: dict[int, list[tuple[int, Item, np.ndarray]]] = defaultdict(list)

    def taken(bucket: int) -> tuple[list[Item], list[np.ndarray]]:
        some = waiting.pop(bucket)
        return [item for _, item, _ in some], [raw for _, _, raw in some]

    for number, (item, raw) in enumerate(raws):
        bucket = bucket_of(len(raw))
        waiting[bucket].append((number, item, raw))
        if len(waiting[bucket]) == size:
            yield taken(bucket)
        late = next(iter(waiting), None)  # the one that has waited longest
        if ahead is not None and late is not None and number - waiting[late][0][0] >= ahead:
            yield taken(late)
    while waiting:
        yield taken(next(iter(waiting)))
