"""From audited rows to examples: split, corrected, without copies across splits, checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from regraft.data.answers import all_numbers
from regraft.data.audit.contents import CHECKS, Files
from regraft.data.audit.files import Audited
from regraft.data.audit.findings import Finding, Kept, several
from regraft.data.audit.fixes import Fixes
from regraft.data.audit.identical import drop_copies
from regraft.data.blocks import blocks_of
from regraft.data.examples import SCHEMA, Asked, Examples
from regraft.data.rows import Row
from regraft.data.sources import Source
from regraft.data.splits import Shares, assign_splits
from regraft.data.tables import is_table_name
from regraft.data.walker import nearby
from regraft.errors import DataError

CLASSES_OF_TEST = "a class that is only in test is refused, and one that is missing there is named"


def make_examples(
    source: Source,
    audited: Audited,
    *,
    seed: int = 0,
    test_share: float = 0.2,
    val_share: float = 0.15,
    known: dict[str, str] | None = None,
    fixes: Fixes | None = None,
    log: Callable[..., None] = lambda *_, **__: None,
) -> Examples:
    """Split what the audit left over, correct it, drop copies across splits, and check that it can be
    learnt from.

    The split is that of the data without corrections, so that these move nothing into test or out of it.
    What else is found is added to the audit's findings. From the split on no check sees the label of a test
    example, only which classes there are in test: `log` is told. Raises DataError with every fault.
    """
    facts, task = audited.facts, source.task
    splits: list[str | None] = list(
        assign_splits(
            [fact.id for fact in facts],
            task.strata(task.encode([row.label for row in audited.rows])),
            [row.group for row in audited.rows],
            [row.split for row in audited.rows],
            seed=seed,
            shares=Shares(test_share, val_share),
            known=known,
            identities=[fact.identity for fact in facts],
        )
    )
    rows, splits = fixes.applied(audited.rows, splits) if fixes else (audited.rows, splits)
    kept_quiet: Kept = fixes.kept if fixes else frozenset()
    audited.findings += _idle(rows, splits)
    _check(source, audited, [row for row, split in zip(rows, splits, strict=True) if split is not None])
    flags: list[list[str]] = [[] for _ in rows]
    tested = _classes_of_test(source, rows, splits, log)
    shown = [
        replace(row, label="") if split == "test" else row for row, split in zip(rows, splits, strict=True)
    ]
    findings, dropped = drop_copies(shown, facts, splits, flags, kept_quiet, task.encode)
    audited.findings += findings
    kept = [i for i, split in enumerate(splits) if split is not None]
    _check_splits(task, [rows[i].label for i in kept if splits[i] == "train"])
    files = Files(
        task,
        [shown[i] for i in kept],
        [facts[i] for i in kept],
        [str(splits[i]) for i in kept],
        kept_quiet,
        tested,
    )
    audited.findings += [finding for check in (*CHECKS, *source.kind.checks) for finding in check(files)]
    labels = [rows[i].label for i in kept]
    table = _table(source, files, labels, [flags[i] for i in kept], [dropped[i] for i in kept])
    return Examples(table, task, source.root, source.kind.name)


def _table(
    source: Source, files: Files, labels: list[str], flags: list[list[str]], dropped: list[list[str]]
) -> pa.Table:
    """The rows of examples.parquet: the columns that all modalities share, then the modality's facts.

    Copies to the byte, what shows the same, and groups make one block.
    """
    ids, identities = [fact.id for fact in files.facts], [fact.identity for fact in files.facts]
    groups = [row.group for row in files.rows]
    columns: dict[str, list[Any]] = {
        "id": ids,
        "source": [row.source for row in files.rows],
        "label": labels,
        "group": groups,
        "weight": [row.weight for row in files.rows],
        "split": files.splits,
        "bytes": [fact.bytes for fact in files.facts],
        "mtime_ns": [fact.mtime_ns for fact in files.facts],
        "identity": identities,
        "block": blocks_of(ids, groups, identities).tolist(),
        "flags": flags,
        "dropped": dropped,
    }
    table, own = pa.table(columns, schema=SCHEMA), source.kind.table([fact.about for fact in files.facts])
    for name in own.column_names:
        table = table.append_column(name, own[name])
    return table


def _idle(rows: list[Row], splits: list[str | None]) -> list[Finding]:
    """Examples of weight 0 are no training examples: in train their split becomes None. Elsewhere they are
    judged like others.
    """
    idle = [i for i, row in enumerate(rows) if row.weight == 0 and splits[i] == "train"]
    for i in idle:
        splits[i] = None
    text = (
        f"{several(len(idle), 'example')} of weight 0 left out of train: there is nothing to learn from them"
    )
    return [Finding("weight 0", "info", text, tuple(rows[i].source for i in idle))] if idle else []


def _classes_of_test(
    source: Source, rows: Sequence[Row], splits: Sequence[str | None], log: Callable[..., None]
) -> frozenset[str]:
    """The classes that occur in test: all that is read of its labels before the seal is broken."""
    labels = {row.label for row, split in zip(rows, splits, strict=True) if split == "test"}
    classes = frozenset(name for label in labels for name in source.task.named(label))
    if classes:
        log("test_classes", reason=CLASSES_OF_TEST, classes=len(classes))
    return classes


def _check(source: Source, audited: Audited, rows: list[Row]) -> None:
    """Whether there is enough to learn from, by what is not given as test."""
    task, given = source.task, [row for row in source.rows if row.split != "test"]
    learnt = [row for row in rows if row.split in (None, "train") and row.weight != 0]
    counts, named, idle = (
        Counter(name for row in some for name in task.named(row.label))
        for some in (learnt, given, [row for row in given if row.weight == 0])
    )
    everywhere = {name for label in {row.label for row in source.rows} for name in task.named(label)}
    faults = []
    for label in task.classes:
        if label not in everywhere:
            faults.append(f"no example has {label!r}: there is nothing to learn; leave it out")
        elif not named[label]:
            faults.append(f"{task.noun} {label!r} is only in test: there is nothing to train on")
        elif counts[label] == 0:
            more = f", {idle[label]} of weight 0" if idle[label] else ""
            faults.append(
                f"{task.noun} {label!r} has no readable training example (of {named[label]} named{more})"
            )
        elif counts[label] == 1:
            faults.append(f"{task.noun} {label!r} has a single training example; two are the least")
    if lacking := task.lacking([row.label for row in learnt]):
        faults.append(lacking)
    if faults:
        faults += [f"folder {folder!r} holds no {source.kind.noun}s" for folder in source.empty]
        for q in audited.quarantined[:10]:
            faults.append(f"could not be read: {q.source}: {q.reason}")
        tables = [name for name in source.passed.stray if is_table_name(name)]
        advice = f"If the labels are in {tables[0]}, give that file instead of the folder." if tables else ""
        if not audited.rows and (
            neighbour := nearby(source.root, source.rows[0].source, source.kind.endings)
        ):
            advice = (
                f"{neighbour} is there: paths in a table are relative to its folder, "
                "and have the file's ending."
            )
        if not advice and len(task.classes) > 2 and all_numbers(task.classes):
            advice = "Where the classes are numbers to be told, say --task regression (data.task)."
        raise DataError(f"{source.root} cannot be learnt from:", faults, advice)


def _check_splits(task: Asked, labels: list[str]) -> None:
    """Whether the training examples with these labels are enough to learn from."""
    trained = {name for label in set(labels) for name in task.named(label)}
    faults = [
        f"{task.noun} {label!r} has nothing left to train on"
        for label in task.classes
        if label not in trained
    ]
    if not faults and (lacking := task.lacking(labels)):
        faults.append(lacking)
    if faults:
        raise DataError("after the split, the data cannot be learnt from:", faults)
