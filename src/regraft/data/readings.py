"""How often a test set has been read: by a run, and by the runs beside it that share it.

Each reading is an `unseal` line of a run's event log; run.json holds the same list under `readings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from regraft.artifacts import RunFolder, fingerprint, read_events, read_parquet
from regraft.errors import UsageError


@dataclass(frozen=True)
class Readings:
    """How often a test set was read by a run, and by each of the runs beside it that share it (their
    folders).
    """

    own: int
    others: dict[str, int]

    @property
    def total(self) -> int:
        """All readings that are known."""
        return self.own + sum(self.others.values())

    def in_words(self) -> str:
        """How often, by whom, and what that means for the score."""
        by = "".join(f", {_times(count)} by {place}" for place, count in self.others.items())
        return (
            f"This test set has been read {_times(self.total)}: {_times(self.own)} by this run{by}. "
            "Each choice made after a reading makes the score a little optimistic; "
            "reading it again without choosing anything by it does not. "
            "For a score nothing was chosen by, evaluate on examples that are new."
        )


def readings(folder: RunFolder) -> list[dict[str, Any]]:
    """Each reading of a run's test set: time (UTC), reason, examples. From its event log, or run.json where
    that is gone.
    """
    logged = [
        event
        for event in read_events(folder.events)
        if isinstance(event, dict) and event.get("kind") == "unseal"
    ]
    if not logged:
        return list(folder.read_state().get("readings") or [])
    return [{name: event.get(name) for name in ("time", "reason", "examples")} for event in logged]


def count_readings(folder: RunFolder) -> Readings:
    """The readings of a run's test set, those by runs in the same parent folder that share it included."""
    mine, others = fingerprint_of_test(folder), {}
    for place in sorted(folder.path.resolve().parent.iterdir()):
        other = RunFolder(place)
        if place == folder.path.resolve() or not other.is_run():
            continue
        try:
            count = len(readings(other)) if mine and fingerprint_of_test(other) == mine else 0
        except (UsageError, pa.ArrowException, OSError):
            continue  # a damaged neighbour tells nothing
        if count:
            others[str(folder.path.parent / place.name)] = count
    return Readings(len(readings(folder)), others)


def fingerprint_of_test(folder: RunFolder) -> str:
    """16 hex digits of the sorted content ids of a run's test set; "" where it has none."""
    if not folder.examples.is_file():
        return ""
    table = read_parquet(folder.examples, ["id", "split"]).to_pydict()
    ids = sorted(
        identity for identity, split in zip(table["id"], table["split"], strict=True) if split == "test"
    )
    return fingerprint(ids) if ids else ""


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
