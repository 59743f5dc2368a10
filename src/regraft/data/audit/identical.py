"""Examples that are the same to the byte or to the pixel."""

from __future__ import annotations

from collections import defaultdict

from regraft.data.audit.files import Fact
from regraft.data.audit.findings import Finding, Kept, several, without
from regraft.data.rows import Row


def drop_copies(
    rows: list[Row], facts: list[Fact], splits: list[str | None], flags: list[list[str]], kept: Kept
) -> list[Finding]:
    """Byte- or pixel-identical examples: kept in test, then val, dropped from the others; contradictions are reported.

    A dropped example's split becomes None. Of test nothing is dropped or flagged.
    """
    alike: dict[str, list[int]] = defaultdict(list)
    for i, fact in enumerate(facts):
        if splits[i] is not None:
            alike[fact.pixels].append(i)
    across: dict[str, str] = {}
    within: list[str] = []
    contradicting: dict[str, str] = {}
    for members in alike.values():
        if len(members) < 2:
            continue
        contradict = len({rows[i].label for i in members}) > 1
        if contradict:
            contradicting |= {rows[i].source: rows[i].label for i in members}
        first = next((split for split in ("test", "val") if any(splits[i] == split for i in members)), None)
        moved = [i for i in members if first is not None and splits[i] not in (first, "test")]
        for i in moved:
            across[rows[i].source] = f"was in {splits[i]}"
            splits[i] = None
        if not moved:
            within.extend(rows[i].source for i in members)
        for i in members:
            if splits[i] != "test":
                flags[i] += ["copy", "contradicting label"] if contradict else ["copy"]
    found = []
    if across:
        text = f"{several(len(across), 'example')} of train or val dropped: identical in bytes or pixels to one of test or val"
        found.append(Finding("copies across splits", "warning", text, tuple(across), across))
    if twins := without(kept, "copies", within):
        text = f"{several(len(twins), 'example', 'has', 'have')} a twin in the same split, identical in bytes or pixels"
        found.append(Finding("copies", "info", text, tuple(twins)))
    if wrong := without(kept, "contradicting labels", contradicting):
        text = f"{several(len(wrong), 'identical example')} with different labels"
        found.append(Finding("contradicting labels", "warning", text, tuple(wrong), contradicting))
    return found
