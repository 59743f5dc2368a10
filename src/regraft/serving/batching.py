"""One thread that runs a model: what several requests ask at the same time is one batch."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Generic, TypeVar

Raw = TypeVar("Raw")
Result = TypeVar("Result")
Waiting = tuple["asyncio.Future[Any]", Hashable, Any, float]


class Batcher(Generic[Raw, Result]):
    """Answers items in batches of at most `largest`, each by one call of `work(how, raws)`, on one thread.

    A batch begins as soon as the thread is free and nothing else is on its way; for what is on its way it
    waits until the first of its items has waited for `wait` seconds. So a single caller never waits, and
    with many each batch gathers what came during the one before. All items of a batch are to be answered in
    the same way (`how`). All methods belong to the event loop it was made in, `work` to the thread.
    """

    def __init__(
        self,
        work: Callable[[Any, list[Raw]], Sequence[Result]],
        largest: int = 32,
        wait: float = 0.005,
        heard: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self.work, self.largest, self.wait, self.heard = work, largest, wait, heard
        self.loop = asyncio.get_running_loop()
        self.changed = threading.Condition()
        self.waiting: deque[Waiting] = deque()
        self.calls: deque[tuple[asyncio.Future[Any], Callable[[], Any]]] = deque()
        self.coming, self.closed = 0, False
        self.thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.thread.start()

    @property
    def alive(self) -> bool:
        """Whether it will answer."""
        return self.thread.is_alive() and not self.closed

    @contextlib.contextmanager
    def on_its_way(self) -> Iterator[Callable[[], None]]:
        """Inside, a batch may wait for what comes; the callable says that it has come."""
        done = False

        def come() -> None:
            nonlocal done
            if not done:
                done = True
                with self.changed:
                    self.coming -= 1
                    self.changed.notify()

        with self.changed:
            self.coming += 1
        try:
            yield come
        finally:
            come()

    async def answer(self, how: Hashable, raws: Sequence[Raw]) -> list[Result]:
        """What `work` makes of each, in order. Raises what it raised."""
        now = time.monotonic()
        futures = [self.loop.create_future() for _ in raws]
        with self.changed:
            self.waiting.extend((future, how, raw, now) for future, raw in zip(futures, raws, strict=True))
            self.changed.notify()
        return list(await asyncio.gather(*futures))

    async def call(self, function: Callable[[], Result]) -> Result:
        """What the function gives, called on the thread between two batches. Raises what it raised."""
        future = self.loop.create_future()
        with self.changed:
            self.calls.append((future, function))
            self.changed.notify()
        return await future  # type: ignore[no-any-return]

    def close(self) -> None:
        """The thread ends when nothing waits any more."""
        with self.changed:
            self.closed = True
            self.changed.notify()

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            batch, call = taken
            if batch:
                began = time.monotonic()
                try:
                    results: Any = self.work(batch[0][1], [raw for _, _, raw, _ in batch])
                except Exception as error:
                    results = [error] * len(batch)
                self._tell([future for future, *_ in batch], results)
                self.heard(len(batch), time.monotonic() - began)
            if call is not None:
                future, function = call
                try:
                    result = function()
                except Exception as error:
                    result = error
                self._tell([future], [result])

    def _take(self) -> tuple[list[Waiting], Any] | None:
        """The next batch, and the next call beside it; None when it is over."""
        with self.changed:
            while not self.waiting and not self.calls:
                if self.closed:
                    return None
                self.changed.wait()
            while self.waiting and self.coming and not self.closed and len(self.waiting) < self.largest:
                left = self.waiting[0][3] + self.wait - time.monotonic()
                if left <= 0:
                    break
                self.changed.wait(left)
            batch: list[Waiting] = []
            others: list[Waiting] = []
            while self.waiting and len(batch) < self.largest:
                one = self.waiting.popleft()
                if one[0].cancelled():
                    continue
                (batch if not batch or one[1] == batch[0][1] else others).append(one)
            self.waiting.extendleft(reversed(others))
            while self.calls and self.calls[0][0].cancelled():
                self.calls.popleft()
            return batch, self.calls.popleft() if self.calls else None

    def _tell(self, futures: Sequence[asyncio.Future[Any]], results: Sequence[Any]) -> None:
        """Give the results to the event loop, all at once: it is woken once a batch."""

        def tell() -> None:
            for future, result in zip(futures, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self.loop.call_soon_threadsafe(tell)
