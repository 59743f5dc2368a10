"""Sources of weights that are made known from outside, each under the prefix of its references:
PREFIX:NAME.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.backbones.sources.obtained import Obtained

BUILT_IN = (
    "packaged",
    "timm",
    "hf",
    "path",
    "run",
    "transformers",
    "encoder",
    "whisper",
    "speech",
    "spectral",
    "static",
)


class WeightSource(Protocol):
    """Where pre-trained models of one modality come from. An architecture of its models is named
    PREFIX:ANYTHING, which is how a saved model finds the source that builds its network again.
    """

    prefix: str
    modality: str

    def obtain(self, name: str, offline: bool) -> Obtained:
        """The model of the reference PREFIX:NAME, with its weights. Raises BackboneError that says what to
        do.
        """

    def candidates(self) -> Sequence[str]:
        """The references that are at hand without a network, the usual one first."""

    def build(self, architecture: str, config: dict[str, Any]) -> nn.Module:
        """The untrained network of an architecture of this source, without a classifier; `config` is the
        one of its `Obtained`.
        """


_known: dict[str, WeightSource] = {}


def register_source(source: WeightSource) -> None:
    """Make a source known under its prefix; one of the same prefix is replaced. Raises UsageError for the
    prefix of a built-in one.
    """
    if source.prefix in BUILT_IN:
        raise UsageError(f"the prefix {source.prefix!r} is that of a built-in source of weights.")
    _known[source.prefix] = source


def source_of(name: str) -> WeightSource | None:
    """The registered source of a reference or an architecture; None for those of the built-in ones."""
    prefix, colon, _ = name.partition(":")
    return _known.get(prefix) if colon else None


def sources() -> tuple[WeightSource, ...]:
    """All registered sources, in the order they came."""
    return tuple(_known.values())
