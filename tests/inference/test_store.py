"""The store computes each feature once and never gives a wrong one."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import Started, start
from regraft.data.known import KnownFile, content_id
from regraft.errors import ChangedError
from regraft.inference import FeatureStore


class Engine:
    """Mean colour of each image as three features; counts what it was asked for."""

    name, numerics, batch, lanes = "test", "test", 4, 1

    def __init__(self) -> None:
        self.seen = 0

    def run(self, batch: dict[str, np.ndarray]) -> list[np.ndarray]:
        images = batch["pixels"]
        self.seen += len(images)
        return [images.mean(axis=(1, 2)).astype(np.float32)]


class Host:
    """An item is a number, its image is filled with it."""

    def host(self, item: Any) -> np.ndarray:
        return np.full((2, 2, 3), item, dtype=np.uint8)

    def collate(self, raws: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {"pixels": np.stack(raws)}


def ids(numbers: list[int]) -> list[str]:
    return [f"{n:032x}" for n in numbers]


def ask(
    store: FeatureStore, engine: Engine, numbers: list[int], key: tuple[str, ...] = ("w", "p")
) -> np.ndarray:
    return store.features(ids(numbers), numbers, key, Host(), engine, lambda **_: None)[0]


def test_each_is_computed_once_and_given_in_the_order_asked(tmp_path: Path) -> None:
    store, engine = FeatureStore(tmp_path), Engine()
    assert ask(store, engine, [1, 2, 3, 2, 5])[:, 0].tolist() == [1, 2, 3, 2, 5]
    assert engine.seen == 4
    assert ask(store, engine, [5, 9, 1])[:, 0].tolist() == [5, 9, 1]
    assert engine.seen == 5  # only the new one
    assert ask(FeatureStore(tmp_path), Engine(), [9, 2])[:, 0].tolist() == [9, 2]


class Files(Host):
    """An item is a file whose first byte is the colour of its image."""

    def host(self, item: Any) -> np.ndarray:
        return np.full((2, 2, 3), item.read()[0], dtype=np.uint8)


def test_a_file_that_is_not_what_it_was_is_named_and_nothing_of_it_is_stored(tmp_path: Path) -> None:
    """Replaced while features are made and put back: later runs on the untouched data must not meet the
    other's features.
    """
    paths = [tmp_path / f"{number}.bin" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
    files = [KnownFile(str(path), content_id(path.read_bytes())) for path in paths]
    store, names = FeatureStore(tmp_path / "cache"), [file.id for file in files]

    def features() -> np.ndarray:
        return store.features(names, files, ("w", "p"), Files(), Engine(), lambda **_: None)[0]

    for spoil in (lambda: paths[1].write_bytes(b"x"), paths[1].unlink):
        spoil()
        with pytest.raises(ChangedError, match=re.escape(str(paths[1]))):
            features()
        paths[1].write_bytes(bytes([1]))
    assert features()[:, 0].tolist() == [0, 1, 2]


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


def test_a_flipped_bit_is_a_miss(tmp_path: Path) -> None:
    store, engine = FeatureStore(tmp_path), Engine()
    ask(store, engine, [1, 2, 3])
    shard = next(tmp_path.rglob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-20] ^= 4
    shard.write_bytes(data)
    assert ask(store, engine, [3, 1])[:, 0].tolist() == [3, 1]
    assert engine.seen == 5


class Deep(Engine):
    """Two depths: the mean colour, and the whole image."""

    def run(self, batch: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [*super().run(batch), batch["pixels"].astype(np.float32)]


def test_one_pass_fills_every_column_and_a_missing_one_is_computed(tmp_path: Path) -> None:
    store, engine = FeatureStore(tmp_path), Deep()
    columns = ("pooled", "cut 1")

    def both(numbers: list[int]) -> list[np.ndarray]:
        return store.features(
            ids(numbers), numbers, ("w",), Host(), engine, lambda **_: None, columns=columns
        )

    pooled, cut = both([4, 2])
    assert (pooled.dtype, cut.dtype, cut.shape) == (np.float32, np.float16, (2, 2, 2, 3))
    assert cut[:, 0, 0, 0].tolist() == pooled[:, 0].tolist() == [4, 2]
    assert [values[:, 0].ravel()[0] for values in both([2, 4])] == [2, 2]
    assert engine.seen == 2
    # Pooled features are shared with who wants no more
    assert ask(store, Engine(), [4], ("w",))[0].tolist() == [4, 4, 4]


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    store, engine = FeatureStore(tmp_path), Engine()
    for key in ("old", "new"):
        ask(store, engine, [1, 2, 3], (key,))
    ages = {path: number for number, path in enumerate(sorted(tmp_path.rglob("*.safetensors")))}
    for path, age in ages.items():
        os.utime(path, (age, age))
    ask(store, engine, [1], ("old",))  # used again: now the youngest
    size = sum(path.stat().st_size for path in ages)
    assert store.kept()[0].files == 2
    assert store.shrink(size - 1) > 0
    ask(store, engine, [1, 2, 3], ("old",))
    assert engine.seen == 6
    ask(store, engine, [1, 2, 3], ("new",))
    assert engine.seen == 9


def test_only_what_gave_a_row_counts_as_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up stamped every shard of its key, so that shards nobody asks for were as young as those in
    use.
    """
    store, engine = FeatureStore(tmp_path), Engine()
    for first in (1, 4, 7):
        ask(store, engine, [first, first + 1, first + 2])
    shards = sorted(tmp_path.rglob("*.safetensors"))
    for number, path in enumerate(shards):
        os.utime(path, (number, number))
    assert ask(store, engine, [5, 99, 5])[:, 0].tolist() == [5, 99, 5]
    assert [path.stat().st_mtime > 100 for path in shards] == [False, True, False]
    read = []
    monkeypatch.setattr("regraft.inference.store._checksum", lambda rows, ids: read.append(len(rows)) or 0)
    ask(store, engine, [200])
    # No rows were read of those that hold nothing that is asked for; the one is that of the new shard
    assert read == [1]


