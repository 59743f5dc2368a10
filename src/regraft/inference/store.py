"""The feature store: one row an example and depth, kept under the key of all that it depends on."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import zlib
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from regraft.artifacts import atomic, fingerprint, openable
from regraft.crew import Crew
from regraft.inference.engines import Engine, passes
from regraft.inference.feed import Feed, Host

SHARD = 16 << 20  # bytes a file, or SECONDS of work: a killed run loses at most these
SECONDS = 20.0
IN_MEMORY = 2 << 30  # bytes of features held in memory; more goes to a memory-mapped file
LIMIT = 20 << 30  # bytes the store may take before what was used longest ago is deleted


@dataclass(frozen=True)
class Kept:
    """What one part of the cache holds."""

    kind: str
    files: int
    size: int  # bytes
    used: float  # seconds since the epoch, of the newest file


class FeatureStore:
    """Features on disk below `folder`; None computes every time, and so does a folder that cannot be
    written.

    A key's folder holds whole shards (safetensors: `rows` (n, ...), `ids` (n, 16) uint8 and a checksum),
    each written under a temporary name and renamed: a kill leaves none torn, and two processes may write
    side by side. Above `limit` bytes the shards used longest ago are deleted. Where nothing can be written,
    `note` is told so, once, and the work goes on. With a `crew` what is lacking is shared out among workers.
    """

    def __init__(
        self,
        folder: Path | None,
        limit: int = LIMIT,
        note: Callable[[str], None] = lambda text: None,
        crew: Crew | None = None,
    ) -> None:
        self.folder, self.limit, self.note, self.crew = folder, limit, note, crew
        self.writes = folder is not None

    def features(
        self,
        ids: Sequence[str],
        items: Sequence[Any],
        key: tuple[str, ...],
        preprocess: Host,
        engine: Engine,
        tick: Callable[..., None],
        label: str = "features",
        columns: tuple[str, ...] = ("pooled",),
    ) -> list[np.ndarray]:
        """An array a column, its rows in the order of `ids`; only what is not stored is computed.

        `columns` name the engine's outputs in their order: (N, width) float32 for pooled features, (N, ...)
        float16 for the activation at a cut (names that begin with "cut"). `key` names the weights, the
        preprocessing and the view; the engine's numerics are added.
        """
        places = [self._place(*key, engine.numerics, column) for column in columns]
        room = _Room(len(ids), self.folder if self.writes else None, self._give_up)
        rows: dict[str, list[int]] = {}
        for row, identity in enumerate(ids):
            rows.setdefault(identity, []).append(row)
        lacking = [dict.fromkeys(rows) for _ in columns]  # in the order asked for
        for number, place in enumerate(places):
            for some, values in _shards(place, lacking[number]):
                for identity, value in zip(some, values, strict=True):
                    del lacking[number][identity]
                    room.put(number, rows[identity], value)
                if not lacking[number]:
                    break
        missing = [identity for identity in rows if any(identity in names for names in lacking)]
        began, done = time.perf_counter(), 0
        pending = _Pending(lambda batches: self._write(places, batches))

        for batch, found in self._computed(missing, rows, items, preprocess, engine, columns):
            for number, values in enumerate(found):
                for identity, value in zip(batch, values, strict=True):
                    room.put(number, rows[identity], value)
            pending.add(batch, found)
            done += len(batch)
            speed = done / (time.perf_counter() - began)
            told = {"examples_per_second": speed, "passes": len(batch)}
            tick(label=label, done=done, total=len(missing), **told)
        pending.write()
        if missing:
            self.shrink()
        return room.arrays(len(columns))

    def keep(self, ids: Sequence[str], key: tuple[str, ...], engine: Engine, values: np.ndarray) -> None:
        """Keep (N, width) pooled features that `engine` would give for `key`, and that are known already because
        another pass gave them too; those that are stored stay.
        """
        place = self._place(*key, engine.numerics, "pooled")
        lacking = dict.fromkeys(ids)
        for some, _ in _shards(place, lacking):
            for identity in some:
                del lacking[identity]
        rows = [row for row, identity in enumerate(ids) if lacking.pop(identity, "") is None]
        if rows:
            self._write(
                [place], [([ids[row] for row in rows], [values[rows].astype(np.float32, copy=False)])]
            )

    def _computed(
        self,
        missing: list[str],
        rows: dict[str, list[int]],
        items: Sequence[Any],
        preprocess: Host,
        engine: Engine,
        columns: tuple[str, ...],
    ) -> Iterator[tuple[list[str], list[np.ndarray]]]:
        """Some ids with their rows, an array a column, as they come: by the crew where there is one and enough
        to share, else here.
        """
        if self.crew is not None and engine.making is not None and len(missing) > engine.batch:
            from regraft.inference.shared import Extraction, extracted

            extraction = Extraction(engine.making, preprocess, columns)
            some = [items[rows[identity][0]] for identity in missing]
            yield from extracted(self.crew, missing, some, extraction, engine.batch)
            return

        with Feed(engine.lanes, getattr(engine, "device", None), len(missing)) as feed:
            wanted = ((identity, items[rows[identity][0]]) for identity in missing)
            for batch, made in passes(engine, feed, feed.groups(wanted, preprocess, engine.batch)):
                yield batch, _typed(made, columns)

    def _place(self, *parts: str) -> Path | None:
        return self.folder / "features" / fingerprint(*parts) if self.folder else None

    def _give_up(self, error: OSError) -> None:
        """Write no more, and say so; what is stored can still be read."""
        if self.writes:
            self.note(
                f"nothing is kept in the cache {self.folder} ({error.strerror or error}); the run goes on without it"
            )
        self.writes = False

    def _write(
        self, places: list[Path | None], pending: list[tuple[Sequence[str], list[np.ndarray]]]
    ) -> None:
        if not self.writes:
            return
        try:
            self._save(places, pending)
        except OSError as error:
            self._give_up(error)

    def _save(self, places: list[Path | None], pending: list[tuple[Sequence[str], list[np.ndarray]]]) -> None:
        ids = np.array(
            [list(bytes.fromhex(identity)) for some, _ in pending for identity in some], dtype=np.uint8
        )
        for number, place in enumerate(places):
            if place is None:
                continue
            rows = np.ascontiguousarray(np.concatenate([found[number] for _, found in pending]))
            name = place / f"{time.time_ns():020d}-{os.getpid()}.safetensors"
            with atomic(name) as temporary:
                save_file(
                    {"rows": rows, "ids": ids}, str(temporary), metadata={"crc32": str(_checksum(rows, ids))}
                )

    def shrink(self, limit: int | None = None) -> int:
        """Delete what was used longest ago until no more than `limit` bytes are left; gives the bytes
        deleted.
        """
        limit = self.limit if limit is None else limit
        files = sorted(_files(self.folder), key=lambda found: found[1].st_mtime_ns)
        total, deleted = sum(about.st_size for _, about in files), 0
        for path, about in files:
            if total - deleted <= limit:
                break
            with contextlib.suppress(OSError):  # a cache of another user
                path.unlink(missing_ok=True)  # one that is being read stays readable, or is a miss
                deleted += about.st_size
        return deleted

    def kept(self) -> list[Kept]:
        """What the cache holds, by kind."""
        kinds: dict[str, list[os.stat_result]] = {}
        for path, about in _files(self.folder):
            kinds.setdefault(path.relative_to(self.folder or path).parts[0], []).append(about)
        return [
            Kept(kind, len(found), sum(a.st_size for a in found), max(a.st_mtime for a in found))
            for kind, found in sorted(kinds.items())
        ]

    def clear(self) -> int:
        """Delete all that regraft keeps below the folder, and nothing else; gives the bytes deleted."""
        size = sum(about.st_size for _, about in _files(self.folder))
        for kind in KINDS if self.folder else ():
            shutil.rmtree(self.folder / kind, ignore_errors=True)  # type: ignore[operator]
        return size


KINDS = ("features", "openvino", "trials")


def _typed(found: list[np.ndarray], columns: tuple[str, ...]) -> list[np.ndarray]:
    """An engine's outputs as the store keeps them: activations at a cut in float16, all else in float32."""
    return [
        values.astype(np.float16 if column.startswith("cut") else np.float32, copy=False)
        for column, values in zip(columns, found, strict=True)
    ]


