"""Weights of the Hugging Face hub, or of its local cache: timm:NAME, transformers:OWNER/NAME."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from torch import nn

from regraft.backbones.base import Provenance, state_sha256
from regraft.backbones.catalogue import WEIGHTS, entry_of, is_cached
from regraft.backbones.ready import timm
from regraft.backbones.sources.fetch import Tick, fetch
from regraft.backbones.sources.folder import from_folder
from regraft.backbones.sources.obtained import Obtained, parameters_of
from regraft.backbones.sources.packaged import DEFAULT
from regraft.errors import BackboneError
from regraft.runtime import closed_hub

# Of a repository in transformers' layout; of a group the first that is there, and one with "" may be missing
TRANSFORMERS = (
    ("config.json",),
    ("model.safetensors", "pytorch_model.bin"),
    ("preprocessor_config.json", ""),
    ("tokenizer.json", "spm.model", "sentencepiece.bpe.model", "vocab.txt", "vocab.json", ""),
    ("merges.txt", ""),
    ("tokenizer_config.json", ""),
    ("special_tokens_map.json", ""),
    ("modules.json", ""),  # of sentence-transformers, as the next three are
    ("1_Pooling/config.json", ""),
    ("sentence_bert_config.json", ""),
    ("config_sentence_transformers.json", ""),
    ("README.md", ""),
)
OTHERWISE = (
    f"Run once with a network and without --offline, or download the model's folder and name it as path:FOLDER, or use "
    f"{DEFAULT}, which needs no network."
)


def from_timm(name: str, offline: bool, tick: Tick | None = None) -> Obtained:
    """The timm model `name` with its weights, from the local cache or, unless `offline`, from the network.

    Raises BackboneError for a name that timm does not have, and for weights that cannot be fetched.
    """
    base = name.split(".")[0]
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), n=3)
        raise BackboneError(
            f"timm has no model {name!r}." + (f" Did you mean {', '.join(near)}?" if near else "")
        )
    known = timm.get_pretrained_cfg(name)
    try:
        if not (offline or is_cached(f"timm:{name}")) and known is not None and known.hf_hub_id:
            files = (known.hf_hub_filename,) if known.hf_hub_filename else WEIGHTS
            fetch(name, known.hf_hub_id, [files], tick)
        with closed_hub(
            offline or is_cached(f"timm:{name}")
        ):  # the cache is used without a question to the hub
            if offline:
                _refuse_download(name)
            module: nn.Module = timm.create_model(name, pretrained=True)
    except BackboneError as error:
        raise BackboneError(f"timm:{error} {OTHERWISE}") from None
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        way = (
            "it is not in the local cache and --offline is set"
            if offline
            else f"it could not be fetched ({first})"
        )
        raise BackboneError(f"timm:{name}: {way}. {OTHERWISE}") from None
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


def from_transformers(repo: str, offline: bool, tick: Tick | None = None) -> Obtained:
    """The model of the repository OWNER/NAME, which is in transformers' layout, from the local cache or,
    unless `offline`, from the network. Its licence is the one that its card names.

    Raises BackboneError for what cannot be fetched and what is no model that can be used.
    """
    folder = _cached_folder(repo)
    if folder is None:
        if offline:
            way = "it is not in the local cache and --offline is set"
            raise BackboneError(f"transformers:{repo}: {way}. {OTHERWISE}")
        try:
            folder = fetch(repo, repo, TRANSFORMERS, tick)[0].parent
        except BackboneError as error:
            raise BackboneError(f"transformers:{error} {OTHERWISE}") from None
    obtained = from_folder(folder, "path")
    told = replace(
        obtained.provenance, id=f"transformers:{repo}", source=repo, licence=_licence(folder / "README.md")
    )
    return replace(obtained, provenance=told)


def _cached_folder(repo: str) -> Path | None:
    """Where the hub's local cache has a repository; nothing is asked of the network."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        places = [try_to_load_from_cache(repo, name) for names in TRANSFORMERS[:2] for name in names]
    except HFValidationError as error:
        raise BackboneError(f"transformers:{repo} is no name of a repository: {error}") from None
    config, *weights = (place if isinstance(place, str) else None for place in places)
    return Path(config).parent if config and any(weights) else None


def _licence(card: Path) -> str:
    """The licence that a model card names in its head, "unknown" where it names none."""
    if not card.is_file():
        return "unknown"
    head = card.read_text(encoding="utf-8", errors="replace").split("---\n")
    try:
        fields = yaml.safe_load(head[1]) if len(head) > 2 and not head[0].strip() else None
    except yaml.YAMLError:
        return "unknown"
    named = (fields.get("license_name") or fields.get("license")) if isinstance(fields, dict) else None
    return str(named or "unknown")


def _refuse_download(name: str) -> None:
    """Raise OSError where timm would fetch the weights from an address of their own, past the hub."""
    config = timm.get_pretrained_cfg(name)
    if config is None or config.hf_hub_id or not config.url:
        return
    if not (Path(torch.hub.get_dir()) / "checkpoints" / config.url.rpartition("/")[2]).is_file():
        raise OSError(f"{config.url} is on the network")
