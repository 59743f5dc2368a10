"""What an example is, and what it looks like to a model: one package a modality, and their registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from regraft.data.answers import USUAL, Wanted
from regraft.data.kind import Facts, Kind, Likeness
from regraft.data.sources import Source
from regraft.data.sources import read_source as _read_source
from regraft.errors import Unreadable, UsageError
from regraft.modalities.buckets import bucket_of
from regraft.modalities.intake import Input, Intake, prepared
from regraft.recipe import Section

if TYPE_CHECKING:
    from torch import Tensor, nn

    from regraft.tasks import Task

__all__ = [
    "BY_USER",
    "Beside",
    "Extent",
    "Facts",
    "Input",
    "Intake",
    "Likeness",
    "Measure",
    "Modality",
    "Preprocess",
    "Probe",
    "Shown",
    "Small",
    "Suited",
    "Unreadable",
    "bucket_of",
    "modality_of",
    "names",
    "of_ending",
    "prepared",
    "read_source",
    "register",
]

BY_USER = "the user named it"  # why a setting has its value
# A module with the modality as `MODALITY`; the first is the usual one
BUILT_IN = {
    "image": "regraft.modalities.image",
    "text": "regraft.modalities.text",
    "audio": "regraft.modalities.audio",
}


@dataclass(frozen=True)
class Shown:
    """What a report shows of one item: a data URI of a picture or a sound, or a text; of what is no picture
    perhaps a `picture` beside it.
    """

    kind: Literal["picture", "text", "sound"]
    content: str
    picture: str = ""


@dataclass(frozen=True)
class Extent:
    """How large an item is, told before all of it is decoded: what a server limits. `of(content)` gives it
    for the bytes of a file, in `unit` ("pixels"), and raises Unreadable; `usual` is the most that is taken
    from strangers if nobody says otherwise.
    """

    unit: str
    usual: int
    of: Callable[[bytes], int]


@dataclass(frozen=True)
class Measure:
    """A measure of which a report draws how it is spread: `values(facts)` gives it for each item, in `unit`;
    `seen(size)` is what a network of that input size takes of it at once.
    """

    title: str
    unit: str
    values: Callable[[pa.Table], np.ndarray]
    seen: Callable[[int], float]


class Preprocess(Protocol):
    """How items reach a network: it travels with the weights, and training, prediction and export share it.

    `varying` names the arrays of a batch whose second axis is as long as the items are, each of which may
    have a length of its own; none where all items have one shape. `files` are what is kept of it beside
    regraft.json in a model folder, by name; `Modality.preprocess_from` gets them back under "files".
    """

    varying: tuple[str, ...]
    files: Mapping[str, bytes]

    @property
    def modality(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes what a model sees."""

    def host(self, item: Any, rng: np.random.Generator | None = None, augment: Any = None) -> np.ndarray:
        """What the network sees of one item, as an array on the CPU; augmented where `rng` and `augment`
        are given. Raises Unreadable.
        """

    def collate(self, raws: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """A batch of several of these: arrays by name, the examples along the first axis of each. Items of
        different lengths are padded to the bucket (`bucket_of`) of the longest, with a mask.
        """

    def device(self) -> nn.Module:
        """The module that makes of such a batch, as tensors, the one object that the network takes. It runs
        on the network's device, and is traced and exported with the network.
        """

    def blank(self, count: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """A batch of `count` empty examples, for trials and export; of noise where `rng` is given."""

    def intake(self) -> Intake:
        """How an exported graph takes items: as they are read, or, by `prepared(self)`, as batches that
        `host` and `collate` have made.
        """

    def to_dict(self) -> dict[str, Any]:
        """Plain values for regraft.json, its modality among them."""

    def config(self) -> dict[str, Any]:
        """What the libraries that the weights are from are told of it in config.json; empty where they ask
        nothing.
        """


@dataclass(frozen=True)
class Suited:
    """What suits fine-tuning on a set, by rule from its examples: AdamW's peak rate and its factor a layer
    towards the input, values of the modality's own settings of augmentation by name, the epochs, and the
    examples of train and val up to which a second training on both is worth its time; None for the usual
    numbers.
    """

    lr: float
    layer_decay: float
    augment: Mapping[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    refit: int | None = None


@dataclass(frozen=True)
class Probe:
    """Whether a way of augmentation shows things that the data do not: `setting` is its name in
    `Modality.augmentation`, `view(preprocess)` gives a preprocessing whose `host` shows an item so, and
    `allowed(plain, seen)` tells from (N, D) features of items and of their views whether these are as good
    as the data, and why.
    """

    setting: str
    view: Callable[[Any], Any]
    allowed: Callable[[np.ndarray, np.ndarray], tuple[bool, str]]


class Evidence(Protocol):
    """What a modality knows of items without a network: a baseline that its reports hold a model against."""

    @property
    def name(self) -> str:
        """As reports call it, beside the model."""

    def answers(
        self,
        known: Sequence[Any],
        targets: np.ndarray,
        weights: np.ndarray,
        asked: Sequence[Any],
        outputs: int,
    ) -> np.ndarray:
        """(M, outputs) logits of M items, by what N `known` ones with (N,) classes and weights teach."""


class Small(Protocol):
    """A small model as an `nn.Module`: from the batch that a network takes to (B, K) logits."""

    def scaled(self, factor: float, offset: np.ndarray | None = None) -> nn.Module:
        """One whose logits are those less an `offset` (K,), times a factor."""

    def __call__(self, batch: dict[str, Tensor]) -> Tensor: ...


class Beside(Protocol):
    """A small model that sees what the network sees and stands beside it: its logits are added to those of
    the head where held-out examples say so. It is run, kept and exported with the network. `name` is what
    reports call it.
    """

    name: str

    def learnt(
        self, raws: Sequence[np.ndarray], targets: np.ndarray, weights: np.ndarray, task: Task
    ) -> Small:
        """One that has learnt from N items that the preprocessing's `host` has prepared, their targets, and
        how much each counts.
        """

    def restored(self, state: Mapping[str, Tensor]) -> nn.Module:
        """The one whose `state_dict` was kept."""


class Modality(Kind, Protocol):
    """All that regraft has to know of one sort of examples. See `regraft.data.kind.Kind` for the rest of
    it.

    `sizes` are the input sizes that a user may ask for. `augmentation` declares the settings of
    augmentation, which a recipe holds in its section `augment`: one that is "auto" by default has a value by
    rule (`settings`) or by a probe. A modality without augmentation takes `Section` itself. `takes` are
    other modalities whose networks its preprocessing can feed, as sounds go to networks of images by
    pictures of their spectrum; `joins` are the ways of joining the features of all depths (values of base.join)
    that are tried where the recipe leaves that open, the usual one first, up to `joined_up_to` examples a class
    (None: of any number); `foresight` is a forecast of what fine-tuning gains in log loss, by the out-of-fold loss of a
    head on the last depth and by how much joined depths lower it: a constant and a factor each, None where none was
    measured; `resizes` tells whether a smaller input holds an item whole, as a smaller picture
    does and a shorter clip does not. `longer(preprocess, facts, cpu)` gives, for a set with these facts, the
    same preprocessing with windows for items longer than the network takes, and why so many; None where no
    item is; it is None itself where items are never cut. `item_of_name(name)` is the name of a class as the
    content of an item, as a name is a text; None where no item says a name.
    """

    sizes: range
    augmentation: type[Section]
    probes: tuple[Probe, ...]
    takes: tuple[str, ...]
    joins: tuple[bool | str, ...]
    joined_up_to: int | None
    foresight: tuple[float, float, float] | None
    resizes: bool
    longer: Callable[[Any, pa.Table, bool], tuple[Preprocess, str] | None] | None
    extent: Extent
    evidence: tuple[Evidence, ...]
    beside: Beside | None
    item_of_name: Callable[[str], bytes] | None
    measures: tuple[Measure, ...]

    def preprocess(
        self, config: dict[str, Any], native: int, facts: pa.Table | None, size: int | None, cpu: bool
    ) -> tuple[Preprocess, str]:
        """The preprocessing of weights with this `config` and `native` input size for a set whose train and
        val have these facts (None: for no set), and why it has its input size: `BY_USER` and what there is to
        add where `size` is named; with `cpu` it is kept small for many items.
        """

    def preprocess_from(self, values: dict[str, Any]) -> Preprocess:
        """The preprocessing that wrote these values by `to_dict`. Raises UsageError for another version."""

    def settings(self, facts: pa.Table, size: int) -> Suited:
        """What suits fine-tuning on a set with these facts at this input size."""

    def views(self, augment: Any) -> Any:
        """What `Preprocess.host` is given to augment an item by the settled settings of `augmentation`; None
        for no augmentation.
        """

    def show(self, items: Sequence[Any], facts: pa.Table) -> list[Shown | None]:
        """What a report shows of some items of a set with these facts; None for one that cannot be read."""

    def hide(self, raw: np.ndarray) -> np.ndarray | None:
        """(*places, *raw.shape): copies of what a preprocessing's `host` made of an item, each with another
        place hidden; a report shows by them what an answer rests on. None where it is to show nothing of
        the kind.
        """

    def overlay(self, preprocess: Preprocess, item: Any, heat: np.ndarray) -> tuple[str, str]:
        """An item as it is shown beside its map, and the map of (*places) `heat` from 0 to 1 on it: data
        URIs. Asked only where `hide` gives copies. Raises Unreadable.
        """

    def sheet(self, batch: dict[str, np.ndarray]) -> bytes:
        """A PNG that shows what is in a training batch; empty where there is nothing to show."""


def parts_of(preprocess: Preprocess, item: Any) -> list[tuple[str, Any]]:
    """The parts of an item that a network looks at one by one, as windows of a long recording: what each is
    called, and the part as an item of its own. A preprocessing that knows such parts has a method `parts`;
    without it there are none. Raises Unreadable.
    """
    found: list[tuple[str, Any]] = preprocess.parts(item) if hasattr(preprocess, "parts") else []
    return found


_known: dict[str, Modality] = {}


def register(modality: Modality) -> None:
    """Make a modality known under its name; one of the same name is replaced."""
    _known[modality.name] = modality


def names() -> tuple[str, ...]:
    """The names of all modalities, the built-in ones first."""
    return tuple(dict.fromkeys((*BUILT_IN, *_known)))


def modality_of(name: str) -> Modality:
    """The modality of a name. Raises UsageError where there is none."""
    if name not in _known:
        if name not in BUILT_IN:
            raise UsageError(f"there is no modality {name!r}; these are known: {', '.join(names())}.")
        register(import_module(BUILT_IN[name]).MODALITY)
    return _known[name]


def of_ending(ending: str) -> Modality | None:
    """The first modality whose files have this ending (".jpg"); None where there is none."""
    return next((one for one in map(modality_of, names()) if ending.lower() in one.endings), None)


def read_source(data: str | Path, wanted: Wanted = USUAL) -> Source:
    """Read any of the layouts of the README, as examples of the registered modality that its files or
    columns are of; `wanted` says how the answers in tables are read. Raises DataError with every fault found.
    """
    return _read_source(data, [modality_of(name) for name in names()], wanted)
