"""Weights in a folder, in the layout of timm or of transformers, or of an earlier run: path:PLACE,
run:FOLDER.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from regraft.artifacts import file_sha256, openable, read_json
from regraft.backbones import encoders, spectral, speech, static, transformers_layout, whisper
from regraft.backbones.base import Provenance, state_sha256
from regraft.backbones.ready import timm
from regraft.backbones.sources.obtained import Obtained, build, buildable, parameters_of
from regraft.backbones.sources.registered import source_of
from regraft.backbones.truncate import cut_short
from regraft.errors import BackboneError


def from_folder(path: Path, kind: str) -> Obtained:
    """The model whose weights lie at `path`; `kind` is "path" or "run". Raises BackboneError.

    A classifier that comes with the weights is part of it; an earlier run's model has none, and may be cut
    short.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.is_dir() and (layout := layout_of(path)) is not None:
        return from_layout(path, layout, f"path:{path}", str(path.resolve()))
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
        classifier = config_of(module, config).get("classifier")
        if f"{classifier}.weight" in state:
            module = build(architecture, len(state[f"{classifier}.weight"]), config)
        module.load_state_dict(state, strict=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise BackboneError(f"{weights} does not fit {architecture}: {str(error).splitlines()[0]}") from None
    config = config_of(module, config)
    if weights.with_name(encoders.TOKENIZER).is_file():
        config["tokenizer"] = encoders.tokenizer_in(weights.parent)
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
            parameters=parameters_of(module),
            input_size=int(about["preprocess"]["size"] if about else config["input_size"][-1]),
            pretrained_on=trained_on,
        ),
        depth,
        about["preprocess"]["modality"] if about else _modality(architecture, config),
    )


def config_of(module: nn.Module, config: dict[str, Any]) -> dict[str, Any]:
    """The config that a network keeps of itself, as timm's do; the one it was built by where it keeps none."""
    return dict(getattr(module, "pretrained_cfg", config))


@dataclass(frozen=True)
class Layout:
    """A layout of the transformers library: whether a folder has it, and how it is read; `name` is what the
    model is called where it comes from. The module, its architecture, and a config of plain values.
    """

    modality: str
    takes: Callable[[Path], bool]
    read: Callable[[Path, str], tuple[nn.Module, str, dict[str, Any]]]


LAYOUTS = (
    Layout("audio", whisper.is_whisper, whisper.read_folder),
    Layout("audio", speech.is_speech, speech.read_folder),
    Layout("audio", spectral.is_spectral, spectral.read_folder),
    Layout("text", static.is_static, static.read_folder),
    Layout("text", encoders.is_encoder, encoders.read_encoder),
    Layout("image", transformers_layout.is_transformers, transformers_layout.read_folder),
)


def layout_of(folder: Path) -> Layout | None:
    """The first layout that a folder has; None for timm's, and for what is no model."""
    return next((layout for layout in LAYOUTS if layout.takes(folder)), None)


def _modality(architecture: str, config: dict[str, Any]) -> str:
    """What the network is for: its source's modality, or the one that its config names; images else."""
    source = source_of(architecture)
    return str(config.get("modality") or "image") if source is None else source.modality


def from_layout(folder: Path, layout: Layout, name: str, source: str, licence: str = "unknown") -> Obtained:
    """The model of a folder in a layout of transformers, called `name`. Raises BackboneError."""
    module, architecture, config = layout.read(folder, name)
    origin = Provenance(
        id=name,
        source=source,
        sha256=state_sha256(module),
        licence=licence,
        parameters=parameters_of(module),
        input_size=int(config["input_size"][-1]),
    )
    return Obtained(module, architecture, config, origin, modality=layout.modality)


def _weights_at(path: Path, kind: str) -> tuple[Path, str, dict[str, Any]]:
    """The weights file, the architecture and the pretrained_cfg of a folder, or of
    FILE.safetensors@ARCHITECTURE.

    Raises BackboneError for what is neither.
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
    if not buildable(architecture):
        raise BackboneError(f"{path} names no architecture that timm has (found {architecture!r}).")
    return weights, architecture, config
