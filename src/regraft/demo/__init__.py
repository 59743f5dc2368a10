"""The data of `regraft demo`, one set a modality: shipped by a library or computed, no network needed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regraft.demo.digits import nearest_neighbours, write_digits
from regraft.demo.docstrings import write_docstrings
from regraft.demo.sounds import write_sounds
from regraft.errors import UsageError
from regraft.run.handle import Run
from regraft.runtime import cache_folder

__all__ = ["DEMOS", "Demo", "demo_data", "demo_of"]


@dataclass(frozen=True)
class Demo:
    """A set that `write` puts into a folder that is not there yet, called `name`; what the recipe is for it;
    and what is said of the finished run, if anything.
    """

    name: str
    write: Callable[[Path], None]
    settings: Mapping[str, Any] = field(default_factory=dict)
    beside: Callable[[Run], str] | None = None


def _beside_digits(run: Run) -> str:
    score = f"{nearest_neighbours(run):.1%}"
    return f"beside it: 3 nearest neighbours on the raw pixels reach {score} on the same test"


DEMOS = {
    "image": Demo("digits", write_digits, beside=_beside_digits),
    "text": Demo("docstrings", write_docstrings, {"run": {"prefer": "speed"}}),
    # Fine-tuning takes minutes on a CPU, and a short trial tells whether it is worth these
    "audio": Demo("sounds", write_sounds, {"run": {"prefer": "speed"}}),
}


def demo_of(modality: str) -> Demo:
    """The demo of a modality. Raises UsageError where there is none."""
    if modality not in DEMOS:
        raise UsageError(f"there is no demo {modality!r}; there are {', '.join(DEMOS)}.")
    return DEMOS[modality]


def demo_data(folder: Path | None = None, modality: str = "image") -> Path:
    """The path of a demo's data as a folder of class folders, written once.

    `folder` defaults to one in the cache, or to a temporary one where the cache cannot be written.
    """
    demo = demo_of(modality)
    if folder is not None:
        return _written(demo, folder)
    cache = cache_folder()
    if cache is not None:
        with contextlib.suppress(OSError):
            return _written(demo, cache / "demo" / demo.name)
    return _written(demo, Path(tempfile.mkdtemp(prefix="regraft-")) / demo.name)


def _written(demo: Demo, folder: Path) -> Path:
    if os.path.isdir(folder) and any(folder.iterdir()):
        return folder
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        demo.write(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
