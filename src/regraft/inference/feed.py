"""Reading ahead: items are decoded on threads while the network works, a bounded number of batches in
advance.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from regraft.modalities import bucket_of

Item = TypeVar("Item")
Raw = TypeVar("Raw")
AHEAD = 2  # batches decoded in advance: one is not always enough when sizes differ, more only costs memory


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter."""
    stream = iter(items)
    while some := list(islice(stream, size)):
        yield some


def prefetch(
    batches: Iterable[Sequence[Item]], read: Callable[[Item], Raw]
) -> Iterator[tuple[Sequence[Item], list[Raw]]]:
    """Each batch with what `read` made of its items, in order. Pillow frees the interpreter lock, so
    threads suffice.
    """
    stream = iter(batches)
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        waiting: deque[tuple[Sequence[Item], list[Future[Raw]]]] = deque()

        def submit() -> None:
            for some in islice(stream, 1):
                waiting.append((some, [pool.submit(read, item) for item in some]))

        try:
            for _ in range(AHEAD):
                submit()
            while waiting:
                some, futures = waiting.popleft()
                submit()
                yield some, [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


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
