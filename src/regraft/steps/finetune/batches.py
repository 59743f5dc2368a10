"""The batches that a network is fine-tuned on: read, augmented and on the device, ahead of the step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from regraft.backbones import Backbone, one_ahead, tensors
from regraft.data.part import Part
from regraft.inference import Feed, Reading, batched, prefetch
from regraft.modalities import Preprocess
from regraft.steps.context import Context
from regraft.steps.finetune.packed import READ, collated, prepared_items
from regraft.training import Batch, Batches, shuffled


@dataclass(frozen=True)
class Drawn:
    """Reads an (item, number) as an epoch shows it. The draw depends on (seed, epoch, number) only: not on the
    thread or the process that makes it.
    """

    preprocess: Preprocess
    augment: Any
    seed: int
    epoch: int

    def __call__(self, pair: tuple[Any, int]) -> np.ndarray:
        item, number = pair
        rng = np.random.default_rng([self.seed, self.epoch, number])
        raw: np.ndarray = self.preprocess.host(item, rng, self.augment)
        return raw


def augmented(
    data: Part, backbone: Backbone, augment: Any, size: int, epochs: int, context: Context
) -> Batches:
    """Augmented batches of `size` examples of each of so many epochs; of several `context.ranks`, this one's
    share.
    """
    seed, device, preprocess = context.recipe.run.seed, context.device, backbone.preprocess
    kept = prepared_items(data, backbone) if preprocess.varying and augment is None else None
    lengths = None
    if preprocess.varying:
        lengths = lengths_of(data, backbone) if kept is None else kept.lengths

    def read(epoch: int, orders: list[np.ndarray], feed: Feed) -> Iterator[tuple[list[int], Any]]:
        """The numbers of the examples of each batch, and the batch."""
        if kept is not None:
            for order in orders:
                yield order.tolist(), collated(preprocess, [kept[number] for number in order])
            return
        pairs = ([(data.items[number], number) for number in order.tolist()] for order in orders)
        reading = Reading(Drawn(preprocess, augment, seed, epoch), preprocess.collate)
        for some, (batch, _) in feed.made(pairs, reading):
            yield [number for _, number in some], collated(preprocess, ()) if batch is None else batch

    def epoch_of(epoch: int, skip: int = 0, /) -> Iterator[Batch]:
        orders = shuffled(len(data.items), seed, epoch, size, *context.ranks.place, lengths)[skip:]
        with Feed(device=device, reads=len(data.items) * epochs) as feed:
            here = (
                (
                    tensors(batch),
                    torch.from_numpy(data.labels[rows]),
                    torch.from_numpy(data.weights[rows]).float(),
                )
                for rows, batch in read(epoch, orders, feed)
            )
            yield from one_ahead(here, device)

    return epoch_of


def lengths_of(data: Part, backbone: Backbone) -> np.ndarray:
    """(N,) how long the network sees each example, not augmented."""
    read = prefetch(batched(data.items, READ), lambda item: len(backbone.preprocess.host(item)))
    return np.array([length for _, lengths in read for length in lengths])
