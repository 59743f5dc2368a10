"""Step 1 at full strength: backbones, input sizes and depths compared on the user's own examples, in
growing rounds.

The score is the out-of-fold loss (the task's) of a regularised linear probe on frozen features of train and val
(rule 12). Beside it stand nearest neighbours, LogME and the honest baseline, size, as no score is the best
on all data (Agostinelli et al. 2022).

A network cut short counts only where it is clearly better than the whole one: frozen features flatter it,
as what the later stages would gain from fine-tuning is not in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from regraft.data.part import Part
from regraft.errors import UsageError
from regraft.steps.context import Context
from regraft.steps.evidence import CLEAR_ERRORS
from regraft.steps.rank.choosing import Ranking, Row, choose, opinions, row_of
from regraft.steps.rank.entrants import RANKING_SHARE, Entrants, round_sizes, stratified_order
from regraft.steps.rank.network import Reached, name_licence, reach, taken, ticking, untried
from regraft.steps.rank.probing import clearly_lower, probe, standings
from regraft.tasks import Task

__all__ = [
    "RANKING_SHARE",
    "Ranking",
    "Reached",
    "Row",
    "choose",
    "clearly_lower",
    "name_licence",
    "rank",
    "reach",
    "round_sizes",
    "stratified_order",
    "taken",
    "ticking",
    "untried",
]


def rank(
    part: Part,
    facts: pa.Table,
    counts: Mapping[str, int],
    task: Task,
    references: Sequence[str],
    context: Context,
    named: bool = False,
) -> Ranking:
    """Compare candidates on train and val together (`part`; `facts` are what the modality knows of them).

    `counts` are those of the splits, for the estimate of a whole run. A reference that cannot be used is
    left out with the reason, or is an error where the user `named` it. Raises UsageError where nothing is
    left to choose from.
    """
    entrants = Entrants(part, facts, counts, task, context)
    racing, left_out = entrants.enter(references, named)
    if not racing:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise UsageError(
            f"no backbone can be compared ({reasons or 'none is at hand'}). Name one with --backbone."
        )
    out: list[Row] = []
    for number, examples in enumerate(entrants.rounds):
        if number:
            entrants.extend(racing, examples)
        probes = probe(racing, part.some(entrants.order[:examples]), task, context)
        standing = standings(probes, context.recipe)
        probes.sort(key=lambda probed: standing[id(probed)])
        rows = {
            id(probed): row_of(probed, probes[0], not standing[id(probed)].cut, counts, context.recipe)
            for probed in probes
        }
        stay = [
            probed for probed in probes if rows[id(probed)].excess <= CLEAR_ERRORS * rows[id(probed)].error
        ]
        if len(stay) == 1 or number == len(entrants.rounds) - 1 or entrants.out_of_time():
            break
        gone = [probed for probed in probes if probed not in stay]
        out = [*(rows[id(probed)] for probed in gone), *out]
        for probed in gone:
            del probed.entrant.features[probed.depth]
        racing = [entrant for entrant in racing if entrant.features]
    ordered = [*rows.values(), *out]
    chosen, reason = choose(
        ordered, context.recipe.run.prefer, context.seconds_left, sum(counts.values()), task.loss_name
    )
    return Ranking(tuple(ordered), chosen, reason, opinions(ordered), left_out, task.loss_name)
