"""Backbones compared on a data set outside any run; those that have seen some of it are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from regraft import backbones as sources
from regraft.artifacts import Events
from regraft.data import Examples, Part
from regraft.data.lineage import seen_by
from regraft.errors import UsageError
from regraft.modalities import Modality
from regraft.run.open import PAST
from regraft.run.session import Session
from regraft.steps.rank import Ranking, Reached, name_licence, rank, reach, taken, untried
from regraft.tasks import task_of_examples


def ranked(examples: Examples, references: Sequence[str], session: Session) -> Ranking:
    """The ranking of the backbones named, on train and val. "auto" stands for all at hand and all earlier
    runs, with `obtain.network` for the stronger ones of the catalogue too, which are fetched.
    """
    context, events = session.context(examples), session.events
    wanted: list[str] = []
    modality, reached = context.modality.name, Reached()
    for name in references:
        if name != "auto":
            name_licence(name, context)
            wanted.append(name)
            continue
        there = [*taken(sources.candidates(modality), context), *sources.earlier_runs(modality=modality)]
        wanted += there or [sources.usual(modality)]  # which says how to install it
        if session.recipe.obtain.network:
            reached = reach(examples.counts(), context)
            wanted += reached.fetched
        elif not session.recipe.run.offline and (line := untried(modality)):
            events.note(line)
    every = examples.inputs().then(examples.audit_view(PAST, events.emit))
    seen = {name: why for name in wanted if (why := _has_seen(name, every, context.modality, events))}
    ranking = rank(
        examples.part("train").then(examples.part("val")),
        examples.facts(),
        examples.counts(),
        task_of_examples(examples),
        [name for name in dict.fromkeys(wanted) if name not in seen],
        context,
        named="auto" not in references,
    )
    return replace(ranking, left_out={**reached.passed_over, **ranking.left_out, **seen})


def _has_seen(reference: str, examples: Part, modality: Modality, events: Events) -> str:
    """Why a backbone cannot be judged on these examples, "" where it can: an earlier run has seen some of
    them.
    """
    try:
        past = seen_by(reference)
    except UsageError as error:  # a run beside the others is damaged
        return f"what it was made with is not known: {error}"
    if past is None:
        return ""
    shared = len(past.meet(examples, modality, events.tick))
    return f"it was made with {shared} of these examples" if shared else "; ".join(past.unknown)
