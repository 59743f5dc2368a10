"""Workers: further processes, on this machine or on others, among which long work is shared out.

Whoever has work to share knows the protocol of this module only. `regraft.scale` has the workers there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Job = TypeVar("Job")
Made = TypeVar("Made")


class Crew(Protocol):
    """Processes that work side by side, each with as many `threads` and `gpus`; what is handed to them is
    pickled on its way and nowhere kept.
    """

    workers: int
    threads: int
    gpus: int

    def each(
        self, make: Callable[[], Callable[[Job], Made]], jobs: Iterable[Job]
    ) -> Iterator[tuple[int, Made]]:
        """The number of each job and what came of it, as they end. A worker calls `make` once, when it gets
        its first job, and what that gives with every job.

        A bounded number of `jobs` is drawn ahead, so they may be without end. A worker that is lost costs the
        jobs it had at that moment, which others do again. What a job raises is raised here.
        """
        ...


def in_order(numbered: Iterable[tuple[int, Made]]) -> Iterator[Made]:
    """What came of jobs, by their numbers; what ends before its turn waits."""
    waiting: dict[int, Made] = {}
    turn = 0
    for number, made in numbered:
        waiting[number] = made
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1
