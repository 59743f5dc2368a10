"""Whole runs from each layout of the data: the splits given are the ones evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import regraft
from regraft.modalities import read_source


def picture(path: Path, colour: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 90, (24, 24, 3))
    pixels[:, :, colour] += 150
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def split_folders(root: Path) -> Path:
    for split, (name, count) in enumerate({"train": 12, "valid": 4, "test": 5}.items()):
        for colour, label in enumerate(("red", "blue")):
            for number in range(count):
                picture(
                    root / name / label / f"{number}.png", 2 * colour, 1000 * split + 100 * colour + number
                )
    return root


def tables(root: Path) -> Path:
    split_folders(root / "pictures")
    for split in ("train", "test"):
        rows = sorted((root / "pictures" / split).glob("*/*.png"))
        lines = [f"{path.relative_to(root).as_posix()},{path.parent.name}" for path in rows]
        (root / f"{split}.csv").write_text("\ufefffile,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return root


def one_parquet(root: Path) -> Path:
    split_folders(root / "pictures")
    files = sorted(root.glob("pictures/*/*/*.png"))
    columns = {
        "path": [
            str(path) if path.parent.name == "red" else f"../data/{path.relative_to(root)}" for path in files
        ],
        "label": [path.parent.name for path in files],
        "split": [path.parent.parent.name for path in files],
        "group": [f"g{number // 3}" for number in range(len(files))],
        "weight": [1.0 + number % 2 for number in range(len(files))],
    }
    pq.write_table(pa.table(columns), root / "all.parquet")
    return root / "all.parquet"


@pytest.mark.parametrize("make", [split_folders, tables, one_parquet])
def test_given_splits_are_evaluated(
    make: Callable[[Path], Path], tmp_path: Path, head_only: dict[str, Any]
) -> None:
    run = regraft.fit(make(tmp_path / "data"), tmp_path / "run", recipe=head_only)
    assert run.metrics["test"]["accuracy"].n == 10
    assert run.metrics["test"]["accuracy"].value >= 0.7
    counts = json.loads((run.path / "run.json").read_text())["data"]["counts"]
    if make is tables:  # no val was given: it is cut from train
        assert counts["train"] + counts["val"] == 24
        assert counts["val"] >= 1
    else:
        assert counts == {"train": 24, "val": 8, "test": 10}
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    assert [event["examples"] for event in events if event["kind"] == "unseal"] == [10]
    table = pq.read_table(run.path / "predictions.parquet").to_pydict()
    assert set(table["split"]) == {"val", "test"}
    for split, source in zip(table["split"], table["source"], strict=True):
        assert ("/test/" in f"/{source}") == (split == "test")


def test_a_later_run_keeps_the_splits_of_an_earlier_one(
    colours: Path, tmp_path: Path, head_only: dict[str, Any]
) -> None:
    def places(run: regraft.Run) -> dict[str, str]:
        table = pq.read_table(run.path / "examples.parquet").to_pydict()
        return dict(zip(table["source"], table["split"], strict=True))

    first = places(regraft.fit(colours, tmp_path / "one", recipe=head_only))
    for number in range(12):
        picture(colours / "red" / f"more{number}.png", 0, number)
    later = {"data": {"seed": 5}, **head_only}
    second = places(regraft.fit(colours, tmp_path / "two", recipe=later, splits=tmp_path / "one"))
    assert {source: second[source] for source in first} == first
    assert len(second) == len(first) + 12


@pytest.mark.data
@pytest.mark.parametrize("name", ["apple_leaf4", "flowers5", "hymenoptera", "sign_digits"])
def test_real_sets_are_read_without_complaint(name: str, real_data: Path) -> None:
    source = read_source(real_data / name)
    assert (source.passed.stray, source.empty, source.passed.links) == ([], [], [])
    assert {row.split for row in source.rows} == {"train", "test"}
