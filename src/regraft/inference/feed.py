"""Reading ahead: items are decoded while the network works, a bounded number of batches in advance, on threads
or, for a GPU, in processes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from regraft.errors import Unreadable
from regraft.modalities import bucket_of
from regraft.runtime import processors

if TYPE_CHECKING:
    import torch

    from regraft.inference.workers import Reading, Workers

Item = TypeVar("Item")
Raw = TypeVar("Raw")
Group = TypeVar("Group")
Made = TypeVar("Made")
Key = TypeVar("Key")
Done = TypeVar("Done", covariant=True)
AHEAD = 2  # batches decoded in advance: one is not always enough when sizes differ, more only costs memory
MOST_LANES = 8  # batches that run at once: each holds the activations of its own


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter."""
    stream = iter(items)
    while some := list(islice(stream, size)):
        yield some


class Host(Protocol):
    """The host half of a preprocessing. Where `varying` is there and names nothing, all items have one shape."""

    def host(self, item: Any) -> Any:
        """What the network sees of one item."""
        ...

    def collate(self, raws: Sequence[Any]) -> dict[str, np.ndarray]:
        """A batch of several."""
        ...


class Begun(Protocol[Done]):
    """What a device that computes aside was told to do."""

    def result(self) -> Done:
        """What came of it, once it is done."""
        ...


class Feed:
    """Threads that read items ahead of a network, and run its batches where it takes several at once.

    With one lane, as many threads read as there are processors, and the batches run on the caller's. With
    more there are only as many threads as lanes, and each reads or runs: more would wait for each other.
    Pillow frees the interpreter lock for what takes longest, so threads suffice beside a network on the same
    processors. For a `device` that computes beside them, and so many `reads` that it pays, processes read
    (`workers.py`). It is a context manager; on the way out what has not begun is dropped.
    """

    def __init__(self, lanes: int = 1, device: torch.device | None = None, reads: int = 0) -> None:
        self.lanes, self.device, self.reads = lanes, device, reads
        self.pool = ThreadPoolExecutor(max_workers=lanes if lanes > 1 else processors())

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *problem: object) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)

    def read(
        self, batches: Iterable[Sequence[Item]], read: Callable[[Item], Raw]
    ) -> Iterator[tuple[Sequence[Item], list[Raw]]]:
        """Each batch with what `read` made of its items, in order. One item alone is read on the caller's thread."""
        if self.reads == 1:
            yield from ((some, [read(item) for item in some]) for some in batches)
            return
        tasks = ((some, [self.pool.submit(read, item) for item in some]) for some in batches)
        for some, futures in _ahead(tasks, AHEAD * self.lanes):
            yield some, [future.result() for future in futures]

    def made(
        self, batches: Iterable[Sequence[Item]], reading: Reading
    ) -> Iterator[tuple[Sequence[Item], Any]]:
        """Each batch with what `reading` makes of it, in order, by processes where they are worth it."""
        workers = self._workers(reading)
        if workers is None:
            yield from self._threads(batches, reading)
        else:
            yield from workers.read(batches, reading, self._threads)

    def groups(
        self,
        items: Iterable[tuple[Key, Any]],
        host: Host,
        size: int,
        ahead: int | None = None,
        odd: Callable[[Key, Unreadable], None] | None = None,
    ) -> Iterator[tuple[list[Key], Callable[[], dict[str, np.ndarray]]]]:
        """Groups of `size` items that go in one shape, as `alike` makes them: their keys, and what gives their
        batch. `odd` is told of each item that cannot be read (Unreadable, which is raised otherwise).
        """
        from regraft.inference.workers import Reading

        read = _Read(host, tolerant=odd is not None)
        whole = Reading(read, host.collate)
        if getattr(host, "varying", None) == () and self._workers(whole) is not None:
            for some, (batch, errors) in self.made(batched(items, size), whole):
                for place, error in errors.items():
                    odd(some[place][0], error)  # type: ignore[misc]
                if batch is not None:
                    keys = [key for place, (key, _) in enumerate(some) if place not in errors]
                    yield keys, partial(_given, batch)
            return

        def readable() -> Iterator[tuple[Key, Any]]:
            for some, raws in self.made(batched(items, size), Reading(read)):
                for (key, _), raw in zip(some, raws, strict=True):
                    if isinstance(raw, Unreadable):
                        odd(key, raw)  # type: ignore[misc]
                    else:
                        yield key, raw

        for keys, raws in alike(readable(), size, ahead):
            yield keys, partial(host.collate, raws)

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

    def ahead(
        self, groups: Iterable[Group], begin: Callable[[Group], Begun[Made]]
    ) -> Iterator[tuple[Group, Made]]:
        """Each group with the result of what was begun with it, in order. The next is begun before a result is
        waited for.
        """
        for group, begun in _ahead(((one, begin(one)) for one in groups), 1):
            yield group, begun.result()

    def _workers(self, reading: Reading) -> Workers | None:
        if self.device is None:
            return None
        from regraft.inference.workers import workers_for

        return workers_for(self.device, self.reads, reading)

    def _threads(
        self, batches: Iterable[Sequence[Item]], reading: Reading
    ) -> Iterator[tuple[Sequence[Item], Any]]:
        for some, made in self.read(batches, reading.read):
            yield some, reading.joined(made)


@dataclass(frozen=True)
class _Read:
    """Reads the item of a (key, item); where it is `tolerant` an item that cannot be read is the error."""

    host: Host
    tolerant: bool

    def __call__(self, pair: tuple[Any, Any]) -> Any:
        try:
            return self.host.host(pair[1])
        except Unreadable as error:
            if self.tolerant:
                return error
            raise


def _given(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return batch


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
