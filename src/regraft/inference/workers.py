"""Reading in worker processes, for a GPU: threads of one interpreter read too few items for it.

Header, colours and random draws hold the interpreter's lock, which ends what threads can read however many
processors there are. Where that is was not measured beyond two processors (docs/performance.md, "GPUs").
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import shutil
import signal
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from threading import Lock, Thread
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from regraft.errors import RegraftError, Unreadable
from regraft.runtime import keep_large_blocks

Item = TypeVar("Item")
FEWEST = 2_000  # items: fewer are read by threads before the first process has started
MOST = 32  # processes
AHEAD = 2  # batches a process has before it, one of them in work
# Bytes a `Reading` may be, which is sent with each batch: one with a tokenizer in it is read by threads
LARGEST = 1 << 16
SHARED = 256 << 20  # bytes of shared memory a process: where there is less, arrays are sent through pipes
SHARED_MEMORY = "/dev/shm"

Otherwise = Callable[[Iterable[Sequence[Any]], "Reading"], Iterator[tuple[Sequence[Any], Any]]]


class Workers:
    """Processes that read batches of items, in order, a few batches ahead, for one caller at a time.

    They are a DataLoader's, and live until `close` or the end of this process, killed or not. With `pin` arrays
    arrive in page-locked memory. What a process cannot be sent is read here; when a process dies (of memory,
    say) this one reads the rest.
    """

    def __init__(self, count: int, pin: bool = False) -> None:
        self.count, self.pin = count, pin
        self.jobs, self.turn = _Jobs(), Lock()
        self.loader: DataLoader[Any] | None = None
        self.broken = False

    def read(
        self, batches: Iterable[Sequence[Item]], reading: Reading, otherwise: Otherwise
    ) -> Iterator[tuple[Sequence[Item], Any]]:
        """Each batch with what `reading` makes of its items, in order. Raises what that raises. `otherwise` reads
        what the processes cannot: all while they read for another caller, the rest when one died.
        """
        stream, waiting = iter(batches), deque[tuple[Sequence[Item], bytes]]()

        def drawn() -> Iterator[list[bytes]]:
            for some in stream:
                waiting.append((some, _packed(reading, some)))
                yield [waiting[-1][1]]

        if self.broken or not self.turn.acquire(blocking=False):
            yield from otherwise(stream, reading)
            return
        try:
            answers = self._begin(drawn())
            while (made := self._next(answers)) is not _END:
                some, sent = waiting.popleft()
                if isinstance(made, _Failed):
                    raise made.error
                yield some, _arrays(made) if sent else reading(some)
            if self.broken:
                yield from otherwise(chain((some for some, _ in waiting), stream), reading)
        finally:
            self.turn.release()

    def close(self) -> None:
        """End the processes."""
        self.loader = None

    def _begin(self, jobs: Iterator[list[bytes]]) -> Iterator[Any]:
        """The answers to jobs; the processes are started where they are not there yet."""
        if self.loader is None:
            self.loader = DataLoader(
                _Desk(),
                batch_sampler=self.jobs,
                collate_fn=_as_it_is,
                num_workers=self.count,
                prefetch_factor=AHEAD,
                persistent_workers=True,
                pin_memory=self.pin,
                worker_init_fn=_settle,
                multiprocessing_context=_processes(),
                generator=torch.Generator(),  # else it draws from torch's own, and training would differ
            )
            with _main_kept_out():
                iter(self.loader)  # of no jobs: so nothing of the caller's runs while `__main__` is out
        self.jobs.current = jobs
        return iter(self.loader)

    def _next(self, answers: Iterator[Any]) -> Any:
        try:
            return next(answers, _END)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            self.broken = True
            self.close()
            return _END


_END = object()
_shared: dict[bool, Workers] = {}  # by whether memory is page-locked


def workers_for(device: torch.device, reads: int, reading: Reading) -> Workers | None:
    """The worker processes of this process, where so many `reads` for a device are worth them; None where
    threads read: for a CPU, which is busy with the network, for few items, on one processor, for a `reading` that
    cannot be sent, and in a process that may have none of its own.
    """
    count = min(MOST, processors() - 1)
    if not feeds(device) or count < 2 or multiprocessing.current_process().daemon:
        return None
    pin = device.type == "cuda"
    if reads < (FEWEST if pin not in _shared else 1) or not 0 < len(_packed(reading, ())) <= LARGEST:
        return None
    return _shared.setdefault(pin, Workers(count, pin))


def feeds(device: torch.device) -> bool:
    """Whether a device computes beside the processors, which are then free to read."""
    return device.type == "cuda"


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Reading:
    """What is made of a batch of items: a list of what `read` makes of each. With `collate` one batch of them
    (None where there are none), and beside it the Unreadable that `read` gave in place of an item, by their places.
    """

    read: Callable[[Any], Any]
    collate: Callable[[Sequence[Any]], dict[str, np.ndarray]] | None = None

    def __call__(self, items: Sequence[Any]) -> Any:
        """What is made of these items, read one after the other."""
        return self.joined([self.read(item) for item in items])

    def joined(self, made: list[Any]) -> Any:
        """What is made of items that were read already."""
        if self.collate is None:
            return made
        odd = {place: one for place, one in enumerate(made) if isinstance(one, Unreadable)}
        raws = [one for place, one in enumerate(made) if place not in odd]
        return self.collate(raws) if raws else None, odd


def _packed(reading: Reading, items: Sequence[Any]) -> bytes:
    """A job for a process; b"" for what cannot be sent, or is known to this process's script alone."""
    try:
        job = pickle.dumps((reading, list(items)))
    except Exception:  # whatever an item's own class stumbles over
        return b""
    return b"" if b"__main__" in job else job


