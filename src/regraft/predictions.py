"""predictions.parquet: what a run answered on the examples of val and test, a row each, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from regraft.artifacts import write_parquet
from regraft.data.part import Part
from regraft.tasks import Calibration, Task

# Numbers that hardly repeat take three times as long in a dictionary
WORDS = ("id", "source", "split", "label", "predicted")
CELLS = 1 << 22  # numbers held at once


def write_predictions(
    place: Path, parts: Sequence[tuple[Part, np.ndarray]], task: Task, calibration: Calibration
) -> None:
    """Write the (N, K) outputs of each part, as they come from the model, and what the task makes of them;
    nothing where there are no parts.

    A bounded number of rows is held at a time, however many outputs there are.
    """
    step = max(1, CELLS // (2 * task.outputs))
    if parts:
        write_parquet(
            place,
            (
                _table(part, outputs, task, calibration, slice(start, start + step))
                for part, outputs in parts
                for start in range(0, max(1, len(part)), step)
            ),
            use_dictionary=list(WORDS),
            write_statistics=False,
        )


def _table(part: Part, outputs: np.ndarray, task: Task, calibration: Calibration, some: slice) -> pa.Table:
    rows, ids, decided = outputs[some], part.ids[some], task.decided(calibration)
    columns: dict[str, Any] = {
        "id": ids,
        "source": part.sources[some],
        "split": [part.name] * len(ids),
        "label": task.said(part.labels[some]),
        "predicted": decided.said(decided.answers(calibration.applied(rows))),
    }
    columns = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    return pa.table(columns | task.columns(rows, calibration))
