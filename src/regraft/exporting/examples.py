"""The real examples that an export is held against: of the run's val and test, or what the user names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from regraft.artifacts import RunFolder, read_parquet
from regraft.data import Examples, Passed, inputs
from regraft.data.places import is_there
from regraft.errors import UsageError
from regraft.modalities import modality_of
from regraft.model import Model
from regraft.tasks import task_of

MOST = 200


@dataclass(frozen=True)
class Real:
    """Examples, and what they are of, in words. `stored` are the rows of predictions.parquet for some of
    them, at these positions, where the run has kept its answers.
    """

    items: tuple[Any, ...]
    of: str
    stored: pa.Table | None = None
    positions: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.items)


def run_of(place: Path) -> RunFolder | None:
    """The run that a folder is, or whose model it is; None for a model alone."""
    folders = (RunFolder(place), RunFolder(place.parent if place.name in ("model", "head-only") else place))
    return next((one for one in folders if one.is_run() and one.examples.is_file()), None)


def real_examples(model: Model, run: RunFolder | None, data: str | Path | None) -> Real:
    """Up to MOST examples, evenly from val and test of a run; of a model alone, of what `data` names.

    Labels are not read. Without a run `data` is a folder or a file; with one it says where the run's data
    are now. Raises UsageError where the files are gone, DataError where there are none.
    """
    if run is None:
        if data is None:
            return Real((), "no examples")
        modality = modality_of(model.modality)
        named = list(inputs([str(data)], (), modality, Passed(noun=modality.noun)))
        return Real(tuple(_evenly(named)), str(data))
    examples = Examples.load(run.examples, task_of)
    if data is not None:
        examples = examples.moved_to(data)
    if not run.predictions.is_file():
        return Real(tuple(_evenly(examples.part("val").items)), "val")
    table = read_parquet(run.predictions)
    rows = np.array(_evenly(range(table.num_rows)), dtype=np.int64)
    table, files = table.take(rows), examples.files()
    items = tuple(files[source] for source in table["source"].to_pylist())
    if gone := [str(item) for item in items if not is_there(item)]:
        raise UsageError(
            f"{len(gone)} of {len(items)} examples that the export is to be held against are gone, such as "
            f"{gone[0]}. Say where the run's data are now: --data FOLDER"
        )
    splits = table["split"].to_pylist()
    counts = {split: splits.count(split) for split in dict.fromkeys(splits)}
    # Of val it holds what was said before the model was trained on val too
    tested = tuple(place for place, split in enumerate(splits) if split == "test")
    of = " and ".join(f"{count} of {split}" for split, count in counts.items())
    return Real(items, of, table.take(np.array(tested, dtype=np.int64)), tested)


def _evenly(items: Sequence[Any]) -> list[Any]:
    """At most MOST, from beginning to end."""
    places = np.linspace(0, len(items) - 1, min(MOST, len(items))).round().astype(int)
    return [items[place] for place in places.tolist()]
