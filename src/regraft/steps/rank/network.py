"""What the catalogue has on the hub beside what is at hand: which of it fits the machine, the budget and the
licences the user takes, and fetching that.
"""

from __future__ import annotations

import difflib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from regraft.backbones import Entry, candidates, entries, licence_of, licences, obtain_weights, pace
from regraft.errors import BackboneError, UsageError
from regraft.steps.context import Context
from regraft.steps.estimate import epochs_of, run_seconds

PATIENCE = 3600.0  # seconds that a whole run may take with a fetched model where no budget was named
STEP = 3.0  # forward passes that a training step is taken for
COPIES = 4  # of the weights while they are trained: they themselves, gradients, two moments
FETCHING = 0.25  # share of the time left that all downloads may take
MEMORY = 0.5  # share of the free memory that these copies may take; activations want some too


@dataclass
class Reached:
    """What was `fetched`, by reference, and why the others were not: `passed_over`."""

    fetched: list[str] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)


def untried(modality: str) -> str:
    """One line on the stronger models that were not tried as they are not at hand, "" where there are none."""
    some = [entry for entry in _stronger(modality) if licence_of(entry.licence).free]
    if not some:
        return ""
    some.sort(key=lambda entry: entry.megabytes)
    named = ", ".join(f"{entry.name} ({entry.megabytes:,.0f} MB)" for entry in some[:3])
    total = sum(entry.megabytes for entry in some)
    more = f" and {len(some) - 3} more, {total:,.0f} MB in all" if len(some) > 3 else ""
    return (
        f"not tried, as they are on the network: {named}{more}; --network fetches and compares those that fit"
    )


def reach(counts: Mapping[str, int], context: Context) -> Reached:
    """Fetch the stronger models of the catalogue that are not at hand and fit; what is passed over, and what
    the hub does not give, is told with the reason. `counts` are those of the splits.

    Nothing is fetched under run.offline. Raises UsageError for a licence that is accepted and that nothing
    in the catalogue has.
    """
    accepted = _accepted(context.recipe.obtain.accept_licences)
    reached, fitting = Reached(), []
    if context.recipe.run.offline:
        context.events.note("nothing is fetched: the run is offline")
        return reached
    for entry in _stronger(context.modality.name):
        why = _licence_in_the_way(entry, accepted) or _too_large(entry, counts, context)
        if why:
            reached.passed_over[entry.reference] = why
        else:
            fitting.append(entry)
    _tell(fitting, reached, context)
    hear = _in_time(context)
    for entry in sorted(fitting, key=lambda entry: entry.megabytes):
        try:
            hear(entry.name, 0, 0)
            obtain_weights(entry.reference, False, context.modality.name, hear)
        except BackboneError as error:
            reached.passed_over[entry.reference] = str(error)
            context.events.note(str(error))
        else:
            reached.fetched.append(entry.reference)
    return reached


def taken(references: Sequence[str], context: Context) -> list[str]:
    """Of models at hand those that an automatic choice may take: the first, and the others whose licence is
    free for every use or accepted. What is passed over is told.
    """
    accepted = _accepted(context.recipe.obtain.accept_licences)
    known = {entry.reference: entry for entry in entries()}
    found = list(references[:1])
    for reference in references[1:]:
        why = _licence_in_the_way(known[reference], accepted) if reference in known else ""
        if why:
            context.events.note(f"passed over, though it is at hand: {known[reference].name}: {why}")
        else:
            found.append(reference)
    return found


def name_licence(reference: str, context: Context) -> None:
    """Tell the licence of a model that the user named, before it is fetched, where it is not one that simply
    lets everybody use it.
    """
    entry = next((entry for entry in entries() if entry.reference == reference), None)
    if entry is not None and not (licence := licence_of(entry.licence)).free:
        context.events.note(f"{entry.name} is under {licence.name}: {licence.remark} {licence.link}".rstrip())


def _stronger(modality: str) -> list[Entry]:
    """The stronger models of a modality that are not at hand."""
    there = set(candidates(modality))
    return [
        entry
        for entry in entries()
        if entry.stronger and entry.modality == modality and entry.reference not in there
    ]


