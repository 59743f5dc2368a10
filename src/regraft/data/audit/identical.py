"""Examples that are the same to the byte or to the pixel: what is dropped, and labels that contradict each
other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from regraft.data.audit.files import Fact
from regraft.data.audit.findings import Finding, Kept, several, without
from regraft.data.examples import Examples
from regraft.data.part import Part
from regraft.data.rows import Row

IN_TEST = "contradicting labels in test"


def drop_copies(
    rows: list[Row],
    facts: list[Fact],
    splits: list[str | None],
    flags: list[list[str]],
    kept: Kept,
    encode: Callable[[list[str]], np.ndarray],
) -> tuple[list[Finding], list[list[str]]]:
    """Byte- or pixel-identical examples: kept in test, then val, dropped from the others; contradictions
    are reported.

    A dropped example's split becomes None. Of test nothing is dropped or flagged, and no label is looked
    at: the second answer holds for each row of test the labels of what was dropped for it, by which
    `contradicting_test` goes. `encode` gives the targets of labels.
    """
    dropped: list[list[str]] = [[] for _ in rows]
    across: dict[str, str] = {}
    within: list[str] = []
    contradicting: dict[str, str] = {}
    for members in _alike(facts, splits):
        known = {rows[i].source: rows[i].label for i in members if splits[i] != "test"}
        contradict = _contradict(sorted(set(known.values())), encode)
        if contradict:
            contradicting |= known
        first = next((split for split in ("test", "val") if any(splits[i] == split for i in members)), None)
        moved = [i for i in members if first is not None and splits[i] not in (first, "test")]
        for i in moved:
            across[rows[i].source] = f"was in {splits[i]}"
            splits[i] = None
        for i in members if first == "test" else ():
            if splits[i] == "test":
                dropped[i] = sorted({rows[j].label for j in moved})
        if not moved:
            within.extend(rows[i].source for i in members)
        for i in members:
            if splits[i] != "test":
                flags[i] += ["copy", "contradicting label"] if contradict else ["copy"]
    return _findings(across, within, contradicting, kept), dropped


def _alike(facts: list[Fact], splits: list[str | None]) -> list[list[int]]:
    """The positions of examples that show the same, two at least; what has no split is passed over."""
    alike: dict[str, list[int]] = defaultdict(list)
    for i, fact in enumerate(facts):
        if splits[i] is not None:
            alike[fact.identity].append(i)
    return [members for members in alike.values() if len(members) > 1]


def _contradict(labels: list[str], encode: Callable[[list[str]], np.ndarray]) -> bool:
    """Whether labels of what shows the same contradict each other: something that several know is not the same."""
    if len(labels) < 2:
        return False
    targets = encode(labels).reshape(len(labels), -1)
    return any(len(np.unique(column[np.isfinite(column)])) > 1 for column in targets.T)


def _findings(
    across: dict[str, str], within: list[str], contradicting: dict[str, str], kept: Kept
) -> list[Finding]:
    """What is to be told of copies across splits (with what became of each), of those within one, and of
    identical examples with other labels.
    """
    findings = []
    if across:
        text = (
            f"{several(len(across), 'example')} of train or val dropped: "
            "identical in bytes or content to one of test or val"
        )
        findings.append(Finding("copies across splits", "warning", text, tuple(across), across))
    if twins := without(kept, "copies", within):
        text = (
            f"{several(len(twins), 'example', 'has', 'have')} a "
            "twin in the same split, identical in bytes or content"
        )
        findings.append(Finding("copies", "info", text, tuple(twins)))
    if wrong := without(kept, "contradicting labels", contradicting):
        text = f"{several(len(wrong), 'identical example')} with different labels"
        findings.append(Finding("contradicting labels", "warning", text, tuple(wrong), contradicting))
    return findings


def contradicting_test(
    examples: Examples, test: Part, said: Callable[[np.ndarray], list[str]]
) -> list[Finding]:
    """Test examples, unsealed, with another label than an identical one has: of test, or dropped from train
    or val for it. `said` gives targets as labels.
    """
    identities, dropped = examples.twins_of_test()
    labels = said(test.labels)
    within: dict[str, set[str]] = defaultdict(set)
    for shown, label in zip(identities, labels, strict=True):
        within[shown].add(label)
    notes: dict[str, str] = {}
    encode = examples.task.encode
    for source, label, shown, gone in zip(test.sources, labels, identities, dropped, strict=True):
        alike = {
            "in test": within[shown],
            "dropped from train or val": set(said(encode(gone)) if gone else ()),
        }
        others = {
            where: {name for name in names if _contradict([label, name], encode)}
            for where, names in alike.items()
        }
        lines = [f"one {where} {' and '.join(sorted(names))}" for where, names in others.items() if names]
        if lines:
            notes[source] = f"labelled {label}; of those identical, {', '.join(lines)}"
    text = f"{several(len(notes), 'test example', 'has', 'have')} another label than an identical example"
    return [Finding(IN_TEST, "warning", text, tuple(notes), notes)] if notes else []
