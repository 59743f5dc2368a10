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


def write_predictions(
    place: Path, parts: Sequence[tuple[Part, np.ndarray]], classes: Sequence[str], temperature: float
) -> None:
    """Write the (N, K) logits of each part, and the probabilities that come of them; nothing where there are no parts."""
    tables = []
    for part, logits in parts:
        shares = softmax(logits, temperature)
        columns: dict[str, Any] = {
            "id": part.ids, "source": part.sources, "split": [part.name] * len(part),
            "label": [classes[i] for i in part.labels], "predicted": [classes[i] for i in logits.argmax(1)],
        }  # fmt: skip
        columns |= {f"probability:{name}": shares[:, i] for i, name in enumerate(classes)}
        columns |= {f"logit:{name}": logits[:, i].astype(np.float32) for i, name in enumerate(classes)}
        tables.append(pa.table(columns))
    if tables:
        write_parquet(place, pa.concat_tables(tables))
