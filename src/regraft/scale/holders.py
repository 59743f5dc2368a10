"""Workers that each hold a part of something large, and are asked about it again and again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RaySystemError, WorkerCrashedError

from regraft.errors import RegraftError

LOST = (RayActorError, ObjectLostError, WorkerCrashedError, RaySystemError, ray.exceptions.OutOfMemoryError)
DEATHS = 4  # holders of one piece that may die over one question before it is given up


class _Holder:
    """What runs in a worker's process: the part it holds, and its answers."""

    def __init__(self, threads: int, make: list[Any], piece: list[Any]) -> None:
        from regraft.runtime import begin_worker

        begin_worker(threads)
        self.part = ray.get(make[0])(ray.get(piece[0]))

    def ask(self, name: str, given: tuple[Any, ...]) -> tuple[bool, Any]:
        """True and what the part's method gave, or False and what it raised."""
        try:
            return True, getattr(self.part, name)(*given)
        except Exception as error:
            return False, error


class Holders:
    """A holder a piece; see `crew.Held`."""

    def __init__(
        self, make: Callable[[Any], Any], pieces: Sequence[Any], threads: int, note: Callable[[str], None]
    ) -> None:
        needs = {"num_cpus": threads, "max_restarts": 0, "max_task_retries": 0}
        self.begin, self.threads, self.note = ray.remote(**needs)(_Holder).remote, threads, note
        self.make, self.pieces = [ray.put(make)], [[ray.put(piece)] for piece in pieces]
        self.actors = [self.begin(threads, self.make, piece) for piece in self.pieces]

    def __len__(self) -> int:
        return len(self.pieces)

    def ask(self, name: str, *given: Any) -> list[Any]:
        """Each holder's answer. A lost holder is made anew and asked again."""
        handed = ray.put(given)  # once for all holders
        answers: list[Any] = [None] * len(self)
        waiting = {self.actors[n].ask.remote(name, handed): n for n in range(len(self))}
        deaths = [0] * len(self)
        while waiting:
            (reference,), _ = ray.wait(list(waiting))
            number = waiting.pop(reference)
            try:
                well, answers[number] = ray.get(reference)
            except LOST as error:
                deaths[number] += 1
                if deaths[number] == DEATHS:
                    raise RegraftError(
                        f"{DEATHS} workers ended one after the other over one part of the features: "
                        f"{str(error).strip().splitlines()[0]}"
                    ) from None
                self.note("a worker was lost; another takes the part it held, and the pass goes on")
                ray.kill(self.actors[number])
                self.actors[number] = self.begin(self.threads, self.make, self.pieces[number])
                waiting[self.actors[number].ask.remote(name, handed)] = number
                continue
            if not well:
                raise answers[number]
        return answers

    def close(self) -> None:
        """End the holders."""
        for actor in self.actors:
            ray.kill(actor)


@contextlib.contextmanager
def holding(
    make: Callable[[Any], Any], pieces: Sequence[Any], threads: int, note: Callable[[str], None]
) -> Iterator[Holders]:
    """Holders of these pieces while the context lasts."""
    holders = Holders(make, pieces, threads, note)
    try:
        yield holders
    finally:
        holders.close()
