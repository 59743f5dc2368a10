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
from regraft.steps.rank import Ranking, rank
from regraft.tasks import task_of


def ranked(examples: Examples, references: Sequence[str], network: bool, session: Session) -> Ranking:
    """The ranking of the backbones named, on train and val. "auto" stands for all at hand and all earlier
    runs, with `network` for the whole catalogue.
    """
    context, events = session.context(examples), session.events
    wanted: list[str] = []
    for name in references:
        wanted += _at_hand(context.modality.name, network, session) if name == "auto" else [name]
    every = examples.inputs().then(examples.audit_view(PAST, events.emit))
    seen = {name: why for name in wanted if (why := _has_seen(name, every, context.modality, events))}
    ranking = rank(
        examples.part("train").then(examples.part("val")),
        examples.facts(),
        examples.counts(),
        task_of(examples.task.kind, examples.task.classes),
        [name for name in dict.fromkeys(wanted) if name not in seen],
        context,
        named="auto" not in references,
    )
    return replace(ranking, left_out={**ranking.left_out, **seen})


def _at_hand(modality: str, network: bool, session: Session) -> list[str]:
    reach = network and not session.recipe.run.offline
    return [*sources.candidates(modality, reach), *sources.earlier_runs(modality=modality)]


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
