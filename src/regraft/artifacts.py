"""Atomic files, the run's lock, its event log, fingerprints. Knows no other type of the project."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

TEMPORARY = re.compile(r"\..+\.\d+\.\d+\.tmp")  # what `atomic` calls a file that is not whole yet
Listener = Callable[[dict[str, Any]], None]


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is flushed and renamed onto `path`, else removed.

    Whatever library writes there: where the disk is full or the folder cannot be written, the error is an
    OSError that names `path`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = (
            temporary.stat().st_mode
        )  # some writers make their files private; ours have the user's usual mode
        yield temporary
        with contextlib.suppress(OSError):  # some file systems know no modes
            os.chmod(temporary, mode)
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except Exception as error:
        raise _of_the_disk(error, path, temporary) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _of_the_disk(error: Exception, path: Path, temporary: Path) -> Exception:
    """The error itself, or, where it says that `path` cannot be written, an OSError that names it."""
    if isinstance(error, OSError):
        if error.errno is None or error.filename not in (None, str(temporary)):
            return error
        number = error.errno
    else:
        found = re.search(
            r"\(os error (\d+)\)", str(error)
        )  # as what is written in Rust says it: safetensors
        if found is None:
            return error
        number = int(found[1])
    return OSError(number, os.strerror(number), str(path))


def utf8(text: str) -> bytes:
    """Text as a file holds it. Bytes of file names that are no text become escapes, which JSON and YAML read
    back.
    """
    return text.encode("utf-8", "backslashreplace")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(utf8(text))


@contextlib.contextmanager
def openable(path: Path) -> Iterator[str]:
    """A name of a file for libraries that open none whose path is not UTF-8. Raises OSError where there is no
    such file.
    """
    name = str(path)
    if name.isascii() or utf8(name).decode() == name:
        yield name
        return
    with open(path, "rb") as handle:
        yield f"/dev/fd/{handle.fileno()}"


def order_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file in place: the library writes them in any order, and equal files
    have equal bits.
    """
    with open(path, "rb+") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = utf8(json.dumps(header, ensure_ascii=False, separators=(",", ":"))).ljust(length)
        if len(text) == length:
            handle.seek(8)
            handle.write(text)


def write_parquet(path: Path, table: pa.Table | Iterator[pa.Table], **options: Any) -> None:
    """Write a table, or tables of one schema whose rows follow one another, atomically; `options` are
    pyarrow's.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = iter((table,)) if isinstance(table, pa.Table) else table
    first = next(tables)
    with (
        atomic(path) as temporary,
        open(temporary, "wb") as handle,  # pyarrow takes no path that is not UTF-8
        pq.ParquetWriter(handle, first.schema, **options) as writer,
    ):
        writer.write_table(first)
        for some in tables:
            writer.write_table(some)


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some of its columns."""
    import pyarrow.parquet as pq

    with open(path, "rb") as handle:
        return pq.read_table(handle, columns=None if columns is None else list(columns))


