"""The audit of the files, before the split: what cannot be read is set aside, what contradicts itself is named."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from regraft.artifacts import file_sha256
from regraft.data.examples import SCHEMA, Examples
from regraft.data.sources import TABLE_ENDINGS, Row, Source
from regraft.data.splits import FEW, assign_splits
from regraft.errors import DataError

Inspect = Callable[[str], tuple[int, int]]


@dataclass(frozen=True)
class Finding:
    """Something about the data worth knowing. `severity` is info or warning."""

    kind: str
    severity: str
    message: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quarantined:
    """A file that was set aside, where it would have gone (None: it had not been split yet), and why."""

    source: str
    split: str | None
    reason: str


@dataclass
class Audited:
    """Readable rows with their content hash and size, and what was found."""

    rows: list[Row]
    facts: list[tuple[str, int, int, int, int]]  # id, width, height, bytes, mtime_ns
    quarantined: list[Quarantined] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def audit_files(source: Source, inspect: Inspect, unreadable: type[Exception], tick: Callable[..., None]) -> Audited:
    """Hash and decode every file. `inspect` returns (width, height) or raises `unreadable`."""

    def look(row: Row) -> tuple[str, int, int, int, int] | str:
        """Id, width, height, bytes and time of change of one file, or why it cannot be read."""
        path = str(source.root / row.source)
        try:
            width, height = inspect(path)
            about = os.stat(path)
            return file_sha256(source.root / row.source)[:32], width, height, about.st_size, about.st_mtime_ns
        except unreadable as error:
            return str(error)
        except OSError as error:
            return f"cannot be opened: {error.strerror or error}"

    audited = Audited([], [])
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for number, (row, fact) in enumerate(zip(source.rows, pool.map(look, source.rows), strict=True), start=1):
            if isinstance(fact, str):
                audited.quarantined.append(Quarantined(row.source, row.split, fact))
            else:
                audited.rows.append(row)
                audited.facts.append(fact)
            tick(label="looking at the files", done=number, total=len(source.rows))
    _note_layout(source, audited)
    return audited


def _note_layout(source: Source, audited: Audited) -> None:
    def note(kind: str, what: list[str], message: str) -> None:
        if what:
            audited.findings.append(Finding(kind, "warning", message.format(n=len(what)), tuple(what[:50])))

    where = Counter(q.split or "not split yet" for q in audited.quarantined)
    per_split = ", ".join(f"{count} {split}" for split, count in sorted(where.items()))
    aside = [q.source for q in audited.quarantined]
    note("quarantined", aside, f"{{n}} file(s) could not be read and were set aside ({per_split})")
    note("stray", source.stray, "{n} stray file(s) or folder(s) were passed over")
    note("empty", source.empty, "{n} folder(s) hold no images")
    note("links", source.links, "{n} folder(s) lead by a symbolic link to one already read and were not read again")


def make_examples(
    source: Source,
    audited: Audited,
    *,
    seed: int = 0,
    test_share: float = 0.2,
    val_share: float = 0.15,
    known: dict[str, str] | None = None,
) -> Examples:
    """Split what the audit left over, drop copies across splits, and check that it can be learnt from.

    Raises DataError with every fault.
    """
    rows, facts = audited.rows, audited.facts
    _check(source, audited)
    ids = [fact[0] for fact in facts]
    splits: list[str | None] = list(
        assign_splits(
            ids, [row.label for row in rows], [row.group for row in rows], [row.split for row in rows],
            seed=seed, test_share=test_share, val_share=val_share, known=known,
        )
    )  # fmt: skip
    flags: list[list[str]] = [[] for _ in rows]
    _copies(rows, ids, splits, flags, audited)
    kept = [i for i, split in enumerate(splits) if split is not None]
    _groups([(rows[i].group, str(splits[i])) for i in kept], audited)
    classes = source.task.classes
    _check_splits(classes, [(rows[i].label, str(splits[i])) for i in kept], audited)
    columns: dict[str, list[Any]] = {
        "id": [ids[i] for i in kept],
        "source": [rows[i].source for i in kept],
        "label": [rows[i].label for i in kept],
        "group": [rows[i].group for i in kept],
        "weight": [rows[i].weight for i in kept],
        "split": [splits[i] for i in kept],
        **{name: [facts[i][k] for i in kept] for k, name in enumerate(("width", "height", "bytes", "mtime_ns"), 1)},
        "flags": [flags[i] for i in kept],
    }
    return Examples(pa.table(columns, schema=SCHEMA), source.task, source.root)


def _check(source: Source, audited: Audited) -> None:
    counts = Counter(row.label for row in audited.rows if row.split in (None, "train"))
    faults = []
    for label in source.task.classes:
        if counts[label] == 0:
            named = Counter(row.label for row in source.rows)[label]
            faults.append(f"class {label!r} has no readable training example (of {named} named)")
        elif counts[label] == 1:
            faults.append(f"class {label!r} has a single training example; two are the least")
    if len(source.task.classes) < 2:
        faults.append(f"all examples are of one class ({', '.join(source.task.classes)}); two are the least")
    if faults:
        faults += [f"folder {folder!r} holds no images" for folder in source.empty]
        for q in audited.quarantined[:10]:
            faults.append(f"could not be read: {q.source}: {q.reason}")
        tables = [name for name in source.stray if name.lower().endswith(TABLE_ENDINGS)]
        advice = f"If the labels are in {tables[0]}, give that file instead of the folder." if tables else ""
        raise DataError(f"{source.root} cannot be learnt from:", faults, advice)


def _copies(
    rows: list[Row], ids: list[str], splits: list[str | None], flags: list[list[str]], audited: Audited
) -> None:
    """Byte-identical examples: kept in test, then val, dropped from the others; contradictions are reported.

    A dropped example's split becomes None. Of test nothing is dropped or flagged.
    """
    by_id: dict[str, list[int]] = defaultdict(list)
    for i, identity in enumerate(ids):
        by_id[identity].append(i)
    across: list[str] = []
    within: list[str] = []
    contradicting: list[str] = []
    for members in by_id.values():
        if len(members) < 2:
            continue
        names = [rows[i].source for i in members]
        contradict = len({rows[i].label for i in members}) > 1
        if contradict:
            contradicting.extend(f"{rows[i].source} ({rows[i].label})" for i in members)
        first = next((split for split in ("test", "val") if any(splits[i] == split for i in members)), None)
        moved = [i for i in members if first is not None and splits[i] not in (first, "test")]
        if moved:
            across.extend(f"{rows[i].source} (was in {splits[i]})" for i in moved)
            for i in moved:
                splits[i] = None
        else:
            within.extend(names)
        for i in members:
            if splits[i] != "test":
                flags[i] += ["copy", "contradicting label"] if contradict else ["copy"]
    for kind, severity, what, text in (
        ("copies across splits", "warning", across, "byte-identical copies of test or val examples were dropped"),
        ("copies", "info", within, "examples have a byte-identical twin in the same split"),
        ("contradicting labels", "warning", contradicting, "identical examples carry different labels"),
    ):
        if what:
            audited.findings.append(Finding(kind, severity, f"{len(what)} {text}", tuple(what[:50])))


def _groups(kept: list[tuple[str | None, str]], audited: Audited) -> None:
    """Given splits are obeyed even where a group straddles them; the report says so."""
    home: dict[str, set[str]] = defaultdict(set)
    for group, split in kept:
        if group is not None:
            home[group].add(split)
    astride = sorted(group for group, found in home.items() if len(found) > 1)
    if astride:
        text = f"{len(astride)} group(s) have examples in more than one of the given splits"
        audited.findings.append(Finding("groups across splits", "warning", text, tuple(astride[:50])))


def _check_splits(classes: tuple[str, ...], kept: list[tuple[str, str]], audited: Audited) -> None:
    counts = Counter(kept)
    present = {split for _, split in kept}
    faults = [f"class {label!r} has nothing left to train on" for label in classes if not counts[(label, "train")]]
    if faults:
        raise DataError("after the split, the data cannot be learnt from:", faults)
    for split in ("val", "test"):
        if split in present:
            missing = [label for label in classes if not counts[(label, split)]]
            if missing:
                text = f"{len(missing)} class(es) have no example in {split}: {', '.join(missing[:10])}"
                audited.findings.append(Finding(f"class missing in {split}", "warning", text))
    few = [label for label in classes if counts[(label, "train")] < FEW]
    if few:
        text = f"{len(few)} class(es) have fewer than {FEW} training examples: {', '.join(few[:10])}"
        audited.findings.append(Finding("few examples", "warning", text))
