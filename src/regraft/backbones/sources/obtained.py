"""A pre-trained model as it came, before it is cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from regraft.backbones import encoders, spectral, speech, static, transformers_layout, whisper
from regraft.backbones.base import Provenance
from regraft.backbones.ready import timm
from regraft.backbones.sources.registered import source_of
from regraft.errors import BackboneError

# What makes an untrained network of a config, by what its architecture's name begins with; all else is timm's
MADE: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    transformers_layout.PREFIX: transformers_layout.build,
    encoders.PREFIX: encoders.build_encoder,
    whisper.PREFIX: whisper.build,
    speech.PREFIX: speech.build,
    spectral.PREFIX: spectral.build,
    static.PREFIX: static.build,
}


@dataclass
class Obtained:
    """A whole pre-trained model, old classifier included, and where it came from."""

    module: nn.Module
    architecture: str
    config: dict[str, Any]  # timm's pretrained_cfg, or what its source builds the network by; plain values
    provenance: Provenance
    depth: int | None = None  # stages kept, of an earlier run whose backbone was truncated
    modality: str = "image"  # of the examples it was trained on


def build(architecture: str, num_classes: int, config: dict[str, Any]) -> nn.Module:
    """An untrained model whose pretrained_cfg is `config`; one of a registered source has no classifier.
    Raises BackboneError where it cannot be made.
    """
    if (source := source_of(architecture)) is not None:
        return source.build(architecture, config)
    for prefix, make in MADE.items():
        if architecture.startswith(prefix):
            return make(config)
    overlay = {key: value for key, value in config.items() if key not in ("architecture", "num_classes")}
    try:
        model: nn.Module = timm.create_model(
            architecture, pretrained=False, num_classes=num_classes, pretrained_cfg_overlay=overlay
        )
    except RuntimeError as error:
        raise BackboneError(f"timm cannot make {architecture!r}: {str(error).splitlines()[0]}") from None
    return model


def buildable(architecture: str) -> bool:
    """True for an architecture that `build` knows."""
    known = source_of(architecture) is not None or architecture.startswith(tuple(MADE))
    return known or bool(timm.is_model(architecture))


def parameters_of(module: nn.Module) -> int:
    """How many parameters a module has."""
    return sum(parameter.numel() for parameter in module.parameters())
