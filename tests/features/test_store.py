"""The store computes each feature once and never gives a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from regraft.features import FeatureStore


class Engine:
    """Mean colour of each image as three features; counts what it was asked for."""

    numerics, batch = "test", 4

    def __init__(self) -> None:
        self.seen = 0

    def run(self, images: np.ndarray) -> np.ndarray:
        self.seen += len(images)
        return images.mean(axis=(1, 2)).astype(np.float32)


class Host:
    """An item is a number, its image is filled with it."""

    def host(self, item: Any) -> np.ndarray:
        return np.full((2, 2, 3), item, dtype=np.uint8)


def ids(numbers: list[int]) -> list[str]:
    return [f"{n:032x}" for n in numbers]


def ask(store: FeatureStore, engine: Engine, numbers: list[int], key: tuple[str, ...] = ("w", "p")) -> np.ndarray:
    return store.features(ids(numbers), numbers, key, Host(), engine, 3, lambda **_: None)


def test_each_is_computed_once_and_given_in_the_order_asked(tmp_path: Path) -> None:
    store, engine = FeatureStore(tmp_path), Engine()
    assert ask(store, engine, [1, 2, 3, 2, 5])[:, 0].tolist() == [1, 2, 3, 2, 5]
    assert engine.seen == 4
    assert ask(store, engine, [5, 9, 1])[:, 0].tolist() == [5, 9, 1]
    assert engine.seen == 5  # only the new one
    assert ask(FeatureStore(tmp_path), Engine(), [9, 2])[:, 0].tolist() == [9, 2]


def test_another_key_is_a_miss(tmp_path: Path) -> None:
    engine = Engine()
    ask(FeatureStore(tmp_path), engine, [1, 2])
    ask(FeatureStore(tmp_path), engine, [1, 2], ("other weights", "p"))
    assert engine.seen == 4


def test_a_torn_shard_is_a_miss_not_a_wrong_feature(tmp_path: Path) -> None:
    store, engine = FeatureStore(tmp_path), Engine()
    ask(store, engine, [1, 2, 3])
    shard = next(tmp_path.rglob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-7])
    assert ask(store, engine, [3, 1])[:, 0].tolist() == [3, 1]
    assert engine.seen == 5


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    engine = Engine()
    for _ in range(2):
        assert ask(FeatureStore(None), engine, [7])[0].tolist() == [7, 7, 7]
    assert engine.seen == 2
