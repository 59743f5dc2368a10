"""The runs below a folder, each with its headline. Reads their files only, and lists what it cannot read as
such.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from regraft.artifacts import RunFolder, read_json
from regraft.errors import UsageError
from regraft.evaluation import Estimate, Metric
from regraft.tasks import task_of_run

SPLITS = {"test": "test", "cv": "cross-validated", "val": "val"}  # the best evidence first


@dataclass(frozen=True)
class Listed:
    """A run, or several that differ in their seed only, as a line of the list. `date` is when it began, in
    UTC.
    """

    path: str
    name: str
    date: str
    state: str  # finished, running, stopped, interrupted, failed, explored, N seeds, or damaged
    headline: str
    chosen: str
    backbone: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def headline(metric: Metric, metrics: Mapping[str, Mapping[str, Estimate]], state: str) -> str:
    """One line: what came out in the metric, and with which certainty."""
    for split, word in SPLITS.items():
        if split in metrics:
            e = metrics[split][metric.name]
            untested = (
                (" (no test set)" if state == "finished" else f" ({state} before test)")
                if split == "val"
                else ""
            )
            return f"{word} {metric.said(e)} on {e.n} examples{untested}"
    return f"{state}, not evaluated"


def list_runs(folder: Path) -> list[Listed]:
    """All runs below `folder`, or it alone, the newest first. Runs inside a run and the seeds of
    `--repeats` count as one.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder. Runs are in runs/, unless --out said otherwise.")
    return sorted(
        (_read(place) for place in _places(folder)), key=lambda run: (run.date, run.path), reverse=True
    )


def _places(folder: Path) -> Iterator[Path]:
    if (folder / "run.json").exists() or (folder / "repeats.json").exists():
        yield folder
        return
    with contextlib.suppress(OSError):
        for place in sorted(folder.iterdir()):
            if place.is_dir() and not place.is_symlink() and not place.name.startswith("."):
                yield from _places(place)


def _read(place: Path) -> Listed:
    try:
        return _repeats(place) if (place / "repeats.json").exists() else _run(place)
    except UsageError as error:
        return _damaged(place, str(error).splitlines()[0])
    except (LookupError, TypeError, ValueError, AttributeError, OSError):
        return _damaged(place, "its files are not as a run writes them")


def _run(place: Path) -> Listed:
    folder = RunFolder(place)
    state = folder.read_state()
    raw = read_json(folder.metrics) if folder.metrics.is_file() else {}
    metric = task_of_run(state).headline
    metrics = {
        split: {metric.name: Estimate.from_dict(raw[split][metric.name])} for split in SPLITS if split in raw
    }
    word = str(state["state"])
    if word == "running" and not folder.is_locked():
        word = "stopped"  # killed: nobody was left to write it down
    backbone = str((state.get("provenance") or {}).get("id") or "")
    return Listed(
        str(place),
        str(state.get("name") or place.name),
        _began(folder),
        word,
        headline(metric, metrics, word),
        str(state.get("chosen") or ""),
        backbone,
    )


def _repeats(place: Path) -> Listed:
    repeats = read_json(place / "repeats.json")
    seeds = [Path(row["path"]).name for row in repeats["runs"]]
    first, metric = _run(place / seeds[0]), task_of_run(RunFolder(place / seeds[0]).read_state()).headline
    said = repeats["metrics"][metric.name]
    text = (
        f"{SPLITS[repeats['split']]} {metric.words} {metric.shown(said['mean'])}, "
        f"spread {metric.step(said['spread'])}"
    )
    return Listed(
        str(place),
        first.name,
        first.date,
        f"{len(seeds)} seeds",
        text,
        " / ".join(dict.fromkeys(str(row["chosen"]) for row in repeats["runs"])),
        first.backbone,
    )


def _damaged(place: Path, why: str) -> Listed:
    with contextlib.suppress(OSError):
        return Listed(str(place), place.name, _time(place.stat().st_mtime), "damaged", why, "", "")
    return Listed(str(place), place.name, "", "damaged", why, "", "")


def _began(folder: RunFolder) -> str:
    """The time of the first event, or of run.json's last change where there is none."""
    with (
        contextlib.suppress(OSError, ValueError, LookupError, TypeError),
        open(folder.events, encoding="utf-8") as lines,
    ):
        return datetime.fromisoformat(json.loads(next(lines, ""))["time"]).isoformat(timespec="seconds")
    return _time(folder.state.stat().st_mtime)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
