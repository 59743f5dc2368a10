"""How good each candidate is: a linear probe on its frozen features, and what the task knows beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from regraft.data.part import Part
from regraft.evaluation import folds_of, standard_error
from regraft.recipe import Recipe
from regraft.steps.context import Context
from regraft.steps.evidence import CLEAR_ERRORS
from regraft.steps.trials import trials
from regraft.tasks import Probed, Score, Task
from regraft.training import Checkpoint, fit_path

if TYPE_CHECKING:
    from regraft.steps.rank.entrants import Entrant

FOLDS = 5


@dataclass(frozen=True)
class Probe:
    """Out-of-fold results of one candidate, on the same (N,) rows as those of every other in its round."""

    entrant: Entrant
    depth: int
    losses: np.ndarray  # (N,) of the task
    blocks: np.ndarray | None  # (N,) of the same rows
    scores: tuple[Score, ...]


class Standing(NamedTuple):
    """What candidates are sorted by. `cut` is true of a network cut short that is not clearly better than
    the whole one, behind which it stands.
    """

    loss: float
    cut: bool


def clearly_lower(losses: np.ndarray, others: np.ndarray, blocks: np.ndarray | None = None) -> bool:
    """Whether (N,) losses are lower than others of the same examples by more than two standard errors of
    the difference.
    """
    gain = others - losses
    return bool(gain.mean() > CLEAR_ERRORS * standard_error(gain, blocks))


def probe(racing: Sequence[Entrant], part: Part, task: Task, context: Context) -> list[Probe]:
    """The out-of-fold results of every candidate on the round's examples, `part`, whose features it has."""
    weights = task.weighted(part.labels, part.weights, "none")
    pairs = [(entrant, depth) for entrant in racing for depth in sorted(entrant.features)]
    work = _Probing(part.labels, weights, part.blocks, task, len(pairs))
    jobs = list(enumerate([entrant.features[depth] for entrant, depth in pairs], start=1))
    found = trials(work, jobs, context, f"probes on {len(part)} examples")
    return [Probe(entrant, depth, *made) for (entrant, depth), made in zip(pairs, found, strict=True)]


@dataclass(frozen=True)
class _Probing:
    """A trial of numbered features (N, D): losses, blocks and scores, out of fold."""

    labels: np.ndarray
    weights: np.ndarray
    blocks: np.ndarray | None
    task: Task
    count: int

    def __call__(
        self, context: Context, _: Checkpoint, job: tuple[int, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray | None, tuple[Score, ...]]:
        number, values = job
        labels, blocks, task, seed = self.labels, self.blocks, self.task, context.recipe.run.seed
        path = fit_path(values, labels, self.weights, task, FOLDS, seed, blocks=blocks)
        folds = folds_of(task.strata(labels), FOLDS, seed, blocks)
        losses = task.losses(labels[path.rows], path.logits)
        scores = task.scores(Probed(values, labels, blocks, folds, path.rows, path.logits))
        context.events.tick(label=f"probes on {len(labels)} examples", done=number, total=self.count)
        return losses, None if blocks is None else blocks[path.rows], scores


def standings(probes: Sequence[Probe], recipe: Recipe) -> dict[int, Standing]:
    """Each probe's standing, by its id.

    A cut counts like any other candidate where nothing will be fine-tuned, or the whole network is out of
    the race.
    """
    frozen = recipe.freeze.strategy == "head" or recipe.finetune.epochs == 0
    whole = {
        id(probed.entrant): probed
        for probed in probes
        if probed.depth == probed.entrant.stages and not frozen
    }
    standing = {}
    for probed in probes:
        own, uncut = float(probed.losses.mean()), whole.get(id(probed.entrant))
        if uncut is None or uncut is probed or clearly_lower(probed.losses, uncut.losses, probed.blocks):
            standing[id(probed)] = Standing(own, False)
        else:
            standing[id(probed)] = Standing(max(own, float(uncut.losses.mean())), True)
    return standing
