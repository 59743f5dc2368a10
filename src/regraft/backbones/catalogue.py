"""The catalogue: backbones worth trying, as data (catalogue.json), what their licences allow (licences.json),
and which of them are at hand.
"""

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
    """A pre-trained model as published: old classifier counted in `parameters`, `gmacs` an item at
    `input_size` (pixels, tokens, or frames of 10 ms), or at `gmacs_at` where that is another.

    `imagenet_top1` is the published accuracy in per cent on ImageNet-1k's validation set, where there is
    one. `good_for` says in a few words what to take it for. `download` is the size of the weights' file in
    bytes, `source` the page that the facts are from; `stronger` marks what `--network` tries beside what is
    installed.
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
    kind: str  # convnet, vit, hybrid or transformer
    download: int | None = None
    source: str = ""
    stronger: bool = False
    gmacs_at: int = 0
    good_for: str = ""

    @property
    def name(self) -> str:
        """The reference without its prefix."""
        return self.reference.partition(":")[2]

    @property
    def megabytes(self) -> float:
        """What is to be fetched, in 10^6 bytes; of float32 weights where the size is not known."""
        return (self.download or 4 * self.parameters) / 1e6


@dataclass(frozen=True)
class Licence:
    """What a licence allows: `commercial` is "yes", "no", "terms" (they are the publisher's own, to be read)
    or "unknown". `remark` says why it is not simply taken, "" where it is.
    """

    name: str
    commercial: str
    link: str
    remark: str

    @property
    def free(self) -> bool:
        """Whether the weights are taken without a word of the user's."""
        return self.commercial == "yes"


@cache
def licences() -> tuple[Licence, ...]:
    """The licences that are known, as licences.json has them."""
    import json

    text = files("regraft.backbones").joinpath("licences.json").read_text(encoding="utf-8")
    return tuple(Licence(**item) for item in json.loads(text)["licences"])


def licence_of(name: str) -> Licence:
    """The licence of this name; one that is not listed is unknown."""
    known = {one.name.lower(): one for one in licences()}
    return known.get(name.lower()) or Licence(name, "unknown", "", "what it allows is not known here")


@cache
def entries() -> tuple[Entry, ...]:
    """Every entry, the packaged ones first."""
    import json

    text = files("regraft.backbones").joinpath("catalogue.json").read_text(encoding="utf-8")
    return tuple(Entry(**item) for item in json.loads(text))


def entry_of(reference: str) -> Entry | None:
    """The entry of a reference, if the catalogue has it."""
    return next((entry for entry in entries() if entry.reference == reference), None)


def is_cached(reference: str) -> bool:
    """True if the hub's local cache holds the weights of timm:NAME or transformers:OWNER/NAME; nothing is
    asked of the network.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    kind, _, name = reference.partition(":")
    repo = f"timm/{name}" if kind == "timm" else name
    try:
        return any(isinstance(try_to_load_from_cache(repo, file), str) for file in WEIGHTS)
    except HFValidationError as error:
        raise UsageError(f"{reference}: {error}") from None
