"""Weights that timm fetches from the Hugging Face hub, or has in the local cache: timm:NAME."""

from __future__ import annotations

import difflib
from pathlib import Path

import torch
from torch import nn

from regraft.backbones.base import Provenance, state_sha256
from regraft.backbones.catalogue import entry_of, is_cached
from regraft.backbones.ready import timm
from regraft.backbones.sources.obtained import Obtained, parameters_of
from regraft.backbones.sources.packaged import DEFAULT
from regraft.errors import BackboneError
from regraft.runtime import closed_hub


def from_timm(name: str, offline: bool) -> Obtained:
    """The timm model `name` with its weights, from the local cache or, unless `offline`, from the network.

    Raises BackboneError for a name that timm does not have, and for weights that cannot be fetched.
    """
    base = name.split(".")[0]
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), n=3)
        raise BackboneError(
            f"timm has no model {name!r}." + (f" Did you mean {', '.join(near)}?" if near else "")
        )
    try:
        with closed_hub(offline or is_cached(name)):  # the cache is used without a question to the hub
            if offline:
                _refuse_download(name)
            module: nn.Module = timm.create_model(name, pretrained=True)
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        way = (
            "it is not in the local cache and --offline is set"
            if offline
            else f"it could not be fetched ({first})"
        )
        raise BackboneError(
            f"timm:{name}: {way}. Run once with a network and without --offline, or download the model's folder and "
            f"name it as path:FOLDER, or use {DEFAULT}, which needs no network."
        ) from None
    config, entry = dict(module.pretrained_cfg), entry_of(f"timm:{name}")  # type: ignore[arg-type]
    return Obtained(
        module,
        base,
        config,
        Provenance(
            id=f"timm:{name}",
            source=str(config.get("hf_hub_id") or config.get("url") or "timm"),
            sha256=state_sha256(module),
            licence=entry.licence if entry else str(config.get("license") or "unknown"),
            parameters=parameters_of(module),
            input_size=int(config["input_size"][-1]),
            pretrained_on=entry.pretrained_on if entry else str(config.get("tag") or "unknown"),
        ),
    )


def _refuse_download(name: str) -> None:
    """Raise OSError where timm would fetch the weights from an address of their own, past the hub."""
    config = timm.get_pretrained_cfg(name)
    if config is None or config.hf_hub_id or not config.url:
        return
    if not (Path(torch.hub.get_dir()) / "checkpoints" / config.url.rpartition("/")[2]).is_file():
        raise OSError(f"{config.url} is on the network")
