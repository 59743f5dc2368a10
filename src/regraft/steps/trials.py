"""Trials: trainings that do not wait for each other. Workers take one each, or they are made in turn, by the same
function and with the same decisions.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from regraft.artifacts import Events, Listener
from regraft.crew import Seat, in_order
from regraft.inference import FeatureStore
from regraft.modalities import Modality
from regraft.recipe import Recipe
from regraft.steps.context import Context
from regraft.training import Checkpoint, Ranks

Job = TypeVar("Job")
Made = TypeVar("Made")
Trial = Callable[[Context, Checkpoint, Job], Made]


@dataclass(frozen=True)
class Sent:
    """A context on its way to another process. `spent` are the seconds of the budget that were used at the time
    `sent` (seconds since the epoch); `cache` is the folder of the store.
    """

    recipe: Recipe
    modality: Modality
    share: float
    spent: float
    sent: float
    cache: Path | None

    @classmethod
    def of(cls, context: Context) -> Sent:
        """Of this context, now."""
        spent, folder = time.monotonic() - context.started, context.store.folder
        return cls(context.recipe, context.modality, context.share, spent, time.time(), folder)

    def context(
        self, seat: Seat, listeners: tuple[Listener, ...], ranks: Ranks | None = None, stored: bool = True
    ) -> Context:
        """The context in the process of a seat. Where it is `stored` and this machine has the folder, features
        are kept there.
        """
        began = time.monotonic() - self.spent - (time.time() - self.sent)
        folder = self.cache if stored and self.cache is not None and self.cache.is_dir() else None
        return Context(
            self.recipe,
            FeatureStore(folder),
            torch.device(seat.device),
            Events(None, listeners),
            self.modality,
            began,
            share=self.share,
            ranks=ranks or Ranks(),
        )


class Posted(Checkpoint):
    """A checkpoint in a file of the process's own, each version of which is handed to who sent the process. It
    begins as what was handed on last.
    """

    def __init__(self, seat: Seat, path: Path) -> None:
        super().__init__(path)
        self.seat, state = seat, seat.kept()
        if state is not None:
            self.put(state)

    def save(self, state: dict[str, Any]) -> None:
        """Replace what was kept, here and there."""
        super().save(state)
        began, content = time.monotonic(), self.content()
        if content is not None:
            self.seat.keep(content)
        self.saved = time.monotonic()
        self.cost += self.saved - began


def side_by_side(context: Context, count: int) -> bool:
    """Whether workers make so many trials, each its own: not where most of them would have nothing to do, while
    all of them together could train one after the other.
    """
    crew = context.crew
    return crew is not None and crew.workers > 1 and count > 1 and 2 * count >= crew.workers


def trials(
    function: Trial[Job, Made],
    jobs: Sequence[Job],
    context: Context,
    label: str,
    checkpoints: Sequence[Checkpoint] = (),
) -> Generator[Made]:
    """What `function` gives of each job, in their order, as soon as it is known. `function` gets a context and the
    job's checkpoint beside the job.

    Workers make as many at once as there are of them, where they are worth it; whoever draws no more ends
    those under way. What their trainings tell is told here, their progress as one bar that is called `label`.
    Raises KeyboardInterrupt where the user stops it, after what came of the trials under way.
    """
    kept = [*checkpoints, *(Checkpoint() for _ in jobs[len(checkpoints) :])]
    crew = context.crew
    if crew is None or not side_by_side(context, len(jobs)):
        yield from (function(context, one, job) for one, job in zip(kept, jobs, strict=True))
        return
    progress = _Progress(context.events, f"{label}, {min(crew.workers, len(jobs))} at once", len(jobs))
    contents = [one.content() for one in kept]
    away = crew.trials(
        _Away(function, Sent.of(context)), jobs, progress.hear, lambda n, state: kept[n].put(state), contents
    )
    yield from in_order(progress.ended(away))


@dataclass(frozen=True)
class _Away:
    """What a worker does of a job."""

    function: Trial[Any, Any]
    sent: Sent

    def __call__(self, seat: Seat, job: Any) -> Any:
        context = self.sent.context(seat, (_Heard(seat),))
        with tempfile.TemporaryDirectory(prefix="regraft-") as folder:
            return self.function(context, Posted(seat, Path(folder) / "trial.safetensors"), job)


class _Heard:
    """Passes events on, and raises KeyboardInterrupt at one of them, once, where the user wants the trials to end:
    as a Ctrl-C comes in the middle of the work.
    """

    def __init__(self, seat: Seat) -> None:
        self.seat, self.ended = seat, False

    def __call__(self, event: dict[str, Any]) -> None:
        self.seat.tell(event)
        if not self.ended and self.seat.stopped():
            self.ended = True
            raise KeyboardInterrupt


class _Progress:
    """One bar for all trials: how many are done, with what is done of those under way, and their speeds together."""

    def __init__(self, events: Events, label: str, count: int) -> None:
        self.events, self.label = events, label
        self.done, self.speeds = [0.0] * count, [0.0] * count

    def hear(self, number: int, event: dict[str, Any]) -> None:
        """Tell an event of the trial of this number; its progress is that of all."""
        if event["kind"] != "tick":
            self.events.again(event)
        elif "epoch" in event and event["total"]:
            self.done[number] = max(self.done[number], event["done"] / event["total"])
            self.speeds[number] = event.get("examples_per_second", 0.0)
            self._tell(event.get("passes", 0))
        elif event.get("passes"):
            self._tell(event["passes"])

    def ended(self, numbered: Iterator[tuple[int, Made]]) -> Iterator[tuple[int, Made]]:
        """The same, each told as done."""
        for number, made in numbered:
            self.done[number], self.speeds[number] = 1.0, 0.0
            self._tell()
            yield number, made

    def _tell(self, passes: int = 0) -> None:
        speed, done = sum(self.speeds), round(sum(self.done), 1)
        rate = {"examples_per_second": speed} if speed else {}
        self.events.tick(label=self.label, done=done, total=len(self.done), passes=passes, **rate)