def test_a_store_above_its_limit_shrinks_by_itself(tmp_path: Path) -> None:
    store, engine = FeatureStore(tmp_path, limit=2_000), Engine()
    for number in range(20):
        ask(store, engine, [number], (f"key {number}",))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= 2_000


def test_clearing_leaves_what_is_not_the_stores(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    ask(store, Engine(), [1])
    (tmp_path / "mine.txt").write_text("keep")
    assert store.clear() > 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def write(folder: Path, first: int) -> Started:
    """A process that asks a store for forty times three features."""
    return start(first=f"from test_store import write_all; write_all({str(folder)!r}, {first})")


def write_all(folder: str, first: int) -> None:
    """What it does."""
    for number in range(first, first + 40):
        found = ask(FeatureStore(Path(folder)), Engine(), [number, number + 1, 7])
        assert found[:, 0].tolist() == [number, number + 1, 7], found


def test_two_processes_share_a_store(tmp_path: Path) -> None:
    both = [write(tmp_path, first) for first in (0, 20)]
    assert [process.wait() for process in both] == [0, 0]
    engine = Engine()
    assert ask(FeatureStore(tmp_path), engine, list(range(60)))[:, 0].tolist() == list(range(60))
    assert engine.seen == 0


def test_a_writer_killed_at_any_moment_leaves_a_store_that_is_right(tmp_path: Path) -> None:
    for pause in (0.0, 0.02, 0.05, 0.1):
        process = write(tmp_path, 0)
        deadline = time.monotonic() + 60
        while not any(tmp_path.rglob("*.safetensors")) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(pause)
        process.kill()
        process.wait()
        assert ask(FeatureStore(tmp_path), Engine(), list(range(41)))[:, 0].tolist() == list(range(41))


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    engine = Engine()
    for _ in range(2):
        assert ask(FeatureStore(None), engine, [7])[0].tolist() == [7, 7, 7]
    assert engine.seen == 2


class Together(Engine):
    """Answers a batch only when another one is there as well, and counts how many are there at most."""

    lanes = 2

    def __init__(self) -> None:
        super().__init__()
        self.meeting, self.inside, self.most = threading.Barrier(2), 0, 0

    def run(self, batch: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.meeting.wait(timeout=60)
        found = super().run(batch)
        self.inside -= 1
        return found


def test_as_many_batches_run_at_once_as_the_engine_has_lanes() -> None:
    engine = Together()
    numbers = list(range(64))
    assert ask(FeatureStore(None), engine, numbers)[:, 0].tolist() == numbers
    assert engine.most == 2