def to_json(value: Any) -> str:
    """JSON text; numpy numbers and arrays are welcome, NaN is written as null."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, as `to_json` gives it."""
    write_text(path, to_json(value) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; a file that is not JSON is a UsageError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def fingerprint(*parts: Any) -> str:
    """16 hex digits that change when any of the plain values does."""
    text = json.dumps(_plain(list(parts)), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(utf8(text)).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Events:
    """What happened, one JSON object a line; listeners hear it too. `tick` is heard but not kept. `fields` go
    with every one.
    """

    def __init__(self, path: Path | None = None, listeners: tuple[Listener, ...] = (), **fields: Any) -> None:
        self.path, self.listeners, self.fields = path, listeners, fields

    def about(self, **fields: Any) -> Events:
        """The same, but that these fields go with every event."""
        return Events(self.path, self.listeners, **self.fields, **fields)

    def emit(self, kind: str, **fields: Any) -> None:
        """Append one event and tell the listeners."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        event = {"time": now, "kind": kind, **_plain({**self.fields, **fields})}
        if self.path is not None:
            _append(self.path, json.dumps(event, ensure_ascii=False))
        for listener in self.listeners:
            listener(event)

    def note(self, text: str) -> None:
        """Append what is worth knowing and no decision."""
        self.emit("note", text=text)

    def tick(self, **fields: Any) -> None:
        """Progress of long work: `label`, `done`, `total` and whatever else is worth showing."""
        for listener in self.listeners:
            listener({"kind": "tick", **self.fields, **fields})


def _append(path: Path, line: str) -> None:
    """Add a line, whole or not at all: one that a kill tore ends before it."""
    try:
        with open(path, "a+b", buffering=0) as handle:
            size = handle.seek(0, os.SEEK_END)
            handle.seek(max(0, size - 1))
            whole = handle.read(1) in (b"", b"\n")
            data = utf8(f"{'' if whole else chr(10)}{line}\n")
            try:
                if handle.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                handle.truncate(size)
                raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_events(path: Path) -> list[dict[str, Any]]:
    """All whole lines of an event log; a torn last line (a killed run) is passed over."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        with contextlib.suppress(ValueError):
            events.append(json.loads(line))
    return events


class RunFolder:
    """One run's folder: its files by name, its state, its lock."""

    SCHEMA = 1
    A_MOMENT = 0.5  # seconds that `lock` waits for those who only look whether the folder is locked
    REPORT, PICTURES = (
        "report",
        "photographs in the report",
    )  # as run.json calls them where they are `missing`
    OURS = (
        "recipe.yaml",
        "run.json",
        "events.jsonl",
        "examples.parquet",
        "ranking.json",
        "metrics.json",
        "predictions.parquet",
        "gallery.json",
        "audit.json",
        "seen.parquet",
    )

    def __init__(self, path: Path) -> None:
        from filelock import FileLock

        self.path = path
        self.recipe = path / "recipe.yaml"
        self.state = path / "run.json"
        self.events = path / "events.jsonl"
        self.examples = path / "examples.parquet"
        self.seen = path / "seen.parquet"
        self.audit = path / "audit.json"
        self.ranking = path / "ranking.json"
        self.metrics = path / "metrics.json"
        self.predictions = path / "predictions.parquet"
        self.gallery = path / "gallery.json"
        self.model = path / "model"
        self.report = path / "report.html"
        self.first_batch = path / "first_batch.png"
        self.checkpoint = path / "checkpoint.safetensors"
        self.refit = path / "checkpoint-refit.safetensors"
        self.scratch = path / "checkpoint-scratch.safetensors"
        self.strategies = path / "strategies.json"
        self.folds = path / "folds"
        self.evaluations = path / "evaluations"
        self.tensorboard = path / "tensorboard"
        self._lock = FileLock(str(path / ".lock"))

    @property
    def whole(self) -> Path:
        """The folder of the run that this one is a fold of, else its own: what a user goes on with."""
        outer = self.path.parent.parent
        return outer if self.path.parent.name == "folds" and RunFolder(outer).is_run() else self.path

    def numbered(self, number: int) -> Path:
        """The checkpoint of one of several trainings."""
        return self.path / f"checkpoint-{number}.safetensors"

    def lock(self) -> None:
        """Take the folder for this process, or say who has it."""
        from filelock import Timeout

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=self.A_MOMENT)
        except Timeout:
            raise UsageError(
                f"another process is working on {self.path}. Wait for it, or choose another folder with --out."
            ) from None
        except (OSError, NotImplementedError) as error:  # the latter where the file system knows no locks
            raise UsageError(
                f"{self.path} cannot be made or written: {error}. Choose another with --out."
            ) from None

    def is_locked(self) -> bool:
        """True while a process works in the folder. Keeps nobody from taking it, and writes nothing."""
        lock = self.path / ".lock"
        if not os.path.exists(lock):
            return False
        try:
            import fcntl
        except ImportError:  # Windows: taken for a moment, which `lock` waits for
            from filelock import FileLock, Timeout

            try:
                with FileLock(str(lock), timeout=0):
                    return False
            except (Timeout, OSError):
                return True
        try:
            with open(lock, "rb") as handle:  # shared, so that others may look at the same time
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
        except OSError:
            return True

    def release(self) -> None:
        """Give the folder back. The lock's file stays: removing it could let two others in at once."""
        self._lock.release()

    @contextlib.contextmanager
    def reserved(self, check: Callable[[RunFolder], None], made: bool = False) -> Iterator[RunFolder]:
        """The folder for this process alone, from before the work that goes before a run until its end.

        `check` raises where the folder may not be used; it is asked before the lock, so that no foreign
        folder gets one, and again under it. If what is done inside fails before anything was written, the
        folder goes with all that was made for it; `made` says that the caller has just made the folder
        itself.
        """
        check(self)
        missing = [place for place in (self.path, *self.path.parents) if not place.exists()]
        if made and not missing:
            missing = [self.path]
        try:
            self.lock()
            check(self)
            yield self
        except BaseException:
            self._withdraw(missing)
            raise
        finally:
            self.release()

    def _withdraw(self, missing: list[Path]) -> None:
        """Remove the lock's file and the folders that were not there before, as long as nothing else is in
        them.
        """
        with contextlib.suppress(OSError):
            if self._lock.is_locked and missing and [item.name for item in self.path.iterdir()] == [".lock"]:
                if os.name == "nt":  # an open file cannot be removed there
                    self.release()
                (self.path / ".lock").unlink()  # whoever waits for it finds it unlinked, and makes a new one
        for place in missing:
            with contextlib.suppress(OSError):
                place.rmdir()

    def is_left_over(self) -> bool:
        """True for what is left of a run that was ended before its run.json was there; `clear` removes it."""
        if self.is_run() or not self.path.is_dir():
            return False
        names = {item.name for item in self.path.iterdir()}
        return ".lock" in names and all(
            name in (".lock", *self.OURS) or TEMPORARY.fullmatch(name) for name in names
        )

    def is_run(self) -> bool:
        """True if a run was begun here."""
        return self.state.exists()

    def clear(self) -> None:
        """Remove what an earlier run wrote here, and nothing else."""
        torn = (place for place in self.path.glob(".*.tmp") if TEMPORARY.fullmatch(place.name))  # by a kill
        several = (
            *torn,
            *self.path.glob("checkpoint*.safetensors"),
            *self.evaluations.glob("*.json"),
            *self.tensorboard.glob("events.out.tfevents*"),
        )
        for place in (self.report, self.first_batch, self.strategies, *several):
            place.unlink(missing_ok=True)
        for name in self.OURS:
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.model, self.folds):
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)

    def read_state(self) -> dict[str, Any]:
        """run.json, or a fresh state; an unknown schema is refused."""
        if not self.state.exists():
            return {"schema": self.SCHEMA, "state": "running", "steps": {}}
        state: dict[str, Any] = read_json(self.state)
        if state.get("schema") != self.SCHEMA:
            raise UsageError(
                f"{self.state} has schema {state.get('schema')!r}, this regraft reads {self.SCHEMA}. "
                "Use the version of regraft that wrote it."
            )
        return state


def next_free(parent: Path, name: str, ending: str = "") -> Path:
    """`parent/name`, or `parent/name-2`, `-3`, ... whichever does not exist yet; `ending` follows the number."""
    candidate, number = parent / f"{name}{ending}", 1
    while candidate.exists():
        number += 1
        candidate = parent / f"{name}-{number}{ending}"
    return candidate


def claim_free(parent: Path, name: str) -> Path:
    """A new folder called as `next_free` says, made at once: of two processes that ask, each gets its own."""
    while True:
        place = next_free(parent, name)
        try:
            place.mkdir(parents=True)
        except FileExistsError:
            continue  # another process was quicker
        except OSError as error:
            raise UsageError(
                f"{place} cannot be made or written: {error}. Choose another with --out."
            ) from None
        return place
