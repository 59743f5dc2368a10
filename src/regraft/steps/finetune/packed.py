"""Arrays with lengths of their own, one behind the other: the tokens of texts, and their activations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from regraft.backbones import Backbone, Suffix, tensors
from regraft.data.part import Part
from regraft.inference import Engine, Feed, alike, batched, prefetch
from regraft.modalities import Preprocess
from regraft.steps.context import Context
from regraft.steps.finetune.mix import Placed
from regraft.training import ACTIVATION, Batch, Batches, Inputs, shuffled

READ = 256  # items that are read ahead
KEPT = 256 << 20  # bytes of prepared items that are kept from epoch to epoch


@dataclass(frozen=True)
class Packed:
    """`values` (T, ...): those of row n lie from `edges[n]` to `edges[n + 1]`, (N + 1,)."""

    values: np.ndarray
    edges: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """(N,) how long each row is."""
        return np.diff(self.edges)

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.edges[row] : self.edges[row + 1]]


def packed(rows: Iterator[np.ndarray], most: int = KEPT) -> Packed | None:
    """These rows in one array; None where they are none, or more than `most` bytes."""
    some, held = [], 0
    for row in rows:
        some.append(row)
        held += row.nbytes
        if held > most:
            return None
    if not some:
        return None
    return Packed(np.concatenate(some), np.cumsum([0, *map(len, some)]))


def prepared_items(data: Part, backbone: Backbone) -> Packed | None:
    """What the network sees of each example, where that may be kept: examples with lengths of their own, not
    augmented.
    """
    read = prefetch(batched(data.items, READ), backbone.preprocess.host)
    return packed(raw for _, raws in read for raw in raws)


def collated(preprocess: Preprocess, raws: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """A batch of some examples; of none, arrays without rows."""
    if not raws:
        return {name: array[:0] for name, array in preprocess.blank(1).items()}
    return preprocess.collate(raws)


@dataclass(frozen=True)
class Activations:
    """Of each of N examples what the network takes (`raws`), and the activation before the cut (`values`),
    float16.
    """

    preprocess: Preprocess
    raws: Packed
    values: Packed

    def inputs(self, rows: np.ndarray, context: Context) -> Inputs:
        """A batch as the network takes it, with its activations beside it, padded as the rest of it is."""
        preprocess = self.preprocess
        batch = collated(preprocess, [self.raws[row] for row in rows])
        length, shape = batch[preprocess.varying[0]].shape[1], self.values.values.shape[1:]
        activation = np.zeros((len(rows), length, *shape), dtype=np.float32)
        for place, row in zip(activation, rows, strict=True):
            place[: len(self.values[row])] = self.values[row]
        return tensors({**batch, ACTIVATION: activation}, context.device)


@dataclass(frozen=True)
class PackedPrefix:
    """Activations of the frozen stages, of examples with lengths of their own that are not augmented: those
    of train, and of val, None where there are none.
    """

    suffix: Suffix
    train: Activations
    val: Activations | None

    def bare(self) -> PackedPrefix:
        """The activations alone, for another process, which has to say what comes after them (`before`)."""
        return replace(self, suffix=None)  # type: ignore[arg-type]

    def before(self, backbone: Backbone, cut: int) -> PackedPrefix:
        """The same for a backbone of the same weights, in another process."""
        return replace(self, suffix=Suffix(backbone, cut))

    def batches(self, data: Part, size: int, context: Context) -> Batches:
        """Batches of `size` examples of an epoch, which are about as long as each other."""
        seed = context.recipe.run.seed

        def epoch_of(epoch: int, skip: int = 0, /) -> Iterator[Batch]:
            orders = shuffled(
                len(data.labels), seed, epoch, size, *context.ranks.place, self.train.raws.lengths
            )
            for order in orders[skip:]:
                yield (
                    self.train.inputs(order, context),
                    torch.from_numpy(data.labels[order]).to(context.device),
                    torch.from_numpy(data.weights[order]).float().to(context.device),
                )

        return epoch_of

    def held(self, size: int, context: Context) -> Iterator[Placed]:
        """Val in batches of `size`, with the positions of the examples in it."""
        if self.val is not None:
            for rows, _ in alike(enumerate(self.val.raws), size):
                yield np.array(rows), self.val.inputs(np.array(rows), context)


def activations(
    part: Part, backbone: Backbone, engine: Engine, room: float, context: Context, label: str
) -> Activations | None:
    """The activations that an engine made for the cut gives of a part of at least one example; None where
    they would take more than `room` bytes. Raises ValueError where an item has no activation of its own
    length.
    """
    raws = prepared_items(part, backbone)
    if raws is None:
        return None
    groups = alike(enumerate(raws), engine.batch)
    values, done = None, 0
    with Feed(engine.lanes) as feed:
        for (rows, _), found in feed.run(
            groups, lambda group: engine.run(backbone.preprocess.collate(group[1]))[1]
        ):
            if found.shape[1] < max(len(raws[row]) for row in rows):
                raise ValueError("some items are seen in several windows")
            if values is None:
                if 2 * len(raws.values) * int(np.prod(found.shape[2:])) > room:
                    return None
                values = np.empty((len(raws.values), *found.shape[2:]), dtype=np.float16)
            for row, activation in zip(rows, found, strict=True):
                values[raws.edges[row] : raws.edges[row + 1]] = activation[: len(raws[row])]
            done += len(rows)
            context.events.tick(label=label, done=done, total=len(raws), passes=len(rows))
    assert values is not None
    return Activations(backbone.preprocess, raws, Packed(values, raws.edges))