@dataclass(frozen=True)
class _Failed:
    """What was raised in a process."""

    error: Exception


class _Jobs(Sampler[list[bytes]]):
    """The jobs of the iteration under way: a DataLoader asks for them where it expects indices."""

    def __init__(self) -> None:
        self.current: Iterator[list[bytes]] = iter(())

    def __iter__(self) -> Iterator[list[bytes]]:
        return self.current


class _Desk(Dataset[Any]):
    """Where a process is given its jobs. It holds nothing, so it serves any reading."""

    def __getitems__(self, jobs: list[bytes]) -> Any:
        (job,) = jobs
        if not job:
            return None
        try:
            reading, items = pickle.loads(job)
            made = reading(items)
            return _tensors(made) if _room_to_share() else made
        except Exception as error:
            return _Failed(_sendable(error))


def _sendable(error: Exception) -> Exception:
    """The error, or one that says the same where it would not arrive whole."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RegraftError(f"{type(error).__name__}: {error}")
    return error


def _tensors(made: Any) -> Any:
    """A batch's arrays as tensors, which are sent through shared memory."""
    if isinstance(made, tuple):
        return tuple(_tensors(one) for one in made)
    if not isinstance(made, dict):
        return made
    return {name: torch.from_numpy(one) if isinstance(one, np.ndarray) else one for name, one in made.items()}


def _arrays(made: Any) -> Any:
    """The reverse of `_tensors`."""
    if isinstance(made, tuple):
        return tuple(_arrays(one) for one in made)
    if not isinstance(made, dict):
        return made
    return {name: one.numpy() if isinstance(one, torch.Tensor) else one for name, one in made.items()}


def _room_to_share() -> bool:
    """Whether shared memory is roomy: a container has 64 MB unless it was given more, and a process that
    writes beyond that is killed.
    """
    try:
        return shutil.disk_usage(SHARED_MEMORY).free > SHARED * torch.utils.data.get_worker_info().num_workers  # type: ignore[union-attr]
    except OSError:  # another system, with shared memory of another kind
        return True


def _as_it_is(made: Any) -> Any:
    return made


def _settle(_: int) -> None:
    """In each process, before its first job: Ctrl-C is for the parent, which may want to go on reading, and whose
    death is this one's.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    keep_large_blocks()


def _end_with_parent() -> None:
    """A DataLoader's own watch sees the server that forked this process, which in turn lives while this one does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _processes() -> Any:
    """How processes are started: never by a fork of this one, whose threads and GPU a child cannot have.
    A server forks them where there is one (not on Windows), with torch already imported.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


@contextlib.contextmanager
def _main_kept_out() -> Iterator[None]:
    """Processes that are started meanwhile do not run the user's script anew, which need not be guarded by
    `if __name__ == "__main__"` then. They are sent nothing that is known to it alone.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
