"""Obtaining a pre-trained model by reference: packaged:NAME, timm:NAME, path:PLACE, run:FOLDER."""

from __future__ import annotations

import os
from pathlib import Path

from regraft.backbones.sources.folder import from_folder
from regraft.backbones.sources.hub import from_timm
from regraft.backbones.sources.listing import at_hand, candidates, earlier_runs
from regraft.backbones.sources.obtained import Obtained, build
from regraft.backbones.sources.packaged import DEFAULT, PACKAGED, from_package
from regraft.errors import BackboneError

__all__ = [
    "DEFAULT",
    "PACKAGED",
    "Obtained",
    "at_hand",
    "build",
    "candidates",
    "earlier_runs",
    "obtain_weights",
]


def obtain_weights(reference: str, offline: bool = False) -> Obtained:
    """The model a reference names. Raises BackboneError that says what to do."""
    kind, _, name = reference.partition(":")
    if reference == "auto":
        kind, _, name = DEFAULT.partition(":")
    if kind == "packaged":
        return from_package(name)
    if kind == "timm" and name:
        return from_timm(name, offline)
    if kind in ("path", "run") and name:
        return from_folder(Path(os.path.expanduser(name)), kind)
    raise BackboneError(
        f"the backbone {reference!r} is not understood. Wanted packaged:NAME ({', '.join(PACKAGED)}), timm:NAME, "
        "path:FILE_OR_FOLDER or run:RUN. `regraft models` lists what is at hand."
    )
