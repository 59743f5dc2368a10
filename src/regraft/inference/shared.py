"""Frozen activations worked out by a crew: each worker makes the same engine again, and answers parts of a
list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.crew import Crew
from regraft.inference.feed import batched
from regraft.runtime import cache_folder

PART = 256  # items a worker is handed at once
LENGTHS = 2_048  # the same of items with lengths of their own, of which as many fill batches of one length
TURNS = 8  # parts that each worker is to have at least, so that all end at about the same time

Rows = list[np.ndarray]


@dataclass(frozen=True)
class Extraction:
    """What a worker is handed: how its engine is made, the preprocessing, the engine's outputs by name."""

    making: Any
    preprocess: Any
    columns: tuple[str, ...]

    def __call__(self) -> Callable[[tuple[list[str], list[Any]]], Rows]:
        """What a worker answers parts of a list with: ids and items in, an array a column out."""
        from regraft.inference.store import FeatureStore

        store, engine = FeatureStore(None), self.making.engine(cache_folder())

        def work(part: tuple[list[str], list[Any]]) -> Rows:
            ids, items = part
            return store.features(ids, items, ("",), self.preprocess, engine, _unheard, columns=self.columns)

        return work


def extracted(
    crew: Crew, ids: Sequence[str], items: Sequence[Any], extraction: Extraction, batch: int
) -> Iterator[tuple[list[str], Rows]]:
    """Some of the ids with their rows, an array a column, as workers end them. `batch` is the engine's."""
    size = min(LENGTHS if extraction.preprocess.varying else PART, -(-len(ids) // (crew.workers * TURNS)))
    size = -(-size // batch) * batch
    parts = [(some, [items[n] for n in numbers]) for some, numbers in _numbered(ids, size)]
    for number, rows in crew.each(extraction, parts):
        yield parts[number][0], rows


def _numbered(ids: Sequence[str], size: int) -> Iterator[tuple[list[str], list[int]]]:
    start = 0
    for some in batched(ids, size):
        yield some, list(range(start, start + len(some)))
        start += len(some)


def _unheard(**_: Any) -> None:
    """Progress of a part, which nobody sees."""