class _Pending:
    """Batches that are computed and not written yet; `write` is given them when they are many or old."""

    def __init__(self, write: Callable[[list[tuple[Sequence[str], list[np.ndarray]]]], None]) -> None:
        self.to_disk, self.since = write, time.perf_counter()
        self.batches: list[tuple[Sequence[str], list[np.ndarray]]] = []
        self.held = 0

    def add(self, some: Sequence[str], found: list[np.ndarray]) -> None:
        """One more batch: its ids and an array a column."""
        self.batches.append((some, found))
        self.held += sum(values.nbytes for values in found)
        if self.held >= SHARD or time.perf_counter() - self.since > SECONDS:
            self.write()

    def write(self) -> None:
        """Write whatever there is."""
        if self.batches:
            self.to_disk(self.batches)
        self.batches, self.held, self.since = [], 0, time.perf_counter()


class _Room:
    """Arrays that are made when their first row comes; large ones are memory-mapped, their files without a
    name.
    """

    def __init__(self, rows: int, folder: Path | None, give_up: Callable[[OSError], None]) -> None:
        self.rows, self.folder, self.give_up = rows, folder, give_up
        self.columns: dict[int, np.ndarray] = {}

    def put(self, number: int, rows: list[int], value: np.ndarray) -> None:
        if number not in self.columns:
            self.columns[number] = self._array((self.rows, *value.shape), value.dtype)
        self.columns[number][rows] = value

    def arrays(self, count: int) -> list[np.ndarray]:
        return [self.columns.get(number, np.zeros((0, 0), dtype=np.float32)) for number in range(count)]

    def _array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        if int(np.prod(shape)) * dtype.itemsize <= IN_MEMORY or self.folder is None:
            return np.empty(shape, dtype=dtype)
        name = self.folder / f".assembled.{os.getpid()}.{time.monotonic_ns()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(name, "w+b") as file:
                if hasattr(
                    os, "posix_fallocate"
                ):  # else a full disk would end the process when a row is put there
                    os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)) * dtype.itemsize)
                return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
        except OSError as error:
            self.give_up(error)
            return np.empty(shape, dtype=dtype)
        finally:
            if os.name == "posix":  # the mapping lives on, the name does not: nothing is left behind
                with contextlib.suppress(OSError):
                    name.unlink()


