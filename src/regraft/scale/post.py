"""What lies between processes that work on their own and who sent them: what they tell and keep, and whether they
are to end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

TELLS = 0.25  # seconds between two ticks that are told, and between two looks whether to stop
GLANCE = 0.2  # seconds between two looks at the post


class _Post:
    """The actor: of each number the state that was kept last, of all the events and whether to stop."""

    def __init__(self, kept: Sequence[bytes | None]) -> None:
        self.kept, self.fresh, self.stopping = dict(enumerate(kept)), dict[int, bytes](), False
        self.events: list[tuple[int, dict[str, Any]]] = []
        self.answer: tuple[bool, Any] | None = None

    def tell(self, number: int, event: dict[str, Any]) -> None:
        self.events.append((number, event))

    def keep(self, number: int, state: bytes) -> None:
        self.kept[number] = self.fresh[number] = state

    def last(self, number: int) -> bytes | None:
        return self.kept.get(number)

    def stop(self) -> None:
        self.stopping = True

    def stopped(self) -> bool:
        return self.stopping

    def end(self, well: bool, answer: Any) -> None:
        if self.answer is None:
            self.answer = (well, answer)

    def ended(self) -> bool:
        return self.answer is not None

    def collect(self) -> tuple[list[tuple[int, dict[str, Any]]], dict[int, bytes], tuple[bool, Any] | None]:
        """Events and states that are new, and the answer."""
        events, states = self.events, self.fresh
        self.events, self.fresh = [], {}
        return events, states, self.answer


class Post:
    """The post of one call, at the side of who sent the processes; `actor` is what these are handed.

    `hear` is told the number of who tells an event, and the event; `keep` the number and what it keeps. `kept`
    is what each number kept in an earlier call.
    """

    def __init__(
        self,
        hear: Callable[[int, dict[str, Any]], None],
        keep: Callable[[int, bytes], None],
        kept: Sequence[bytes | None],
    ) -> None:
        self.hear, self.keep, self.stopping = hear, keep, False
        # On this machine: that of a worker would take it along when it is lost
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.actor = ray.remote(num_cpus=0, scheduling_strategy=here)(_Post).remote(kept)

    def look(self) -> tuple[bool, Any] | None:
        """Hand on what is new; gives the answer of a team once it is there."""
        events, states, answer = ray.get(self.actor.collect.remote())
        for number, event in events:
            self.hear(number, event)
        for number, state in states.items():
            self.keep(number, state)
        return answer  # type: ignore[no-any-return]

    def stop(self) -> None:
        """Ask the processes to end, at the first Ctrl-C. Raises KeyboardInterrupt at the second."""
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        ray.get(self.actor.stop.remote())

    def close(self) -> None:
        """Let go of the actor; a process that asks it from now on is to end."""
        ray.kill(self.actor)


class Seat:
    """What a process has (`crew.Seat`); its post knows it by a `number`."""

    def __init__(self, post: Any, number: int, rank: int, world: int, device: str) -> None:
        self.rank, self.world, self.device = rank, world, device
        self._post, self._number, self._told, self._looked, self._stopped = post, number, 0.0, 0.0, False
        self._passes = 0

    def tell(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        if event.get("kind") == "tick":
            if now - self._told < TELLS:
                self._passes += event.get("passes", 0)
                return
            self._told = now
        if self._passes:  # of ticks that were not told
            event = {**event, "passes": event.get("passes", 0) + self._passes}
            self._passes = 0
        self._post.tell.remote(self._number, event)

    def stopped(self) -> bool:
        now = time.monotonic()
        if self.rank == 0 and now - self._looked >= TELLS:
            self._looked = now
            try:
                self._stopped = ray.get(self._post.stopped.remote())
            except ray.exceptions.RayActorError:  # who sent it waits for it no more
                self._stopped = True
        return self._stopped

    def keep(self, state: bytes) -> None:
        ray.get(self._post.keep.remote(self._number, state))

    def kept(self) -> bytes | None:
        return ray.get(self._post.last.remote(self._number))  # type: ignore[no-any-return]
