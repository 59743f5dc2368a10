"""Answers of a model for a list of any length, worked out by a crew and given in the list's order."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.crew import Crew, in_order
from regraft.prediction import Prediction

if TYPE_CHECKING:
    from regraft.model import Model

PART = 512  # items a worker answers at once


@dataclass(frozen=True)
class Answers:
    """What a worker is handed: the files of the model's folder by their names, which another machine need not
    see, the engine, and how answers are read.
    """

    files: dict[str, bytes]
    engine: str
    device: str
    top: int | None
    precision: float | None

    @classmethod
    def of(cls, folder: Path, model: Model, engine: str, top: int | None, precision: float | None) -> Answers:
        """Of the model that was loaded from a folder, by the engine of this name."""
        files = {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}
        return cls(files, engine, model.device.type, top, precision)

    def __call__(self) -> Callable[[list[Any]], list[Prediction]]:
        """What answers a part of the list."""
        from regraft.model import Model
        from regraft.runtime import cache_folder, pick_device

        with tempfile.TemporaryDirectory(prefix="regraft-model-") as name:
            for file, content in self.files.items():
                (Path(name) / file).write_bytes(content)
            model = Model.load(Path(name), pick_device(self.device), self.engine, cache_folder())

        def work(items: list[Any]) -> list[Prediction]:
            return list(model.predict_each(items, self.top, self.precision))

        return work


def answered(crew: Crew, answers: Answers, items: Iterable[Any]) -> Iterator[Prediction]:
    """A prediction an item, in order. Items are drawn as they are needed."""
    from regraft.inference import batched

    for rows in in_order(crew.each(answers, batched(items, PART))):
        yield from rows
