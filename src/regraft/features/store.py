"""The feature store: one row an example, kept under the key of all that it depends on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from regraft.artifacts import atomic, fingerprint
from regraft.features.feed import batched, prefetch

SHARD = 2048  # rows a file, so a killed run loses at most these
IN_MEMORY = 2 << 30  # bytes of features held in memory; more goes to a memory-mapped file


class Engine(Protocol):
    """Anything that turns (B, size, size, 3) uint8 into (B, width) float32."""

    numerics: str
    batch: int

    def run(self, images: np.ndarray) -> np.ndarray:
        """Features of one batch."""
        ...


class Host(Protocol):
    """The host half of a preprocessing."""

    def host(self, item: Any) -> np.ndarray:
        """(size, size, 3) uint8."""
        ...


class FeatureStore:
    """Features on disk below `folder`; None computes every time.

    A key folder holds whole shards (safetensors: `features` (n, width) float32 and `ids` (n, 16) uint8), each written under a
    temporary name and renamed: a kill leaves none torn, and two processes may write side by side.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def features(
        self, ids: Sequence[str], items: Sequence[Any], key: tuple[str, ...], preprocess: Host, engine: Engine, width: int,
        tick: Callable[..., None], label: str = "features",
    ) -> np.ndarray:  # fmt: skip
        """(N, width) float32 in the order of `ids`; only what is not stored is computed.

        `key` names the weights, the preprocessing and the view; the engine's numerics are added.
        """
        place = self.folder / "features" / fingerprint(*key, engine.numerics) if self.folder else None
        result = self._room(len(ids), width, place)
        rows: dict[str, list[int]] = {}
        for row, identity in enumerate(ids):
            rows.setdefault(identity, []).append(row)
        for stored_ids, stored in self._shards(place, width):
            for identity, feature in zip(stored_ids, stored, strict=True):
                for row in rows.pop(identity, ()):
                    result[row] = feature
        missing = list(rows)
        started = time.perf_counter()
        pending_ids: list[str] = []
        pending: list[np.ndarray] = []
        for done, (some, features) in enumerate(self._compute(missing, rows, items, preprocess, engine), start=1):
            for identity, feature in zip(some, features, strict=True):
                for row in rows[identity]:
                    result[row] = feature
            pending_ids.extend(some)
            pending.append(features)
            if len(pending_ids) >= SHARD:
                self._write(place, pending_ids, np.concatenate(pending))
                pending_ids, pending = [], []
            count = min(done * engine.batch, len(missing))
            rate = count / (time.perf_counter() - started)
            tick(label=label, done=count, total=len(missing), images_per_second=rate)
        if pending_ids:
            self._write(place, pending_ids, np.concatenate(pending))
        return result

    def _room(self, rows: int, width: int, place: Path | None) -> np.ndarray:
        if rows * width * 4 <= IN_MEMORY or place is None:
            return np.empty((rows, width), dtype=np.float32)
        place.mkdir(parents=True, exist_ok=True)
        name = place / f".assembled.{os.getpid()}.{time.monotonic_ns()}"
        room = np.memmap(name, dtype=np.float32, mode="w+", shape=(rows, width))
        if os.name == "posix":
            name.unlink()  # the mapping lives on, the name does not: nothing is left behind
        return room

    def _shards(self, place: Path | None, width: int) -> Iterator[tuple[list[str], np.ndarray]]:
        for path in sorted(place.glob("*.safetensors")) if place and place.is_dir() else ():
            try:
                with safe_open(path, framework="numpy") as handle:
                    ids, features = handle.get_tensor("ids"), handle.get_tensor("features")
            except (SafetensorError, OSError):
                continue  # a damaged shard is a miss
            if features.ndim == 2 and features.shape[1] == width and len(ids) == len(features):
                yield [bytes(row).hex() for row in ids], features

    def _compute(
        self, missing: list[str], rows: dict[str, list[int]], items: Sequence[Any], preprocess: Host, engine: Engine
    ) -> Iterator[tuple[Sequence[str], np.ndarray]]:
        def read(identity: str) -> np.ndarray:
            return preprocess.host(items[rows[identity][0]])

        for some, raws in prefetch(batched(missing, engine.batch), read):
            yield some, engine.run(np.stack(raws))

    def _write(self, place: Path | None, ids: list[str], features: np.ndarray) -> None:
        if place is None:
            return
        name = place / f"{time.time_ns():020d}-{os.getpid()}.safetensors"
        raw = np.array([list(bytes.fromhex(identity)) for identity in ids], dtype=np.uint8)
        with atomic(name) as temporary:
            save_file({"features": features, "ids": raw}, str(temporary))
