"""Labels that are several names or a number reach a task that is registered for them: splits and folds go by its strata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from regraft.artifacts import Events
from regraft.data import Examples, fold_splits
from regraft.data.answers import Wanted
from regraft.errors import DataError, UsageError
from regraft.modalities import read_source
from regraft.recipe import Recipe
from regraft.run.open import examples_of
from regraft.tasks import registered, task_for
from regraft.tasks.single import Single

COUNT = 120


@dataclass(frozen=True)
class Flags(Single):
    """Several names an example: targets are (N, K) truths."""

    kind: str = "multi"

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        return np.array([[name in self.named(label) for name in self.classes] for label in labels])

    def strata(self, targets: np.ndarray) -> np.ndarray:
        return np.asarray(targets.sum(axis=1), dtype=np.int64)

    def stratum(self, number: int) -> str:
        return f"having {number} names"

    def named(self, label: str) -> tuple[str, ...]:
        return tuple(json.loads(label))

    def lacking(self, labels: Sequence[str]) -> str:
        return "" if self.classes else "no example has a name"


@dataclass(frozen=True)
class Number(Flags):
    """A number an example: targets are (N,) float64, strata their quarters."""

    kind: str = "regression"

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        return np.array([float(label) for label in labels])

    def strata(self, targets: np.ndarray) -> np.ndarray:
        return np.searchsorted(np.quantile(targets, (0.25, 0.5, 0.75)), targets)

    def named(self, label: str) -> tuple[str, ...]:
        return ()

    def lacking(self, labels: Sequence[str]) -> str:
        return "" if len(set(labels)) > 1 else f"every target is {labels[0]}"


def names_in(labels: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({name for label in labels for name in json.loads(label)}))


@pytest.fixture
def known() -> Iterator[None]:
    with registered("multi", Flags, names_in), registered("regression", Number, lambda _: ()):
        yield


def table(root: Path, labels: list) -> Path:
    for number in range(len(labels)):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    paths = [f"{number}.png" for number in range(len(labels))]
    pq.write_table(pa.table({"path": paths, "label": labels}), root / "t.parquet")
    return root / "t.parquet"


def several(rng: np.random.Generator) -> list[list[str]]:
    """Half of the examples have no name, few all three."""
    counts = rng.choice(4, COUNT, p=(0.5, 0.3, 0.1, 0.1))
    return [sorted(rng.choice(["cat", "dog", "eel"], count, replace=False).tolist()) for count in counts]


def examples(place: Path, task: str = "auto") -> Examples:
    source = read_source(place, Wanted(task))
    return examples_of(source, Recipe.build({"data": {"task": task}}), None, Events()).examples


def strata_of(made: Examples, split: str) -> np.ndarray:
    part = made.part(split)
    return made.task.strata(part.labels)


def test_several_names_are_split_by_the_strata_of_their_task(known: None, tmp_path: Path) -> None:
    labels = several(np.random.default_rng(0))
    made = examples(table(tmp_path, labels))
    assert (made.task.kind, made.task.classes) == ("multi", ("cat", "dog", "eel"))
    train = made.part("train")
    assert train.labels.shape == (len(train), 3)
    assert train.labels.dtype == bool
    for split in ("train", "val"):
        assert set(strata_of(made, split).tolist()) == {0, 1, 2, 3}, "each stratum is in each split"
    counts = made.class_counts()
    assert counts["train"]["cat"] == train.labels[:, 0].sum()
    made.save(tmp_path / "examples.parquet")
    again = Examples.load(tmp_path / "examples.parquet", lambda _, classes: Flags(classes))
    np.testing.assert_array_equal(again.part("train").labels, train.labels)
    blocks = made.joined([(0, len(train))]).val_apart(0)
    assert sum(blocks.counts().values()) == COUNT


def test_numbers_are_split_by_the_strata_of_their_task(known: None, tmp_path: Path) -> None:
    values = np.random.default_rng(1).exponential(10, COUNT)
    made = examples(table(tmp_path, values.tolist()), "regression")
    assert (made.task.kind, made.task.classes) == ("regression", ())
    held = made.part("val")
    assert len(held)
    assert np.isin(held.labels, values).all(), "the numbers are those of the table to the last bit"
    edges = np.quantile(values, (0.25, 0.5, 0.75))
    assert set(np.searchsorted(edges, held.labels).tolist()) == {0, 1, 2, 3}
    assert made.class_counts() == {"train": {}, "val": {}}


def test_folds_go_by_strata_and_an_error_calls_them_as_the_task_does() -> None:
    task = Flags(("cat", "dog"))
    labels = [*["[]"] * 20, *['["cat"]'] * 10, *['["cat", "dog"]'] * 3]
    ids, alone = [f"{n:032x}" for n in range(len(labels))], [None] * len(labels)
    strata = task.strata(task.encode(labels))
    for splits in fold_splits(ids, strata, alone, 3, called=task.stratum):
        tested = strata[[split == "test" for split in splits]]
        assert np.bincount(tested).tolist() == pytest.approx([20 / 3, 10 / 3, 1], abs=1)
    with pytest.raises(DataError, match="having 2 names has 3 that can be apart"):
        fold_splits(ids, strata, alone, 5, called=task.stratum)


def test_a_task_that_is_asked_for_is_taken_whatever_the_labels_are() -> None:
    assert task_for("single", ["1.5", "2.25"], "number", "t.csv").classes == ("1.5", "2.25")
    with pytest.raises(UsageError, match="'none' is no kind of task"):
        task_for("none", ["a"], "name", "t.csv")


def test_a_constant_target_is_told_by_the_task(known: None, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"every target is 0\.5"):
        examples(table(tmp_path, [0.5] * 30))