def _accepted(names: Sequence[str]) -> set[str]:
    known = {one.name.lower(): one.name for one in licences()}
    for name in names:
        if name.lower() not in known:
            near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
            said = f" Did you mean {known[near[0]]!r}?" if near else ""
            raise UsageError(
                f"no model of the catalogue is under the licence {name!r}.{said} There are {', '.join(known.values())}."
            )
    return {name.lower() for name in names}


def _licence_in_the_way(entry: Entry, accepted: set[str]) -> str:
    licence = licence_of(entry.licence)
    if licence.free or licence.name.lower() in accepted:
        return ""
    return f"its licence is {licence.name}: {licence.remark}; --accept-licence '{licence.name}' takes it"


def _too_large(entry: Entry, counts: Mapping[str, int], context: Context) -> str:
    """Why a model does not fit the recipe, the memory, the disk or the time; "" where it does."""
    recipe, most = context.recipe, context.recipe.obtain.max_parameters
    if most is not None and entry.parameters > most:
        return f"it has {entry.parameters / 1e6:.1f} M parameters, more than the {most / 1e6:.1f} M allowed"
    needed, free = 4 * COPIES * entry.parameters, _free_memory(context.device)
    if needed > MEMORY * free:
        return f"training it takes {needed / 1e9:.1f} GB of memory beside what passes through it; {free / 1e9:.1f} GB are free"
    if 2e6 * entry.megabytes > (room := _free_disk()):
        return (
            f"it is {entry.megabytes:,.0f} MB, and {room / 1e6:,.0f} MB of disk are free for the hub's cache"
        )
    usual = entry.gmacs_at or entry.input_size
    size = usual if recipe.base.size == "auto" else int(recipe.base.size)
    power = 2 if context.modality.resizes else 1  # a picture's size is its side, any other a length
    forward = entry.gmacs * (size / usual) ** power / pace(entry.kind, context.device)
    step = STEP * forward if epochs_of(recipe, counts, size) else 0.0
    seconds, allowed = run_seconds(recipe, counts, size, forward, step), min(context.seconds_left, PATIENCE)
    if recipe.run.budget_seconds is not None:
        allowed = context.seconds_left
    if seconds > allowed:
        given = (
            "the budget leaves" if recipe.run.budget_seconds is not None else "is waited for without a budget"
        )
        return f"a run with it takes about {_long(seconds)} here, more than the {_long(allowed)} that {given}"
    return ""


def _tell(fitting: Sequence[Entry], reached: Reached, context: Context) -> None:
    """Name what will be fetched and under which licence, and what is passed over, before anything is."""
    if fitting:
        named = ", ".join(f"{one.name} ({one.megabytes:,.0f} MB, {one.licence})" for one in fitting)
        context.events.note(f"fetching from the hub: {named}")
    reasons: dict[str, list[str]] = {}
    for reference, why in reached.passed_over.items():
        reasons.setdefault(why, []).append(reference.partition(":")[2])
    for why, names in reasons.items():
        context.events.note(f"passed over: {', '.join(names)}: {why}")


def _in_time(context: Context) -> Callable[[str, int, int], None]:
    """The same, which ends a download with BackboneError when its share of the budget is used up."""
    tell, deadline = ticking(context), time.monotonic() + FETCHING * context.seconds_left

    def hear(label: str, done: int, total: int) -> None:
        if time.monotonic() > deadline:
            raise BackboneError(
                f"{label}: the share of the budget for fetching, {FETCHING:.0%}, was used up."
            )
        tell(label, done, total)

    return hear


def ticking(context: Context) -> Callable[[str, int, int], None]:
    """What tells the listeners of a download."""
    return lambda label, done, total: context.events.tick(label=label, done=done, total=total)


def _long(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{max(1, round(seconds / 60))} min"


def _free_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    import psutil

    return float(psutil.virtual_memory().available)


def _free_disk() -> float:
    """Free bytes where the hub's cache is, or will be."""
    from huggingface_hub.constants import HF_HUB_CACHE

    place = Path(HF_HUB_CACHE)
    while not place.exists() and place != place.parent:
        place = place.parent
    return float(shutil.disk_usage(place).free)
