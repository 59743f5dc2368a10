"""Run folders written by hand: the files a finished run leaves, without a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regraft.artifacts import RunFolder
from regraft.data import Examples, Named
from regraft.data.blocks import blocks_of
from regraft.data.examples import SCHEMA
from regraft.evaluation import evaluate_single

CLASSES = ("ant", "bee", "cat")


def labels_of(count: int, seed: int = 0) -> list[str]:
    """Labels by name."""
    return [CLASSES[k] for k in np.random.default_rng(seed).integers(0, len(CLASSES), count)]


def answers_to(labels: Sequence[str], accuracy: float, seed: int) -> list[str]:
    """Predictions that are right so often; the wrong ones name the next class."""
    wrong = np.random.default_rng(seed).random(len(labels)) > accuracy
    return [CLASSES[(CLASSES.index(a) + bad) % len(CLASSES)] for a, bad in zip(labels, wrong, strict=True)]


def write_run(
    folder: Path,
    labels: Sequence[str],
    predicted: Sequence[str],
    *,
    ids: Sequence[str] = (),
    classes: Sequence[str] = CLASSES,
    groups: Sequence[str | None] = (),
    state: str = "finished",
    split: str = "test",
    readings: int = 1,
    began: str = "",
) -> Path:
    """A run whose test examples have these labels and predictions; ids default to e0, e1, ..."""
    folder.mkdir(parents=True)
    ids = list(ids) or [f"e{number}" for number in range(len(labels))]
    codes, said = ([classes.index(name) for name in names] for names in (labels, predicted))
    shares = np.full((len(labels), len(classes)), 0.1 / (len(classes) - 1))
    shares[np.arange(len(labels)), said] = 0.9
    columns: dict[str, Any] = {
        "id": ids,
        "source": [f"{i}.png" for i in ids],
        "split": [split] * len(ids),
        "label": list(labels),
        "predicted": list(predicted),
    }
    columns |= {f"probability:{name}": shares[:, k] for k, name in enumerate(classes)}
    pq.write_table(pa.table(columns), folder / "predictions.parquet")
    rows = {name: [None] * len(ids) for name in SCHEMA.names} | {
        k: columns[k] for k in ("id", "source", "split", "label")
    }
    rows["group"] = list(groups) or rows["group"]
    rows["block"] = blocks_of(ids, rows["group"])
    task = Named("single", tuple(sorted(classes)))
    Examples(pa.table(rows, schema=SCHEMA), task, folder, "image").save(folder / "examples.parquet")
    metrics = {split: {name: e.to_dict() for name, e in evaluate_single(codes, np.log(shares)).items()}}
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (folder / "run.json").write_text(
        json.dumps(
            {
                "schema": RunFolder.SCHEMA,
                "state": state,
                "name": "animals",
                "chosen": "head only",
                "seconds": 61.0,
                "data": {"classes": list(classes)},
                "provenance": {"id": "packaged:efficientnet_lite0", "parameters": 4_652_008},
            }
        ),
        encoding="utf-8",
    )
    lines = [{"time": began or "2026-01-01T00:00:00.000+00:00", "kind": "begin"}]
    lines += [
        {"time": "2026-01-01T00:01:00.000+00:00", "kind": "unseal", "reason": "step 7", "examples": len(ids)}
    ] * readings
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder
