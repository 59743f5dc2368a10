"""Workers: further processes, on this machine or on others, among which long work is shared out.

Whoever has work to share knows the protocol of this module only. `regraft.scale` has the workers there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

Job = TypeVar("Job")
Made = TypeVar("Made")
Given = TypeVar("Given")
Piece = TypeVar("Piece")


class Seat(Protocol):
    """What one of several processes that do one thing together has: process `rank` of `world`, from 0 on,
    joined by torch.distributed; `device` is where it computes.
    """

    rank: int
    world: int
    device: str

    def tell(self, event: dict[str, Any]) -> None:
        """Tell an event (`artifacts.Events`) to who sent the team; ticks a few times a second at most."""
        ...

    def stopped(self) -> bool:
        """Whether the user wants it to end; on rank 0 only, which tells the others."""
        ...

    def keep(self, state: bytes) -> None:
        """Hand on from what the team is to go on should one of its processes be lost."""
        ...

    def kept(self) -> bytes | None:
        """What was handed on last, by this team or by one before it."""
        ...


class Held(Protocol):
    """Workers that each hold a part of something large."""

    def __len__(self) -> int: ...

    def ask(self, name: str, *given: Any) -> list[Any]:
        """What the method `name` of each part gives, in the order of the parts. A worker that is lost is
        replaced, and its part asked again. What a method raises is raised here.
        """
        ...


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

    def team(
        self,
        function: Callable[[Seat, Given], Made],
        given: Given,
        hear: Callable[[dict[str, Any]], None],
        keep: Callable[[bytes], None],
        kept: bytes | None,
    ) -> Made:
        """What `function` gives on rank 0 of a process a worker, all of which call it at the same time.

        Its events are heard here, what it keeps is kept here, and `kept` is what an earlier team kept. Where
        a process is lost, all begin again from what was kept last. The first Ctrl-C asks the team to end,
        whose answer counts; the second is raised. What rank 0 raises, or any rank on purpose, is raised here.
        """
        ...

    def trials(
        self,
        function: Callable[[Seat, Job], Made],
        jobs: Sequence[Job],
        hear: Callable[[int, dict[str, Any]], None],
        keep: Callable[[int, bytes], None],
        kept: Sequence[bytes | None],
    ) -> Iterator[tuple[int, Made]]:
        """What `function` gives of each job, with the job's number, as they end: each has a worker and a seat
        of its own, rank 0 of 1, as many at once as there are workers.

        `hear` is told the number of the job whose event it is, `keep` that of whose state; `kept` is what each
        job kept when it was begun before. A worker that is lost costs what was done since. The first Ctrl-C
        asks those under way to end (`Seat.stopped`) and begins no more; what they give still comes, and then
        KeyboardInterrupt is raised; the second is raised at once. A job that raises KeyboardInterrupt gives
        nothing.
        """
        ...

    def hold(self, make: Callable[[Piece], Any], pieces: Sequence[Piece]) -> AbstractContextManager[Held]:
        """A worker a piece, that holds what `make` gives of it, while the context lasts."""
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
