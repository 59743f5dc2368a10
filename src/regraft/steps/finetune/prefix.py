"""Fine-tuning the last stages without the first: what the frozen stages give is computed once, a few views
an example.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psutil
import torch

from regraft.backbones import Backbone, Suffix, one_ahead, split
from regraft.data.part import Part
from regraft.inference import REFERENCE, Engine, agree, batched, feature_key, makers, prefetch
from regraft.modalities import Preprocess
from regraft.steps.context import Context
from regraft.steps.finetune.mix import Placed
from regraft.steps.finetune.packed import READ, PackedPrefix, activations
from regraft.tasks import counted
from regraft.training import Batch, Batches, shuffled

MEMORY_SHARE = 0.25  # of the memory that is free: what cached activations may take
DISK_SHARE = 0.25  # of the disk that is free
CHECKED_ITEMS = 8
NO_ROOM = (
    "every epoch runs the whole network: activations would take over a quarter of the free memory or disk"
)
LENGTHS = "its examples have lengths of their own"
LARGEST = 6e4  # float16 ends at 65,504


@dataclass(frozen=True)
class Prefix:
    """Activations of the frozen stages: `views[0]` (N, ...) float16 of the plain images, the others
    augmented; those of val.
    """

    suffix: Suffix
    views: list[np.ndarray]
    val: np.ndarray

    def bare(self) -> Prefix:
        """The activations alone, for another process, which has to say what comes after them (`before`)."""
        return replace(self, suffix=None)  # type: ignore[arg-type]

    def before(self, backbone: Backbone, cut: int) -> Prefix:
        """The same for a backbone of the same weights, in another process."""
        return replace(self, suffix=Suffix(backbone, cut))

    def held(self, size: int, context: Context) -> Iterator[Placed]:
        """Val in batches of `size`, with the positions of the examples in it."""
        starts = range(0, len(self.val), size)
        some = ((start, torch.from_numpy(np.array(self.val[start : start + size]))) for start in starts)
        for start, activation in one_ahead(some, context.device):
            yield start + np.arange(len(activation)), self.widened(activation)

    def batches(self, data: Part, size: int, context: Context) -> Batches:
        """Batches of `size` examples of an epoch: each epoch sees the next view."""
        seed = context.recipe.run.seed

        def epoch_of(epoch: int, skip: int = 0, /) -> Iterator[Batch]:
            view = self.views[(epoch if len(self.views) > 1 else 0) % len(self.views)]
            orders = shuffled(len(data.labels), seed, epoch, size, *context.ranks.place)[skip:]
            here = (
                (
                    torch.from_numpy(view[order]),
                    torch.from_numpy(data.labels[order]),
                    torch.from_numpy(data.weights[order]).float(),
                )
                for order in orders
            )
            for activation, labels, weights in one_ahead(here, context.device):
                yield self.widened(activation), labels, weights

        return epoch_of

    @staticmethod
    def widened(activation: torch.Tensor) -> torch.Tensor:
        """An activation in float32, channels last where it has channels."""
        tensor = activation.float()
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


@dataclass(frozen=True)
class _View:
    """`host` of an (item, id): the plain image, or an augmented one whose draw depends on (seed, view, id)
    only.
    """

    preprocess: Preprocess
    augment: Any
    seed: int
    number: int

    @property
    def varying(self) -> tuple[str, ...]:
        """See `Preprocess.varying`."""
        return self.preprocess.varying

    def host(self, pair: tuple[Any, str]) -> np.ndarray:
        item, identity = pair
        if self.augment is None:
            return self.preprocess.host(item)
        rng = np.random.default_rng([self.seed, self.number, int(identity[:15], 16)])
        return self.preprocess.host(item, rng, self.augment)

    def collate(self, raws: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        return self.preprocess.collate(raws)


def taught(part: Part) -> Part:
    """The examples that teach, those of a weight above 0, their mean weight 1 again; all where fewer than
    two do.
    """
    rows = np.flatnonzero(part.weights > 0)
    if len(rows) < 2 or len(rows) == len(part):
        return part
    teaching = part.some(rows)
    return replace(teaching, weights=teaching.weights / teaching.weights.mean())


def views_of(examples: int, epochs: int) -> int:
    """Views an example: more of few examples; each epoch takes the next, so more than epochs are never
    needed.
    """
    most = 8 if examples <= 1_000 else 4 if examples <= 10_000 else 2
    return max(1, min(most, epochs))


def cache_prefix(
    backbone: Backbone,
    cut: int,
    data: Part,
    val: Part,
    augment: Any,
    epochs: int,
    engine: str,
    context: Context,
) -> Prefix | PackedPrefix | None:
    """The activations at stage `cut` of train and val, from the store where it has them; those of examples
    with lengths of their own are computed each time, and kept in memory.

    `engine` names what runs the frozen base in this run. None, with a note of the reason, where they would
    not fit the memory and the disk, or the network cannot be cut there.
    """
    if cut == 0:
        return None
    try:
        suffix = Suffix(backbone, cut)
    except ValueError as error:
        _say(f"every epoch runs the whole network: {error}", context)
        return None
    runs, sample = _engine(backbone, cut, data, engine, context)
    if runs is None:
        _say("every epoch runs the whole network: its activations do not fit float16", context)
        return None
    if suffix.given is None:
        return _packed(suffix, backbone, data, val, augment, runs, context)
    if not _of_one_length(backbone, data, val):
        _say(f"every epoch runs the whole network: {LENGTHS}", context)
        return None
    views = _fitting(
        sample[0].nbytes // 2, len(data.items), len(val.items), views_of(len(data.items), epochs), context
    )
    if not views:
        _say(NO_ROOM, context)
        return None
    seed = context.recipe.run.seed

    def look(part: Part, view: int) -> np.ndarray:
        viewed = _View(backbone.preprocess, augment if view else None, seed, view)
        how = f"{augment} seed {seed} view {view}" if view else "plain"
        label = f"activations before {suffix.entrance}" + (
            f", view {view + 1} of {views}" if part is data else " of val"
        )
        pairs = list(zip(part.items, part.ids, strict=True))
        columns = ("pooled", f"cut {suffix.entrance}")
        key = feature_key(runs, how)
        return context.store.features(
            part.ids, pairs, key, viewed, runs, context.events.tick, label, columns
        )[1]

    prefix = Prefix(suffix, [look(data, view) for view in range(views)], look(val, 0))
    size = sum(view.nbytes for view in prefix.views) / 1e6
    _say(
        f"stages before {suffix.entrance} run once: {counted('view', views)} an example, {size:.0f} MB of activations",
        context,
    )
    return prefix


def _of_one_length(backbone: Backbone, *parts: Part) -> bool:
    """Whether all examples go in the one shape that the network was measured at."""
    preprocess = backbone.preprocess
    if not preprocess.varying:
        return True
    wanted = {name: array.shape[1:] for name, array in preprocess.blank(1).items()}
    items = [item for part in parts for item in part.items]
    read = prefetch(batched(items, READ), preprocess.host)
    shapes = (
        {n: a.shape[1:] for n, a in preprocess.collate([raw]).items()} for _, raws in read for raw in raws
    )
    return all(shape == wanted for shape in shapes)


def _packed(
    suffix: Suffix, backbone: Backbone, data: Part, val: Part, augment: Any, engine: Engine, context: Context
) -> PackedPrefix | None:
    """The activations of examples with lengths of their own; None, with a note, where they are augmented or
    too many.
    """
    if augment is not None:
        _say(f"every epoch runs the whole network: {LENGTHS}", context)
        return None
    label = f"activations before {suffix.entrance}"
    room = MEMORY_SHARE * psutil.virtual_memory().available
    try:
        found = activations(data, backbone, engine, room, context, label)
        of_val = activations(val, backbone, engine, room, context, f"{label} of val") if len(val) else None
    except ValueError as error:
        _say(f"every epoch runs the whole network: {error}", context)
        return None
    if found is None or (len(val) and of_val is None):
        _say(NO_ROOM, context)
        return None
    size = found.values.values.nbytes / 1e6
    _say(f"stages before {suffix.entrance} run once, {size:.0f} MB of activations", context)
    return PackedPrefix(suffix, found, of_val)


def _engine(
    backbone: Backbone, cut: int, data: Part, name: str, context: Context
) -> tuple[Engine | None, np.ndarray]:
    """The engine of this name if its activations at the cut agree with float32's, else float32; and some
    activations.
    """
    pre = backbone.preprocess
    sample = pre.collate([pre.host(item) for item in data.items[:CHECKED_ITEMS]])
    made = makers(backbone, context.device, context.feature_batch, cut=cut, cache=context.store.folder)
    reference = made[REFERENCE]()
    expected = reference.run(sample)[1]
    if not np.isfinite(expected).all() or np.abs(expected).max() > LARGEST:
        return None, expected
    if name != REFERENCE:
        try:
            engine = made[name]()
            features = np.concatenate([engine.run(batch)[1] for batch in split(sample, engine.batch)])
            if agree(expected, features):
                return engine, expected
        except (RuntimeError, ImportError) as error:
            _say(f"{name} cannot give activations ({str(error).splitlines()[0][:120]})", context)
    return reference, expected


def _fitting(each: int, train: int, val: int, views: int, context: Context) -> int:
    """The views that fit a share of the free memory and disk."""
    room = MEMORY_SHARE * psutil.virtual_memory().available
    if context.store.folder is not None and context.store.writes:
        place = context.store.folder.absolute()
        while not os.path.exists(place):
            place = place.parent
        room = min(room, DISK_SHARE * psutil.disk_usage(str(place)).free, context.store.limit / 2)
    return int(max(0, min(views, (room / max(1, each) - val) // max(1, train))))


def _say(text: str, context: Context) -> None:
    context.events.emit("note", text=text)
