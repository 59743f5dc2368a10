"""The folder of one run: its files by name, its state, its lock."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from regraft.artifacts.files import TEMPORARY, read_json
from regraft.errors import UsageError


class RunFolder:
    """The folder of one run: its files by name, its state and its lock. Making the object touches no file."""

    SCHEMA = 3
    LOCK_WAIT = 0.5  # seconds; whoever only looks whether the folder is locked holds it for less
    # What run.json calls them where they are `missing`
    REPORT, PICTURES = ("report", "photographs in the report")
    WRITTEN = (
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
        self.head_only = path / "head-only"  # a model until that in `model` is whole
        self.exports = path / "exports"
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
        """The folder to name to a user: that of the outer run where this one is a fold, else its own."""
        outer = self.path.parent.parent
        return outer if self.path.parent.name == "folds" and RunFolder(outer).is_run() else self.path

    @property
    def is_fold(self) -> bool:
        """True for a run that is a fold of another."""
        return self.whole != self.path

    def numbered(self, number: int) -> Path:
        """The checkpoint of one of several trainings."""
        return self.path / f"checkpoint-{number}.safetensors"

    def lock(self) -> None:
        """Take the folder for this process. Raises UsageError where another has it, or it cannot be
        written.
        """
        from filelock import Timeout

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=self.LOCK_WAIT)
        except Timeout:
            raise UsageError(
                f"another process is working on {self.path}. "
                "Wait for it, or choose another folder with --out."
            ) from None
        except (OSError, NotImplementedError) as error:  # the latter where the file system knows no locks
            raise UsageError(
                f"{self.path} cannot be made or written: {error}. Choose another with --out."
            ) from None

    def is_locked(self) -> bool:
        """True while a process works in the folder. Asking writes nothing and keeps nobody from taking it."""
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
        """Give the folder back. The lock's file stays, as removing it could let two others in at once."""
        self._lock.release()

    @contextlib.contextmanager
    def reserved(self, check: Callable[[RunFolder], None], made: bool = False) -> Iterator[RunFolder]:
        """Hold the folder for this process alone while the block runs.

        `check` raises where the folder may not be used. It is asked before the lock is taken, so that no
        foreign folder gets a lock file, and again under the lock. If the block fails before anything was
        written, the folder is removed with all parents that were made for it; `made` says that the caller
        has just made the folder itself.
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
        """Remove the lock's file and the folders that were not there before, where these are empty."""
        with contextlib.suppress(OSError):
            if self._lock.is_locked and missing and [item.name for item in self.path.iterdir()] == [".lock"]:
                if os.name == "nt":  # an open file cannot be removed there
                    self.release()
                (self.path / ".lock").unlink()  # whoever waits for it finds it unlinked, and makes a new one
        for place in missing:
            with contextlib.suppress(OSError):
                place.rmdir()

    def is_left_over(self) -> bool:
        """True for what is left of a run that ended before its run.json was written; `clear` removes it."""
        if self.is_run() or not self.path.is_dir():
            return False
        names = {item.name for item in self.path.iterdir()}
        return ".lock" in names and all(
            name in (".lock", *self.WRITTEN) or TEMPORARY.fullmatch(name) for name in names
        )

    def is_run(self) -> bool:
        """True if a run was begun here."""
        return self.state.exists()

    def clear(self) -> None:
        """Remove what an earlier run wrote here, and nothing else of the folder."""
        torn = (place for place in self.path.glob(".*.tmp") if TEMPORARY.fullmatch(place.name))  # by a kill
        several = (
            *torn,
            *self.path.glob("checkpoint*.safetensors"),
            *self.evaluations.glob("*.json"),
            *self.tensorboard.glob("events.out.tfevents*"),
        )
        for place in (self.report, self.first_batch, self.strategies, *several):
            place.unlink(missing_ok=True)
        for name in self.WRITTEN:
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.model, self.head_only, self.exports, self.folds):
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)

    def read_state(self) -> dict[str, Any]:
        """What run.json holds, or a fresh state where there is none. Raises UsageError for another schema."""
        if not self.state.exists():
            return {"schema": self.SCHEMA, "state": "running", "steps": {}}
        state: dict[str, Any] = read_json(self.state)
        if state.get("schema") != self.SCHEMA:
            raise UsageError(
                f"{self.state} was written by {'an earlier' if state.get('schema') == 1 else 'another'} "
                f"regraft (schema {state.get('schema')!r}, "
                f"this one reads {self.SCHEMA}): use that one, or fit anew."
            )
        return state


def next_free(parent: Path, name: str, ending: str = "") -> Path:
    """The first of `parent/name`, `parent/name-2`, `-3`, ... that does not exist; `ending` follows the
    number.
    """
    candidate, number = parent / f"{name}{ending}", 1
    while candidate.exists():
        number += 1
        candidate = parent / f"{name}-{number}{ending}"
    return candidate


def claim_free(parent: Path, name: str) -> Path:
    """Make the folder that `next_free` names and give its path. Of two processes that ask, each gets its
    own.

    Raises UsageError where it cannot be made.
    """
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
