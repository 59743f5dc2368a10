"""The one way from items to a model's outputs: predictions, the scores of val and test, and explanations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from regraft.backbones import Backbone, Batch, computes_aside, length, padded, tensors
from regraft.inference.engines import Aside, Engine, TorchEngine
from regraft.inference.feed import Feed, alike, lanes_for
from regraft.inference.outcome import Outcome
from regraft.inference.trial import REFERENCE, long, makers
from regraft.modalities import Unreadable

SHAPES = (1, 8, 32)  # the only batch sizes that PyTorch runs
CARDS = (*SHAPES, 256)  # those of a GPU
COMPILED = (1, 8)  # those of engines that compile one network a shape, and of long items: more is not faster
MANY = 32  # items that are a stream: several batches run at once, where the engine can
WAIT = 256  # items of a stream after which one is answered though not many of its length came
LISTED = 4_096  # the same of a list, all of which is there: fuller batches of rare lengths
FILLED = 0.5  # the share of a batch that must be used: padding costs a CPU as much as items do


Group = tuple[list[int], Callable[[], Batch]]  # the numbers of items, and what gives their batch


class Finished(Protocol):
    """What a predictor runs: a backbone, a head for its features, and perhaps what stands beside both, from
    the same batch to logits that are added to the head's.
    """

    backbone: Backbone
    head: nn.Module
    beside: nn.Module | None


class Predictor:
    """A model's outputs on one device, with the features they are made of. Built once, it serves every
    call, and follows the model: weights that changed, and parts that were replaced, count from the next
    call on.

    All items of a call run in batches of one size, which their number decides (`shape_for`), those with
    lengths of their own beside others of their bucket. So an output does not depend on what the other items
    are: in the same shape it has the same bits. Between two shapes the last bits may differ (by 5e-6 where
    it was measured), as libraries take other kernels for them. Several threads may call it: each reads its
    own items. The network takes one batch at a time, which has all processors to itself; of MANY items an
    engine that compiles takes several at once, each on its share of them, to the same bits where it was tried.
    """

    def __init__(
        self, model: Finished, device: torch.device, engine: str = REFERENCE, cache: Path | None = None
    ) -> None:
        self.model, self.device, self.name, self.cache = model, device, engine, cache
        self.compiles = not engine.startswith("torch")
        few = self.compiles or (device.type == "cpu" and long(model.backbone))
        self.shapes = COMPILED if few else shapes_on(device)
        self.engines: dict[tuple[int, int], Engine] = {}  # by the size of batch, and how many run at once
        self.turn = Lock()

    def outputs(self, items: Iterable[Any]) -> Iterator[np.ndarray | Unreadable]:
        """For each item, in order, its (K,) float32 outputs, or the Unreadable that it is."""
        for row in self.rows(items):
            yield row.outputs if isinstance(row, Outcome) else row

    def rows(self, items: Iterable[Any]) -> Iterator[Outcome | Unreadable]:
        """For each item, in order, its outputs and features, or the Unreadable that it is.

        Items are read ahead on threads. One at a time is taken only where there is only one: a stream is
        answered in batches.
        """
        stream, wait = iter(items), LISTED if isinstance(items, Sequence) else WAIT
        first = list(islice(stream, max(MANY, self.shapes[-1])))
        shape = shape_for(len(first), self.shapes)
        answered: dict[int, Outcome | Unreadable] = {}  # what came before its turn
        turn, reads = 0, len(items) if isinstance(items, Sequence) else len(first)
        with Feed(self._lanes(len(first)), self.device, reads) as feed:
            numbered, odd = enumerate(chain(first, stream)), answered.__setitem__
            groups = feed.groups(numbered, self.model.backbone.preprocess, shape, wait, odd)

            def passed(group: Group) -> list[Outcome]:
                return self.of_batch(group[1](), shape, feed.lanes)

            def begun(group: Group) -> _Begun:
                return self._begin(group[1](), shape)

            aside = computes_aside(self.device)
            for (numbers, _), done in feed.ahead(groups, begun) if aside else feed.run(groups, passed):
                answered |= dict(zip(numbers, done, strict=True))
                while turn in answered:
                    yield answered.pop(turn)
                    turn += 1
            yield from (answered[number] for number in sorted(answered))

    def of_raws(self, raws: Iterable[Any]) -> Outcome:
        """Outputs and features of at least one item that the preprocessing's `host` has prepared."""
        raws = list(raws)
        shape = shape_for(len(raws), self.shapes)
        answered: dict[int, Outcome] = {}
        for numbers, some in alike(enumerate(raws), shape):
            answered |= dict(zip(numbers, self._pass(some, shape), strict=True))
        rows = [answered[number] for number in range(len(raws))]
        return Outcome(np.stack([row.outputs for row in rows]), np.stack([row.features for row in rows]))

    def _lanes(self, count: int) -> int:
        """How many batches run at once of so many items or more: several where there are MANY."""
        one = not self.compiles or count < MANY
        return 1 if one else lanes_for(torch.get_num_threads())

    def _pass(self, raws: Sequence[Any], shape: int, lanes: int = 1) -> list[Outcome]:
        """Of each of at most `shape` prepared items, which go in one shape, its outputs and features."""
        return self.of_batch(self.model.backbone.preprocess.collate(raws), shape, lanes)

    def of_batch(self, batch: Batch, shape: int = 1, lanes: int = 1) -> list[Outcome]:
        """The same of a batch that is collated already. With several `lanes` so many threads may call at
        once, and each batch has its share of the processors.
        """
        with self.turn:
            engine, whole = self._engine(shape, lanes), padded(batch, shape)
            if isinstance(engine, TorchEngine):
                features = engine.forward(whole)[0]
            elif engine.lanes == 1:
                features = engine.run(whole)[0]
        if engine.lanes > 1:
            features = engine.run(whole)[0]
        return self._answers(features, whole, length(batch))

    def _begin(self, batch: Batch, shape: int) -> _Begun:
        """The same on a device that computes aside, to be waited for."""
        with self.turn:
            engine, whole = self._engine(shape, 1), padded(batch, shape)
            assert isinstance(engine, Aside)
            features = engine.begin(whole)
        return _Begun(lambda: self._answers(features.result()[0], whole, length(batch)))

    def _answers(self, features: np.ndarray, batch: Batch, count: int) -> list[Outcome]:
        """What the head makes of the features of a batch, of whose rows the first `count` are asked for."""
        with self.turn:
            head = self.model.head.to("cpu").eval()
            with torch.inference_mode():
                outputs = head(torch.from_numpy(features))
                if self.model.beside is not None:
                    outputs = outputs + self.model.beside(tensors(batch, torch.device("cpu")))
        rows = zip(outputs.numpy(), features, strict=True)
        return [Outcome(*row) for row in islice(rows, count)]

    def _engine(self, shape: int, lanes: int) -> Engine:
        """The engine for full batches of a size; made anew where the model has another backbone."""
        place = shape if self.compiles else shapes_on(self.device)[-1]  # PyTorch runs any shape
        engine = self.engines.get((place, lanes))
        if engine is None or engine.backbone is not self.model.backbone:
            made = makers(self.model.backbone, self.device, place, cache=self.cache, lanes=lanes)
            engine = self.engines[place, lanes] = made[self.name]()
        return engine


@dataclass(frozen=True)
class _Begun:
    """What the device was told to do with a batch: `result` waits for it."""

    result: Callable[[], list[Outcome]]


def shapes_on(device: torch.device) -> tuple[int, ...]:
    """The batch sizes that PyTorch runs on a device."""
    return CARDS if computes_aside(device) else SHAPES


def shape_for(count: int, shapes: tuple[int, ...] = SHAPES) -> int:
    """The batch size for a call with `count` items: the largest of the shapes that is FILLED."""
    return max((shape for shape in shapes if count >= FILLED * shape), default=shapes[0])
