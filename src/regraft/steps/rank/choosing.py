"""Which candidate is taken, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from regraft.backbones import entry_of
from regraft.evaluation import Metric, standard_error
from regraft.recipe import Recipe
from regraft.steps.estimate import run_seconds
from regraft.steps.evidence import CLEAR_ERRORS
from regraft.steps.rank.probing import Probe
from regraft.tasks import Score

TIES = {"accuracy": 1.0, "speed": 2.0}  # standard errors within which the cheapest is taken


@dataclass(frozen=True)
class Row:
    """A candidate, the first `depth` of `stages` stages of a backbone, and its results in the last round it
    was in, which looked at so many `examples`.

    `excess` is its mean loss above that of the best of the round, `error` the standard error of
    that difference. `parameters` and `gmacs` (10^9 multiply-accumulates an image) are those of the stages
    kept, without the old classifier. `clear` is false for a network cut short that is to be fine-tuned and
    is not clearly better than the whole one, behind which it stands. `joined`: the features compared are
    those of all depths.
    """

    reference: str
    size: int
    depth: int
    stages: int
    examples: int
    loss: float
    excess: float
    error: float
    scores: tuple[Score, ...]
    parameters: int
    gmacs: float
    examples_per_second: float
    run_seconds: float
    imagenet_top1: float | None
    pretrained_on: str
    licence: str
    clear: bool = True
    joined: bool = False

    @property
    def name(self) -> str:
        """The candidate in words."""
        cut = "" if self.depth == self.stages else f", {self.depth} of {self.stages} stages"
        return f"{self.reference} at {self.size}{cut}{', depths joined' if self.joined else ''}"


@dataclass(frozen=True)
class Ranking:
    """All candidates, those of the last round first and each round by loss (see `Row.clear`); which was
    chosen, and why.

    `opinions` tells what other rules would have taken, `left_out` which references were not compared and
    why.
    """

    rows: tuple[Row, ...]
    chosen: Row
    reason: str
    opinions: Mapping[str, str]
    left_out: Mapping[str, str]
    loss_name: str  # inside a sentence

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        rows = [
            {"rank": place, "name": row.name, **asdict(row)} for place, row in enumerate(self.rows, start=1)
        ]
        return {
            "schema": 3,
            "loss_name": self.loss_name,
            "chosen": self.chosen.name,
            "reason": self.reason,
            "opinions": dict(self.opinions),
            "left_out": dict(self.left_out),
            "rows": rows,
        }


def row_of(probe: Probe, best: Probe, clear: bool, counts: Mapping[str, int], recipe: Recipe) -> Row:
    """A candidate's row beside the best of its round; `counts` are those of the splits."""
    entrant, depth = probe.entrant, probe.depth
    excess, share, entry = probe.losses - best.losses, entrant.share(depth), entry_of(entrant.reference)
    forward, step = entrant.forward * share, entrant.step * share
    return Row(
        reference=entrant.reference,
        size=entrant.size,
        depth=depth,
        stages=entrant.stages,
        examples=entrant.seen,
        loss=float(probe.losses.mean()),
        excess=float(excess.mean()),
        error=standard_error(excess, probe.blocks),
        scores=probe.scores,
        parameters=entrant.cost[depth].parameters,
        gmacs=entrant.cost[depth].gmacs,
        examples_per_second=1 / forward,
        run_seconds=run_seconds(recipe, counts, entrant.size, forward, step),
        imagenet_top1=entry.imagenet_top1 if entry else None,
        pretrained_on=entrant.pretrained_on,
        licence=entrant.licence,
        clear=clear,
        joined=entrant.joined,
    )


def choose(
    rows: Sequence[Row], prefer: str, seconds_left: float, images: int, loss: str = "log loss"
) -> tuple[Row, str]:
    """The candidate to take, and why: of those as good as the best of the last round and whose whole run
    fits the time left, the cheapest.

    Where there is none, it is the best that fits and is not clearly worse; then the quickest of the good
    ones, whose fine-tuning will be cut short, if the features of all `images` leave time for it; then the
    best that fits at all; and then the quickest.
    """
    last = [row for row in rows if row.examples == rows[0].examples]
    best, ties = last[0], TIES[prefer]
    good = [row for row in last if row.excess <= ties * row.error and (row.clear or prefer == "speed")]
    fits = [row for row in last if row.run_seconds <= seconds_left]
    fair = [row for row in fits if row.excess <= CLEAR_ERRORS * row.error]
    short = [row for row in good if 1.2 * images / row.examples_per_second <= seconds_left / 2]
    if cheap := [row for row in good if row in fits]:
        chosen = max(cheap, key=lambda row: row.examples_per_second)
        why = f"lowest out-of-fold {loss} ({chosen.loss:.3f}) of {len(rows)} candidates"
        if chosen is not best:
            within = f"within {'one standard error' if ties == 1 else 'two standard errors'} of the best"
            why = (
                f"cheapest of {len(cheap)} {within} of {len(rows)} candidates (out-of-fold "
                f"{loss} {chosen.loss:.3f}, {best.loss:.3f} of {best.name})"
            )
    elif fair or (not short and fits):
        chosen = (fair or fits)[0]
        why = f"lowest out-of-fold {loss} ({chosen.loss:.3f}) of those whose whole run fits the budget"
    elif short:
        chosen = min(short, key=lambda row: row.run_seconds)
        why = (
            f"quickest of the best (out-of-fold {loss} {chosen.loss:.3f}); "
            "its fine-tuning will be cut short, as a whole run would take "
            f"about {chosen.run_seconds:.0f} s, more than the budget leaves"
        )
    else:
        chosen = min(rows, key=lambda row: row.run_seconds)
        why = (
            "no candidate's whole run fits the budget; "
            f"this one comes nearest, with about {chosen.run_seconds:.0f} s"
        )
    if any(not row.clear and row.loss < best.loss for row in last) and chosen in good:
        why += (
            "; stages cut from a network count where that is clearly better, "
            "as all of them gain more from fine-tuning"
        )
    if chosen is not best and chosen in fits and best not in fits:
        why += (
            f"; {best.name} ({best.loss:.3f}) "
            f"would take about {best.run_seconds:.0f} s, more than the budget leaves"
        )
    return chosen, f"{why}, on {chosen.examples} examples"


def opinions(rows: Sequence[Row]) -> dict[str, str]:
    """What other rules would take, in words. Size and ImageNet accuracy do not look at the data; the task's
    scores behind the first judge the candidates of the last round.
    """
    last = [row for row in rows if row.examples == rows[0].examples]
    favourites = {"most parameters": max(rows, key=lambda row: (row.parameters, row.size)).name}
    known = [row for row in rows if row.imagenet_top1 is not None]
    if len({row.reference for row in known}) > 1:
        favourites["highest ImageNet accuracy"] = max(
            known, key=lambda row: (row.imagenet_top1 or 0.0, row.depth, row.size)
        ).name
    for place, score in enumerate(last[0].scores[1:], start=1):
        sign = 1 if score.higher else -1
        words = Metric.shown_as(asdict(score)).words
        favourites[words] = max(last, key=lambda row: sign * row.scores[place].value).name
    return favourites
