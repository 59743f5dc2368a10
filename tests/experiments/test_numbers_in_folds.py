"""Several numbers in folds: errors are told in the deviations of all targets, as those of one run are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regraft.artifacts import write_json
from regraft.data import Examples
from regraft.data.blocks import blocks_of
from regraft.data.examples import SCHEMA
from regraft.experiments.folds import cross_validated
from regraft.tasks import task_of

COUNT, OFF = 40, np.array([30.0, 0.02])


def test_numbers_of_different_units_weigh_alike(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).normal(size=(COUNT, 2)) * (1_000, 0.5)
    task = task_of("regression", ("large", "small"))
    ids = [f"e{number}" for number in range(COUNT)]
    rows = {name: [None] * COUNT for name in SCHEMA.names}
    rows |= {"id": ids, "identity": ids, "source": ids, "split": ["train"] * COUNT, "label": task.said(truth)}
    rows["block"] = blocks_of(ids, rows["group"])
    examples = Examples(pa.table(rows, schema=SCHEMA), task, tmp_path, "image")

    def walk(number: int, divided: Examples) -> Path:
        """A run that is wrong by OFF, with intervals that just hold."""
        run = tmp_path / str(number)
        test = ~np.isin(ids, divided.table["id"].to_pylist())  # whose rows are sealed
        (run / "model").mkdir(parents=True)
        told = {f"value:{name}": truth[test, k] + OFF[k] for k, name in enumerate(task.classes)}
        asked = {"id": np.array(ids)[test], "split": ["test"] * int(test.sum())}
        pq.write_table(pa.table(asked | told), run / "predictions.parquet")
        write_json(
            run / "model" / "regraft.json", {"intervals": {"share": 0.9, "widths": (1.01 * OFF).tolist()}}
        )
        return run

    metrics = cross_validated(examples, 4, 0, 0.15, walk)
    assert metrics["cv"]["mae"]["value"] == pytest.approx((OFF / truth.std(axis=0)).mean())
    by_name = {row["name"]: row for row in json.loads(json.dumps(metrics["numbers"]))}
    assert [by_name[name]["mae"] for name in task.classes] == pytest.approx(OFF.tolist())
    assert [by_name[name]["held"]["value"] for name in task.classes] == [1, 1]
