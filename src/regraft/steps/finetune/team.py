"""One training by several processes: each takes its share of every batch, and rank 0 keeps what comes of it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from regraft.crew import Seat
from regraft.data.part import Part
from regraft.errors import RegraftError
from regraft.steps.context import Context
from regraft.steps.finetune.work import Found, Work
from regraft.steps.trials import Posted, Sent
from regraft.training import Checkpoint, Ranks, Trained

if TYPE_CHECKING:
    from regraft.steps.finetune.tune import Tuner

BEGINNING = 20.0  # seconds that several processes have to save, which take as long to begin


@dataclass(frozen=True)
class Lesson:
    """All that a process needs to train with the others; `digest` is that of what stays frozen."""

    tuner: Tuner
    head: nn.Module
    data: Part
    val: Part | None
    found: Found
    epochs: int
    key: str
    digest: str
    sent: Sent

    def context(self, seat: Seat) -> Context:
        """What the steps of a training may use in the process of this seat: rank 0 tells what happens."""
        heard = (seat.tell,) if seat.rank == 0 else ()
        return self.sent.context(seat, heard, Ranks(seat.rank, seat.world, seat.device), stored=False)


def worth_a_team(work: Work, epochs: int) -> bool:
    """Whether several processes train the network of `work` in less time than one. Where norms follow the
    batches it has to be one: each of several would follow its own share.
    """
    crew = work.context.crew
    if crew is None or crew.workers < 2 or not epochs:
        return False
    if work.moves_statistics():
        work.context.events.note(
            "one process trains: norms follow whole batches, which several would not see"
        )
        return False
    return epochs * work.seconds_an_epoch() * (1 - 1 / crew.workers) > BEGINNING


def trained_together(
    work: Work, tuner: Tuner, head: nn.Module, epochs: int, checkpoint: Checkpoint
) -> Trained:
    """Train the network of `work` in the processes of the crew, and leave it at its best here.

    A process that is lost costs what was done since the last checkpoint. Raises RegraftError, naming the
    rank, should anything frozen have moved in one of them.
    """
    context, crew = work.context, work.context.crew
    assert crew is not None
    precision = work.arithmetic.precision
    if crew.gpus and context.device.type != "cuda":  # the trial was made on another kind of machine
        precision = "bfloat16" if tuner.tuning.precision == "auto" else tuner.tuning.precision
    prefix = work.prefix.bare() if work.prefix else None
    lesson = Lesson(
        tuner,
        head,
        _needed(work.data),
        _needed(work.val) if work.val else None,
        Found(prefix, precision),
        epochs,
        checkpoint.key,
        work.frozen_digest,
        Sent.of(context),
    )
    trained = crew.team(learn, lesson, context.events.again, checkpoint.put, checkpoint.content())
    assert trained is not None
    work.network.load_state_dict(trained.best, strict=False)
    work.network.eval()
    return trained


def learn(seat: Seat, lesson: Lesson) -> Trained | None:
    """What each process does; rank 0 tells how training ended."""
    context = lesson.context(seat)
    with tempfile.TemporaryDirectory(prefix="regraft-") as folder:
        checkpoint = Posted(seat, Path(folder) / "team.safetensors")
        checkpoint.key = lesson.key
        work = Work(lesson.tuner, lesson.head, lesson.data, lesson.val, context, lesson.found)
        torch.manual_seed(lesson.sent.recipe.run.seed)
        trained = work.train(lesson.epochs, checkpoint, seat.stopped)
    digests = context.ranks.every(work.plan.digest(work.tuned.module))
    moved = [str(rank) for rank, digest in enumerate(digests) if digest != lesson.digest]
    if moved:
        raise RegraftError(
            f"something frozen moved during fine-tuning on rank {', '.join(moved)} of {seat.world}: "
            "a fault of regraft, please report it"
        )
    trained.best = {name: tensor.cpu() for name, tensor in trained.best.items()}
    return trained if seat.rank == 0 else None


def _needed(part: Part) -> Part:
    """The columns that training looks at."""
    return Part(
        part.name, part.ids, items=part.items, labels=part.labels, weights=part.weights, blocks=part.blocks
    )
