"""Workers as Ray actors that stay for a whole call, so that libraries, network and compiled engine are there
for the next pass.

Ray Data would begin its actors anew for each of a run's passes (docs/decisions.md). What is lost is seen to
here and not by Ray: a restarted actor of Ray's waits for room, for ever where its node is gone, while those that
are alive could take its jobs.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError, RaySystemError, WorkerCrashedError

from regraft.crew import Held, Job, Made
from regraft.errors import RegraftError
from regraft.scale.post import GLANCE, Post, Seat

AHEAD = 2  # jobs a worker has at once: the next is there when one ends
DEATHS = 4  # workers that may die over one job before it is given up
PATIENCE = 60.0  # seconds after which those that wait for workers are told so
LOST = (RayActorError, ObjectLostError, WorkerCrashedError, RaySystemError, ray.exceptions.OutOfMemoryError)


class Ended:
    """In place of what a job would have given that the user ended."""


class _Worker:
    """What runs in a worker's process. It keeps what the latest factory made."""

    def __init__(self, threads: int, folder: str) -> None:
        with contextlib.suppress(
            OSError
        ):  # another machine may not have it; then paths are absolute or shared
            os.chdir(folder)
        from regraft.runtime import begin_worker, share_processors

        begin_worker(threads)
        share_processors(threads)
        self.name, self.work = "", lambda job: job

    def ready(self) -> int:
        """The number of the process, once it has begun."""
        return os.getpid()

    def do(self, name: str, kept: list[Any], job: Any) -> tuple[bool, Any]:
        """True and what came of a job, or False and what it raised. `kept` holds a reference to the factory
        that `name` stands for, fetched where it is another than before.
        """
        try:
            if self.name != name:
                self.work, self.name = lambda job: job, ""  # first let go of the one before
                self.work, self.name = ray.get(kept[0])(), name
            return True, self.work(job)
        except KeyboardInterrupt:
            return True, Ended()
        except Exception as error:
            return False, error


@dataclass
class _Hand:
    """A worker as the one that hands out jobs sees it: its actor, and how many jobs it has."""

    actor: Any
    jobs: int = 0
    begun: bool = False


@dataclass
class _Task:
    """A job with its number, and how many workers were lost over it."""

    number: int
    job: Any
    deaths: int = 0
    hand: _Hand | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Alone:
    """A factory of what does a numbered job on a seat of its own."""

    function: Callable[[Any, Any], Any]
    post: Any
    device: str

    def __call__(self) -> Callable[[tuple[int, Any]], Any]:
        return lambda job: self.function(Seat(self.post, job[0], 0, 1, self.device), job[1])


