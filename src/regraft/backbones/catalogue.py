"""The catalogue: backbones worth trying, as data (catalogue.json), and which of them are at hand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from regraft.errors import UsageError

WEIGHTS = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)


@dataclass(frozen=True)
class Entry:
    """A pre-trained model as published: old classifier counted in `parameters`, `gmacs` an image at
    `input_size` pixels.

    `imagenet_top1` is the published accuracy in per cent on ImageNet-1k's validation set, where there is
    one.
    """

    reference: str
    modality: str
    architecture: str
    parameters: int
    gmacs: float
    input_size: int
    pretrained_on: str
    imagenet_top1: float | None
    licence: str
    kind: str  # convnet, vit or hybrid


@cache
def entries() -> tuple[Entry, ...]:
    """Every entry, the packaged ones first."""
    import json

    text = files("regraft.backbones").joinpath("catalogue.json").read_text(encoding="utf-8")
    return tuple(Entry(**item) for item in json.loads(text))


def entry_of(reference: str) -> Entry | None:
    """The entry of a reference, if the catalogue has it."""
    return next((entry for entry in entries() if entry.reference == reference), None)


def is_cached(name: str) -> bool:
    """True if the hub's local cache holds weights of the timm model `name`; nothing is asked of the
    network.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return any(isinstance(try_to_load_from_cache(f"timm/{name}", file), str) for file in WEIGHTS)
    except HFValidationError as error:
        raise UsageError(f"timm:{name}: {error}") from None
