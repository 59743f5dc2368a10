"""predictions.parquet: what a run answered on the examples of val and test, a row each, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from regraft.artifacts import write_parquet
from regraft.data.examples import Part
from regraft.model import softmax

WORDS = (
    "id",
    "source",
    "split",
    "label",
    "predicted",
)  # numbers that hardly repeat take three times as long in a dictionary
CELLS = 1 << 22  # numbers held at once


def write_predictions(
    place: Path, parts: Sequence[tuple[Part, np.ndarray]], classes: Sequence[str], temperature: float
) -> None:
    """Write the (N, K) logits of each part, and the probabilities that come of them; nothing where there are
    no parts.

    A bounded number of rows is held at a time, however many classes there are.
    """
    step = max(1, CELLS // (2 * len(classes)))
    if parts:
        write_parquet(
            place,
            (
                _table(part, logits, classes, temperature, slice(start, start + step))
                for part, logits in parts
                for start in range(0, max(1, len(part)), step)
            ),
            use_dictionary=list(WORDS),
            write_statistics=False,
        )


def _table(
    part: Part, logits: np.ndarray, classes: Sequence[str], temperature: float, some: slice
) -> pa.Table:
    rows = logits[some]
    shares, ids = softmax(rows, temperature), part.ids[some]
    columns: dict[str, Any] = {
        "id": ids,
        "source": part.sources[some],
        "split": [part.name] * len(ids),
        "label": [classes[i] for i in part.labels[some]],
        "predicted": [classes[i] for i in rows.argmax(1)],
    }
    columns = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    columns |= {f"probability:{name}": shares[:, i] for i, name in enumerate(classes)}
    columns |= {f"logit:{name}": rows[:, i].astype(np.float32) for i, name in enumerate(classes)}
    return pa.table(columns)
