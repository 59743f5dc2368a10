"""Obtaining a pre-trained model by reference: packaged:NAME, timm:NAME, transformers:OWNER/NAME (or hf:),
path:PLACE, run:FOLDER, or one of a registered source.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from regraft.backbones.sources.fetch import Tick
from regraft.backbones.sources.folder import from_folder
from regraft.backbones.sources.hub import from_timm, from_transformers
from regraft.backbones.sources.listing import at_hand, candidates, earlier_runs, usual
from regraft.backbones.sources.obtained import Obtained, build
from regraft.backbones.sources.packaged import DEFAULT, PACKAGED, from_package
from regraft.backbones.sources.registered import WeightSource, register_source, source_of, sources
from regraft.errors import BackboneError
from regraft.modalities import modality_of

__all__ = [
    "DEFAULT",
    "PACKAGED",
    "Obtained",
    "WeightSource",
    "at_hand",
    "build",
    "candidates",
    "earlier_runs",
    "obtain_weights",
    "register_source",
    "usual",
]


def obtain_weights(
    reference: str, offline: bool = False, modality: str | None = None, tick: Tick | None = None
) -> Obtained:
    """The model a reference names; "auto" is the usual one of the `modality`, of images where none is
    given. A model of another modality that this one's items can be shown to becomes one of this. `tick`
    hears of what is being fetched: a label, kilobytes that are there, kilobytes of all.

    Raises BackboneError that says what to do, also for a model of another modality than the one given.
    """
    if reference == "auto":
        reference = usual(modality or "image")
    found = _obtained(reference, offline, tick)
    if modality is not None and found.modality in modality_of(modality).takes:
        return replace(found, modality=modality)
    if modality is not None and found.modality != modality:
        at_hand = candidates(modality)
        raise BackboneError(
            f"the backbone {reference} is for examples of the modality {found.modality}, and these are of the modality "
            f"{modality}. Name one for these" + (f": {', '.join(at_hand)}." if at_hand else ".")
        )
    return found


def _obtained(reference: str, offline: bool, tick: Tick | None) -> Obtained:
    kind, _, name = reference.partition(":")
    if kind == "packaged":
        return from_package(name)
    if kind == "timm" and name:
        return from_timm(name, offline, tick)
    if kind in ("transformers", "hf") and name:
        return from_transformers(name, offline, tick)
    if kind in ("path", "run") and name:
        return from_folder(Path(os.path.expanduser(name)), kind)
    if (source := source_of(reference)) is not None and name:
        return source.obtain(name, offline)
    others = "".join(f", {one.prefix}:NAME" for one in sources())
    raise BackboneError(
        f"the backbone {reference!r} is not understood. Wanted packaged:NAME ({', '.join(PACKAGED)}), timm:NAME, "
        f"transformers:OWNER/NAME (or hf:), path:FILE_OR_FOLDER or run:RUN{others}. `regraft models` lists what is at hand."
    )
