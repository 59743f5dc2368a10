"""Step 1: obtain a pre-trained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from regraft.backbones import Obtained, candidates, entry_of, obtain_weights, usual
from regraft.data.part import Part
from regraft.steps.context import Context
from regraft.steps.rank import (
    RANKING_SHARE,
    Ranking,
    Reached,
    name_licence,
    rank,
    reach,
    taken,
    ticking,
    untried,
)
from regraft.tasks import Task

FEWEST_SECONDS = 20.0  # seconds below which a comparison is not begun


@dataclass(frozen=True)
class Choice:
    """What step 1 took. Where several models were compared, `ranking` tells how, and settles size and depth
    too. `named`: the user named the model.
    """

    obtained: Obtained
    ranking: Ranking | None = None
    named: bool = False

    @property
    def free(self) -> bool:
        """Whether size and depth are still open, as far as the recipe leaves them so: a model that was named is
        used as it is.
        """
        return self.ranking is None and not self.named

    @property
    def ranked(self) -> tuple[int, int] | None:
        """The input size and the number of stages that the ranking chose; None where there was none."""
        return None if self.ranking is None else (self.ranking.chosen.size, self.ranking.chosen.depth)


def obtain(part: Part, facts: pa.Table, counts: Mapping[str, int], task: Task, context: Context) -> Choice:
    """The pre-trained model the recipe names. "auto" takes the one at hand; of several, the one that suits
    the data.

    `part` is train and val together, `facts` what the modality knows of them. A ranking also decides
    the input size and the depth where these are "auto".
    """
    recipe, why, ranking = context.recipe.obtain, "the user named it", None
    modality = context.modality.name
    reference = recipe.backbone
    if reference == "auto":
        known, most = taken(candidates(modality), context) or [usual(modality)], recipe.max_parameters
        reference, why = known[0], "it is at hand and needs no network"
        entry = entry_of(known[0])
        too_large = most is not None and (entry is None or entry.parameters > most)
        unable, reached = "" if too_large else _not_compared(part, task, context), Reached()
        if recipe.network and not unable:
            reached = reach(counts, context)
            known = [*known, *reached.fetched]
        elif not recipe.network and not context.recipe.run.offline and (line := untried(modality)):
            context.events.note(line)
        if len(known) > 1 and unable:
            why += f"; {len(known)} are at hand, not compared: {unable}"
        elif len(known) > 1 or too_large:
            ranking = rank(part, facts, counts, task, known, context)
            ranking = replace(ranking, left_out={**reached.passed_over, **ranking.left_out})
            reference, why = ranking.chosen.reference, ranking.reason
        if recipe.network and not reached.fetched:
            why += f"; nothing was fetched{f': {unable}' if unable else ''}"
    else:
        name_licence(reference, context)
    context.settle("obtain.backbone", reference, why)
    obtained = obtain_weights(reference, context.recipe.run.offline, modality, ticking(context))
    p = obtained.provenance
    others = (
        {"other rules would take": "; ".join(f"{k}: {v}" for k, v in ranking.opinions.items())}
        if ranking
        else {}
    )
    context.decide(
        "obtain",
        f"{p.id}: {p.parameters / 1e6:.1f} M parameters, {p.licence}",
        why,
        sha256=p.sha256,
        source=p.source,
        **others,
    )
    return Choice(obtained, ranking, named=recipe.backbone != "auto")


def _not_compared(part: Part, task: Task, context: Context) -> str:
    """Why there can be no comparison; "" where there can."""
    if int(np.bincount(task.strata(part.labels)).min()) < 2:
        return "a class has one example only"
    return "the budget leaves no time for it" if RANKING_SHARE * context.seconds_left < FEWEST_SECONDS else ""
