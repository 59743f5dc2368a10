"""Corrections of the audit's findings: written out as a table, edited by the user, read back before the
split.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regraft.artifacts import atomic
from regraft.data.audit.findings import Finding, Kept
from regraft.data.rows import Row
from regraft.data.sources import Source
from regraft.errors import DataError, UsageError

COLUMNS = ("source", "action", "label", "kind", "reason")
ACTIONS = ("drop", "relabel", "keep")
SUGGESTED, COMPARED = 10, 20_000  # faults that come with a suggestion, and names that are compared for it
NOT_OURS = (  # nothing is left to correct
    "quarantined",
    "stray",
    "empty",
    "links",
    "own output",
    "unreadable folders",
    "copies across splits",
    "weight 0",
)


@dataclass(frozen=True)
class Fix:
    """One line with an action: drop the example, give it another label, or hear no more of this kind of
    finding.
    """

    line: int
    source: str
    action: str
    label: str
    kind: str


@dataclass(frozen=True)
class Fixes:
    """The corrections of one file, free of faults."""

    path: Path
    fixes: tuple[Fix, ...]

    @property
    def kept(self) -> Kept:
        """(source, kind) of findings that are not to be told again."""
        return frozenset((fix.source, fix.kind) for fix in self.fixes if fix.action == "keep")

    def applied(
        self, rows: Sequence[Row], splits: Sequence[str | None]
    ) -> tuple[list[Row], list[str | None]]:
        """Rows and splits with the corrections; a dropped row's split is None. Raises DataError where one
        touches test.
        """
        actions = {fix.source: fix for fix in self.fixes if fix.action != "keep"}
        corrected, where = list(rows), list(splits)
        faults = []
        for i, row in enumerate(rows):
            fix = actions.get(row.source)
            if fix is None:
                continue
            if splits[i] == "test":
                faults.append(
                    f"line {fix.line}: {row.source} is in test, which is sealed: nothing there is changed"
                )
            elif fix.action == "drop":
                where[i] = None
            else:
                corrected[i] = replace(row, label=fix.label)
        if faults:
            raise DataError(
                f"{self.path} cannot be applied:", faults, "Leave the action of these lines empty."
            )
        return corrected, where

    def to_dict(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "file": str(self.path),
            "dropped": sorted({fix.source for fix in self.fixes if fix.action == "drop"}),
            "relabelled": {fix.source: fix.label for fix in self.fixes if fix.action == "relabel"},
            "kept": sorted([fix.source, fix.kind] for fix in self.fixes if fix.action == "keep"),
        }


def write_fixes(path: Path, findings: Sequence[Finding], sealed: frozenset[str]) -> int:
    """A line for each example of each finding that is not of test, its action empty; gives their number."""
    lines = [
        (
            source,
            "",
            finding.suggested.get(source, ""),
            finding.kind,
            finding.notes.get(source, finding.message),
        )
        for finding in findings
        if finding.kind not in NOT_OURS
        for source in finding.examples
        if source not in sealed
    ]
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(COLUMNS)
        writer.writerows(lines)
    return len(lines)


def read_fixes(path: Path, source: Source) -> Fixes:
    """Corrections of the examples of `source`; lines without an action are passed over. Raises DataError
    with every fault.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            lines = [(reader.line_num, line) for line in reader]
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read.", [str(error)], "Give the csv that `regraft audit --export` wrote."
        ) from None
    missing = [name for name in COLUMNS[:4] if name not in columns]
    if missing:
        raise DataError(f"{path} lacks columns:", missing, f"Wanted: {', '.join(COLUMNS)}.")
    sources, fixes, faults = {row.source for row in source.rows}, [], []
    first: dict[str, Fix] = {}
    for number, line in lines:
        name, action, label, kind = ((line[column] or "").strip() for column in COLUMNS[:4])
        action, fix = action.lower(), Fix(number, name, action.lower(), label, kind)
        if not action:
            continue
        before = first.setdefault(name, fix) if action in ("drop", "relabel") else fix
        if action not in ACTIONS:
            faults.append(f"line {number}: action {action!r} is none of {', '.join(ACTIONS)}")
        elif name not in sources:
            faults.append(f"line {number}: there is no example {name!r}{_near(name, sources, len(faults))}")
        elif action == "relabel" and (wrong := _no_label(label, source)):
            faults.append(f"line {number}: {wrong}{_near(label, set(source.task.classes), len(faults))}")
        elif (before.action, before.label) != (action, label) and (action, before.action) != ("drop", "drop"):
            faults.append(f"line {number}: {name!r} has another action in line {before.line}")
        else:
            fixes.append(fix)
    if faults:
        raise DataError(f"{path} has faults:", faults)
    return Fixes(path, tuple(fixes))


def _no_label(label: str, source: Source) -> str:
    """Why a label is none of the task, "" where it is one."""
    try:
        source.task.encode([label])
    except (UsageError, KeyError, ValueError):
        return f"{label!r} is no {source.task.noun}"
    return ""


def _near(name: str, known: set[str], told: int) -> str:
    """What may have been meant, for the first few faults: comparing with each of 10,000 names takes a tenth
    of a second.
    """
    if told >= SUGGESTED or len(known) > COMPARED:
        return ""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
