"""Work on many items in threads, in order, without holding more of it than is due soon."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
AHEAD = 1_024  # items that are begun before the first of them is asked for


def in_turn(
    pool: ThreadPoolExecutor, work: Callable[[Item], Made], items: Iterable[Item], ahead: int = AHEAD
) -> Iterator[Made]:
    """What `work` makes of each item, in order, `ahead` of them begun at once: of a million items only these
    wait in memory.
    """
    stream = iter(items)
    waiting = deque(pool.submit(work, item) for item in islice(stream, ahead))
    while waiting:
        made = waiting.popleft().result()
        waiting.extend(pool.submit(work, item) for item in islice(stream, 1))
        yield made
