"""Reading ahead: items are decoded on threads while the network works, a bounded number of batches in
advance.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

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
