"""Image models in the layout of the transformers library: config.json with a `model_type`,
model.safetensors.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regraft.artifacts import read_json
from regraft.errors import BackboneError, NotInstalledError

PREFIX = "transformers:"
# Pillow's numbers
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


class PooledTransformer(nn.Module):
    """(B, 3, size, size) to (B, width): the pooler's output, else the class token, else the mean over the
    map.
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model = model
        model.loss_function = None  # type: ignore[assignment]  # who looks for one is warned by the library
        self.pretrained_cfg: dict[str, Any] = {}
        with torch.no_grad():
            self.num_features = int(self.eval()(torch.zeros(1, 3, size, size)).shape[1])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features of one batch."""
        outputs = self.model(pixel_values=images)
        pooled = getattr(outputs, "pooler_output", None)
        if pooled is None:
            hidden = outputs.last_hidden_state
            pooled = hidden[:, 0] if hidden.ndim == 3 else hidden.mean(dim=(2, 3))
        return pooled.flatten(1)  # type: ignore[no-any-return]

    def reset_classifier(self, classes: int) -> None:
        """There is none to take off: the base class of the library has no classifier."""

    def group_matcher(self, coarse: bool = False) -> Any:
        """timm's interface: the ordinal of a parameter's group, embeddings first, what follows the last
        block at the end.
        """

        return ordinal_of(coarse)


def ordinal_of(coarse: bool) -> Any:
    """The ordinal of a parameter's group by its name, as timm's `group_matcher` gives it: embeddings first, a
    group a layer, what follows the last at the end.
    """

    def ordinal(name: str) -> tuple[int, ...]:
        numbers = [int(n) for n in re.findall(r"(?:layers?|blocks?|stages?|encoder)\.(\d+)", name)]
        if numbers:
            return tuple(numbers[:1] if coarse else numbers)
        return (-1,) if "embed" in name or "stem" in name else (1 << 20,)

    return ordinal


def library(extra: str = "transformers") -> Any:
    """transformers, imported when it is needed. Raises BackboneError where it is not installed, which names
    the `extra` that brings it.
    """
    try:
        import transformers
    except ImportError:
        raise NotInstalledError(
            f"this model is in the layout of the transformers library: pip install 'regraft[{extra}]'"
        ) from None
    transformers.utils.logging.disable_progress_bar()  # a model is read in moments
    return transformers


def is_transformers(folder: Path) -> bool:
    """True for a folder whose config.json names a `model_type`."""
    file = folder / "config.json"
    config = read_json(file) if file.is_file() else None
    return isinstance(config, dict) and "model_type" in config and "architecture" not in config


def loaded(
    folder: Path, kind: str = "AutoModel", spare: tuple[str, ...] = (), extra: str = "transformers"
) -> Any:
    """The library's model of a folder, in float32, by its class `kind`; parameters that begin with one of
    `spare` need not be there, all others do. Weights are read from model.safetensors, else from
    pytorch_model.bin, of which nothing but tensors is read. Raises BackboneError; where the library is not
    installed it names the `extra`.
    """
    transformers = library(extra)
    try:
        model, info = getattr(transformers, kind).from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # whatever the library stumbles over: a torn file, a wrong config
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackboneError(f"{folder}: transformers cannot load it: {first}") from None
    missing = sorted(key for key in info["missing_keys"] if not key.startswith(spare))
    if missing or info.get("mismatched_keys"):
        raise BackboneError(f"{folder}: its weights lack {', '.join(missing[:3]) or 'the right shapes'}.")
    return model


def read_folder(folder: Path, name: str = "") -> tuple[PooledTransformer, str, dict[str, Any]]:
    """The model, its name with our prefix, and a config in timm's terms. Raises BackboneError."""
    about = read_json(folder / "config.json")
    model = loaded(folder, spare=("pooler.",))
    size = about.get("image_size")
    if not isinstance(size, int):
        raise BackboneError(
            f"{folder}: its config.json gives no image_size, so it is no image model that can be used."
        )
    file = folder / "preprocessor_config.json"
    processor = read_json(file) if file.is_file() else {}
    resize = processor.get("size") or {}
    shortest = resize.get("shortest_edge") if isinstance(resize, dict) else None
    config = {
        "input_size": [3, size, size],
        "fixed_input_size": True,
        "classifier": None,
        "mean": processor.get("image_mean") or [0.5] * 3,
        "std": processor.get("image_std") or [0.5] * 3,
        "interpolation": FILTERS.get(processor.get("resample", 2), "bilinear"),
        "crop_pct": size / shortest if isinstance(shortest, int) and shortest >= size else 1.0,
        "license": "unknown",
        "transformers": model.config.to_dict(),
    }
    module = PooledTransformer(model, size)
    module.pretrained_cfg = config
    return module, f"{PREFIX}{type(model).__name__}", config


def build(config: dict[str, Any]) -> PooledTransformer:
    """An untrained network of the same shape, for weights to be loaded into."""
    transformers = library()
    inner = dict(config["transformers"])
    model = transformers.AutoModel.from_config(
        transformers.AutoConfig.for_model(inner.pop("model_type"), **inner)
    )
    module = PooledTransformer(model.float(), int(config["input_size"][-1]))
    module.pretrained_cfg = config
    return module