class RayCrew:
    """Workers of a cluster that is joined. They begin with the first job and stay until `rest`."""

    def __init__(self, workers: int, threads: int, gpus: bool, note: Callable[[str], None]) -> None:
        self.workers, self.threads, self.gpus, self.note = workers, threads, int(gpus), note
        needs = {"num_cpus": threads, "num_gpus": self.gpus, "max_restarts": 0, "max_task_retries": 0}
        self.begin = ray.remote(**needs)(_Worker).remote
        self.hands: dict[Any, _Hand] = {}  # by the reference that tells that the worker has begun
        self.told, self.waited = False, 0.0  # seconds for which none had begun

    def rest(self) -> None:
        """End all workers, so that what they hold is free for others; they begin anew with the next job."""
        for hand in self.hands.values():
            ray.kill(hand.actor)
        self.hands.clear()

    def each(
        self, make: Callable[[], Callable[[Job], Made]], jobs: Iterable[Job]
    ) -> Iterator[tuple[int, Made]]:
        """See `Crew.each`."""
        yield from self._given_out(make, jobs, AHEAD)

    def trials(
        self,
        function: Callable[[Seat, Job], Made],
        jobs: Sequence[Job],
        hear: Callable[[int, dict[str, Any]], None],
        keep: Callable[[int, bytes], None],
        kept: Sequence[bytes | None],
    ) -> Iterator[tuple[int, Made]]:
        """See `Crew.trials`."""
        post = Post(hear, keep, kept)
        try:
            alone = _Alone(function, post.actor, "cuda" if self.gpus else "cpu")
            for number, made in self._given_out(alone, enumerate(jobs), 1, post):
                if not isinstance(made, Ended):
                    yield number, made
            if post.stopping:
                raise KeyboardInterrupt
        finally:
            post.close()

    def _given_out(
        self,
        make: Callable[[], Callable[[Job], Made]],
        jobs: Iterable[Job],
        ahead: int,
        post: Post | None = None,
    ) -> Iterator[tuple[int, Made]]:
        """See `Crew.each`; a worker has as many as `ahead` jobs at once. With a `post` Ctrl-C ends those under
        way, and no more is begun.
        """
        kept = ray.put(make)
        name, coming = kept.hex(), (_Task(number, job) for number, job in enumerate(jobs))
        again: deque[_Task] = deque()
        running: dict[Any, _Task] = {}
        try:
            while True:
                self._fill()
                while (hand := self._free(ahead)) and (
                    task := again.popleft() if again else next(coming, None)
                ):
                    reference = hand.actor.do.remote(name, [kept], task.job)
                    hand.jobs, task.hand = hand.jobs + 1, hand
                    running[reference] = task
                if not running and not again:
                    first = next(coming, None)
                    if first is None:
                        return
                    again.append(first)
                try:
                    ended = self._ended(running, PATIENCE if post is None else GLANCE)
                    if post is not None:
                        post.look()
                except KeyboardInterrupt:
                    if post is None:
                        raise
                    post.stop()
                    again.clear()
                    coming = iter(())  # type: ignore[assignment]
                    continue
                for reference in ended:
                    if reference not in running:  # it began just now
                        continue
                    task = running.pop(reference)
                    answer = self._answer(reference, task)
                    if answer is None:
                        again.append(task)
                    elif answer[0]:
                        yield task.number, answer[1]
                    else:
                        raise answer[1]
        finally:
            self._drop(running)

    def team(
        self,
        function: Callable[[Any, Any], Any],
        given: Any,
        hear: Callable[[dict[str, Any]], None],
        keep: Callable[[bytes], None],
        kept: bytes | None,
    ) -> Any:
        """See `Crew.team`. The workers of `each` make room for it."""
        from regraft.scale.team import Asked, teamed

        self.rest()
        asked = Asked(function, given, hear, keep, kept)
        return teamed(asked, self.workers, self.threads, self.gpus)

    def hold(
        self, make: Callable[[Any], Any], pieces: Sequence[Any]
    ) -> contextlib.AbstractContextManager[Held]:
        """See `Crew.hold`. The workers of `each` make room for it."""
        from regraft.scale.holders import holding

        self.rest()
        return holding(make, pieces, self.threads, self.note)

    def _fill(self) -> None:
        """Begin as many workers as are lacking."""
        for _ in range(self.workers - len(self.hands)):
            actor = self.begin(self.threads, os.getcwd())
            self.hands[actor.ready.remote()] = _Hand(actor)

    def _free(self, ahead: int) -> _Hand | None:
        """The worker with the fewest jobs of those that have begun; None where all have enough."""
        able = [hand for hand in self.hands.values() if hand.begun and hand.jobs < ahead]
        return min(able, key=lambda hand: hand.jobs, default=None)

    def _ended(self, running: dict[Any, _Task], patience: float) -> list[Any]:
        """References of what has ended, jobs, and beginnings of workers, which are noted here; none after so
        many seconds of `patience`.
        """
        beginnings = [reference for reference, hand in self.hands.items() if not hand.begun]
        ready: list[Any] = ray.wait([*running, *beginnings], timeout=patience)[0]
        self.waited = 0.0 if ready or running else self.waited + patience
        if self.waited >= PATIENCE and not self.told:
            self.told = True
            self.note("there is no room for a worker in the cluster at the moment; waiting for some")
        for reference in ready:
            hand = self.hands.get(reference)
            if hand is not None and not hand.begun:
                try:
                    ray.get(reference)
                    hand.begun = True
                except LOST as error:
                    self._lost(hand, error)
        return ready

    def _answer(self, reference: Any, task: _Task) -> tuple[bool, Any] | None:
        """What a worker gave; None where it was lost. Raises RegraftError for a job that no worker
        survives.
        """
        hand = task.hand
        assert hand is not None
        hand.jobs -= 1
        try:
            return ray.get(reference)  # type: ignore[no-any-return]
        except (*LOST, GetTimeoutError) as error:
            self._lost(hand, error)
            task.deaths += 1
            if task.deaths >= DEATHS:
                raise RegraftError(
                    f"{DEATHS} workers ended one after the other over the same part of the work; the last: {_said(error)} "
                    "A worker may need more memory than its machine has: ask for fewer with --workers."
                ) from None
            return None

    def _lost(self, hand: _Hand, error: Exception) -> None:
        """Let a worker go; another takes its place."""
        found = [reference for reference, other in self.hands.items() if other is hand]
        for reference in found:
            self.note(f"a worker was lost, and what it had is done again: {_said(error)}")
            del self.hands[reference]
            ray.kill(hand.actor)

    def _drop(self, running: dict[Any, _Task]) -> None:
        """Leave what is not done: nobody asks for it any more."""
        for reference, task in running.items():
            if task.hand is not None:
                task.hand.jobs -= 1
            ray.cancel(reference)


def _said(error: Exception) -> str:
    """The first line of Ray's words."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
