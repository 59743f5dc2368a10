"""Which of some labelled examples a run was not made with: only these tell how good its model is."""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from regraft.artifacts import Events, RunFolder
from regraft.data import Examples, KnownFile, Source, audit_files, several
from regraft.data.alike import Known, inputs_of, meet, nearly
from regraft.data.examples import clusters
from regraft.data.lineage import of_run, seen_by
from regraft.errors import DataError
from regraft.modalities import modality_of
from regraft.model import Model
from regraft.tasks import Task, task_of

SHOWN = 20  # wrong labels and classes that an error lists


@dataclass(frozen=True)
class Unseen:
    """Readable, labelled examples that a run was not made with.

    `own` of them are in its test set; `near` are the sources of those that are near-duplicates of what it
    was made with. `left_out` counts the others by why they were left out, and `said` is what to tell of it
    all, a sentence each.
    """

    files: list[KnownFile]
    sources: tuple[str, ...]
    labels: np.ndarray  # (N, ...) targets of the model's task
    clusters: np.ndarray | None  # (N,) numbers of the groups
    own: int
    near: frozenset[str]
    left_out: dict[str, int]
    said: tuple[str, ...]


def unseen(
    folder: RunFolder, source: Source, model: Model, events: Events, moved: str | Path | None
) -> Unseen:
    """The readable examples of a source that a run was not made with, known by content and by what they
    show.

    `moved` says where the run's own data are now. Raises DataError for labels that are no classes of the
    run, and where no example is left.
    """
    _check_labels(source, model.task, folder.path)
    audited = audit_files(source, events.tick)
    (made, test, unknown), inputs = _made_with(folder, moved), inputs_of(audited, source)
    known = made.then(test)
    met = meet(inputs, known, source.kind, events.tick)
    splits = [known.splits[row] if row >= 0 else None for row in met.rows.tolist()]
    left_out = {f"in {split}": splits.count(split) for split in ("train", "val")}
    left_out["unreadable"] = len(audited.quarantined)
    kept = [place for place, split in enumerate(splits) if split not in ("train", "val")]
    if not kept:
        raise DataError(
            f"nothing is left of {source.root} to evaluate on:",
            [f"{n:,} {why}" for why, n in left_out.items() if n],
        )
    rows = [audited.rows[place] for place in kept]
    own = Examples.load(folder.examples, task_of)
    likeness = modality_of(own.modality).likeness(own.facts())
    near = nearly(inputs, made, likeness, events.tick)
    content = set(made.ids)
    by_identity = sum(
        split in ("train", "val") and identity not in content
        for split, identity in zip(splits, inputs.ids, strict=True)
    )
    said = [
        *_of_left_out(left_out, by_identity),
        *_of_unsure(int(met.unsure.sum())),
        *_of_copies(len(kept) - len({inputs.ids[place] for place in kept})),
        *_of_missing(set(model.classes) - {name for row in rows for name in model.task.named(row.label)}),
        *unknown,
    ]
    return Unseen(
        files=[inputs.items[place] for place in kept],
        sources=tuple(row.source for row in rows),
        labels=model.task.encode([row.label for row in rows]),
        clusters=clusters([row.group for row in rows]),
        own=splits.count("test"),
        near=frozenset(np.array(inputs.sources, dtype=object)[near].tolist()),
        left_out=left_out,
        said=tuple(said),
    )


def _check_labels(source: Source, task: Task, place: Path) -> None:
    classes, faults = task.classes, []
    counts = Counter(name for row in source.rows for name in task.named(row.label))
    for label in sorted(counts.keys() - set(classes)):
        near = difflib.get_close_matches(label, classes, n=1)
        faults.append(
            f"{label!r}, of {several(counts[label], 'example')}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise DataError(
            f"{source.root} has labels that are no classes of {place}:",
            [*faults[:SHOWN], *more],
            f"Its classes: {', '.join(classes[:SHOWN])}{', ...' if len(classes) > SHOWN else ''}. "
            "They go by name.",
        )


def _made_with(folder: RunFolder, moved: str | Path | None) -> tuple[Known, Known, list[str]]:
    """What a run learnt from or was chosen by, the examples of the runs before it as train; its own test
    set; and what to say where something is not known.
    """
    own = of_run(folder.path, moved)
    made = own.some([row for row, split in enumerate(own.splits) if split != "test"])
    test = own.some([row for row, split in enumerate(own.splits) if split == "test"])
    past = seen_by(f"run:{folder.path}")
    if past is None or not past.runs:
        return (
            made,
            test,
            ["What its backbone was made with is not known: there is no seen.parquet beside its weights."],
        )
    mine, known = set(made.ids), past.known(folder.path)
    before = known.some([row for row, identity in enumerate(known.ids) if identity not in mine])
    return (
        made.then(replace(before, splits=("train",) * len(before))),
        test,
        [f"{what}." for what in past.unknown],
    )


def _of_left_out(left_out: dict[str, int], by_identity: int) -> list[str]:
    """Sentences on the examples that were left out; `by_identity` were known by what they show alone."""
    said, made_with = [], left_out["in train"] + left_out["in val"]
    if made_with:
        other = f"; {by_identity:,} of them in other bytes, known by what they show" if by_identity else ""
        said.append(
            f"{several(made_with, 'example')} the run was made with {'was' if made_with == 1 else 'were'} "
            f"left out ({left_out['in train']:,} of its train, {left_out['in val']:,} of its val{other})."
        )
    if left_out["unreadable"]:
        said.append(f"{several(left_out['unreadable'], 'unreadable file', 'was', 'were')} left out.")
    return said


def _of_unsure(unsure: int) -> list[str]:
    if not unsure:
        return []
    return [
        f"{several(unsure, 'example', 'looks', 'look')} like what the run was made with, whose files are "
        "gone or changed: they could not be compared. --data FOLDER says where the run's data are now."
    ]


def _of_copies(copies: int) -> list[str]:
    if not copies:
        return []
    return [f"{several(copies, 'example')} more, byte-identical to others, count like them."]


def _of_missing(classes: set[str]) -> list[str]:
    if not classes:
        return []
    return [f"No example is of: {', '.join(sorted(classes)[:10])}{', ...' if len(classes) > 10 else ''}."]
