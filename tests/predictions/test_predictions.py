"""predictions.parquet holds every row in its order, however few are held at once."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from regraft.artifacts import read_parquet
from regraft.data.part import Part
from regraft.evaluation import softmax
from regraft.predictions import write_predictions
from regraft.tasks.single import Single
from regraft.tasks.temperature import Temperature


def part(name: str, count: int, classes: int) -> tuple[Part, np.ndarray]:
    rng, ids = np.random.default_rng(count), tuple(f"{name}{number}" for number in range(count))
    alone = np.arange(count)
    one = Part(name, ids, ids, ids, rng.integers(0, classes, count), np.ones(count), (None,) * count, alone)  # type: ignore[arg-type]
    return one, rng.normal(size=(count, classes)).astype(np.float32)


def test_rows_follow_one_another_over_parts_and_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [part("val", 7, 3), part("test", 10, 3)]
    write_predictions(tmp_path / "whole.parquet", parts, Single(tuple("abc")), Temperature("val", 1.5))
    monkeypatch.setattr("regraft.predictions.CELLS", 12)
    write_predictions(tmp_path / "pieces.parquet", parts, Single(tuple("abc")), Temperature("val", 1.5))
    whole, pieces = (read_parquet(tmp_path / f"{name}.parquet") for name in ("whole", "pieces"))
    assert pq.ParquetFile(tmp_path / "pieces.parquet").num_row_groups == 9
    assert whole.equals(pieces)
    assert whole["id"].to_pylist() == [*parts[0][0].ids, *parts[1][0].ids]
    for k, name in enumerate("abc"):
        expected = np.concatenate([softmax(logits, 1.5)[:, k] for _, logits in parts])
        assert np.array_equal(whole[f"probability:{name}"].to_numpy(), expected)


def test_many_rows_of_many_classes_are_not_held_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regraft.predictions.CELLS", 50_000)
    some = part("test", 5_000, 100)
    tracemalloc.start()
    try:
        write_predictions(
            tmp_path / "many.parquet", [some], Single(tuple(f"class {k}" for k in range(100))), Temperature()
        )
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < some[1].nbytes