def _shards(place: Path | None, lacking: Container[str]) -> Iterator[tuple[list[str], np.ndarray]]:
    """Ids and rows of what is `lacking`, shard by shard, the oldest first; a damaged one is a miss.

    Of a shard that holds nothing of it only the ids are read, and it does not count as used.
    """
    for path in sorted(place.glob("*.safetensors")) if place and os.path.isdir(place) else ():
        try:
            with openable(path) as file, safe_open(file, framework="numpy") as handle:
                ids, about = handle.get_tensor("ids"), handle.metadata() or {}
                names = [bytes(row).hex() for row in ids]
                wanted = [
                    row
                    for name, row in {name: row for row, name in enumerate(names)}.items()
                    if name in lacking
                ]
                if not wanted:
                    continue
                rows = handle.get_tensor("rows")
            if len(ids) != len(rows) or about.get("crc32") != str(_checksum(rows, ids)):
                continue
        except (SafetensorError, OSError):
            continue
        with contextlib.suppress(OSError):  # it can be read, and not be written
            os.utime(path)  # what was used last is deleted last
        yield [names[row] for row in wanted], rows[wanted]


def _checksum(rows: np.ndarray, ids: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(ids).data, zlib.crc32(np.ascontiguousarray(rows).data))


def _files(folder: Path | None) -> list[tuple[Path, os.stat_result]]:
    found = []
    for kind in KINDS if folder else ():
        for path in (folder / kind).rglob("*"):  # type: ignore[operator]
            try:
                about = path.stat()
            except OSError:
                continue  # another process deleted it meanwhile
            if path.is_file():
                found.append((path, about))
    return found
