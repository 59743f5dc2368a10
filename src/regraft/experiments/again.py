"""A finished run's model evaluated once more: on its own test set, or on labelled examples that are new to
it.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.artifacts import Events, Listener, RunFolder, next_free, read_json, read_parquet, write_json
from regraft.data import (
    Examples,
    KnownFile,
    Readings,
    Source,
    audit_files,
    count_readings,
    read_source,
    readings,
    several,
)
from regraft.data.alike import Known, inputs_of, meet, nearly
from regraft.data.examples import clusters
from regraft.data.lineage import of_run, seen_by
from regraft.errors import DataError, UsageError
from regraft.evaluation import Estimate
from regraft.experiments.going import same_data
from regraft.modalities import UnreadableImage, inspect_image, pixel_digest, small_image_or_none
from regraft.runtime import pick_device
from regraft.steps.audit import without_near_duplicates
from regraft.steps.evaluate import Verdict
from regraft.tasks import evaluated, task_of

KEPT_APART = "test_without_near_duplicates"

if TYPE_CHECKING:
    from regraft.model import Model


@dataclass(frozen=True)
class Evaluated:
    """What a run's model scores on `data`: metrics with intervals, and the tables of its task (`kind`).

    `said` is what a reader should know, a sentence each; `left_out` counts examples by why they were;
    `readings` is set where the run's own test set was read, `file` where the result was kept;
    `without_near_duplicates` tells how many are near-duplicates of what the run was made with (`left_out`)
    and the `metrics` without them, where there are any.
    """

    run: str
    data: str
    reason: str
    time: str
    examples: int
    kind: str
    classes: tuple[str, ...]
    metrics: dict[str, Estimate]
    tables: dict[str, Any]
    said: tuple[str, ...]
    left_out: dict[str, int]
    readings: Readings | None = None
    file: str = ""
    without_near_duplicates: dict[str, Any] = field(default_factory=dict)

    def headline(self) -> str:
        """One line: what came out, and with which certainty."""
        metric = task_of(self.kind, self.classes).headline
        return f"{metric.said(self.metrics[metric.name])} on {self.examples:,} examples of {self.data}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        counted = self.readings and {
            "own": self.readings.own,
            "others": self.readings.others,
            "total": self.readings.total,
        }
        return {
            **vars(self),
            "readings": counted,
            "headline": self.headline(),
            "metrics": {name: estimate.to_dict() for name, estimate in self.metrics.items()},
        }


def evaluate_own(
    place: Path, reason: str, device: str, listeners: Sequence[Listener], moved: str | Path | None = None
) -> Evaluated:
    """Predict a run's own test set afresh; the reading is recorded. `moved` says where the run's data are
    now.

    Raises UsageError where there is no test set, or its files are gone or have another content.
    """
    from regraft.model import Model

    folder = _finished(place)
    examples = Examples.load(folder.examples)
    if not examples.counts()["test"]:
        command = f"regraft evaluate {quote(str(place))} DATA"
        raise UsageError(f"{place} has no test set. Name labelled examples that are new to it: {command}")
    examples = same_data(examples, moved, Events(None, tuple(listeners)), ("test",), "test file")
    model, events = Model.load(folder.path), Events(folder.events, tuple(listeners))
    if set(model.classes) != set(examples.task.classes):
        raise UsageError(
            f"{place / 'model'} has other classes than the run's examples: {', '.join(model.classes[:10])}."
        )
    place_of = np.array([model.classes.index(name) for name in examples.task.classes])
    reason = reason or "evaluated again"
    folder.lock()
    try:
        test = examples.unseal(reason, events.emit)
        logits = _logits(model, test.paths, device, events)
        state = folder.read_state()
        state["readings"] = readings(folder)
        write_json(folder.state, state)
    finally:
        folder.release()
    counted = count_readings(folder)
    said = (_beside_stored(folder, test.ids, logits, model), counted.in_words())
    return _evaluated(
        place,
        "its own test set",
        reason,
        place_of[test.labels],
        logits,
        model,
        test.clusters(),
        said,
        {},
        counted,
    )


def evaluate_on(
    place: Path,
    data: str | Path,
    reason: str,
    device: str,
    listeners: Sequence[Listener],
    moved: str | Path | None = None,
) -> Evaluated:
    """Score a run's model on all labelled examples of `data`, whatever splits these name, but for those it
    was made with.

    These are known by content and by pixels, those of the runs before it too; near-duplicates of them are
    told, and the score without them. `moved` says where the run's own data are now. The result is kept in the
    run's folder `evaluations` and listed in run.json. Raises DataError for labels that are no classes of the
    run, and where no example is left.
    """
    from regraft.model import Model

    folder = _finished(place)
    model, source = Model.load(folder.path), read_source(data)
    _check_labels(source, model.classes, place)
    new = _new_to(folder, source, model, Events(None, tuple(listeners)), moved)
    said, counted = list(new.said), None
    folder.lock()
    try:
        events = Events(folder.events, tuple(listeners))
        if new.own:
            why = f"evaluated on {source.name}, which shares them" + (f": {reason}" if reason else "")
            events.emit("unseal", reason=why, examples=new.own)
            counted = count_readings(folder)
            said.append(f"{new.own:,} of the examples are in the run's own test set. {counted.in_words()}")
        logits = _logits(model, new.files, device, events)
        scaled = logits.astype(np.float64) / model.temperature
        task, verdict = task_of(model.task.kind, model.classes), Verdict(new.labels, scaled, new.clusters)
        apart = without_near_duplicates(task, verdict, new.sources, new.near).get(KEPT_APART, {})
        said += _of_near(model, apart)
        file = next_free(folder.evaluations, source.name, ".json")
        found = _evaluated(
            place,
            str(data),
            reason,
            new.labels,
            logits,
            model,
            new.clusters,
            tuple(said),
            new.left_out,
            counted,
            str(file),
            apart,
        )
        write_json(file, found.to_dict())
        metric = task.headline
        entry = {
            "time": found.time,
            "reason": reason,
            "data": str(source.root),
            "examples": found.examples,
            "file": file.name,
            metric.name: found.metrics[metric.name].to_dict(),
        }
        state = folder.read_state()
        state["evaluations"] = [*(state.get("evaluations") or []), entry]
        state |= {"readings": readings(folder)} if new.own else {}
        write_json(folder.state, state)
    finally:
        folder.release()
    return found


@dataclass(frozen=True)
class _New:
    """Labelled examples a run was not made with; `own` of them are in its test set, `near` are
    near-duplicates of what it was made with, by their sources."""

    files: list[KnownFile]
    sources: tuple[str, ...]
    labels: np.ndarray  # (N,) int64
    clusters: np.ndarray | None  # (N,) numbers of the groups
    own: int
    near: frozenset[str]
    left_out: dict[str, int]
    said: tuple[str, ...]


def _new_to(
    folder: RunFolder, source: Source, model: Model, events: Events, moved: str | Path | None
) -> _New:
    """The readable examples of a source that a run was not made with, known by content and by pixels. Raises
    DataError where there are none."""
    audited = audit_files(source, inspect_image, pixel_digest, UnreadableImage, events.tick)
    (made, test, unknown), inputs = _made_with(folder, moved), inputs_of(audited, source)
    known = made.then(test)
    found = meet(inputs, known, pixel_digest, events.tick)
    splits = [known.splits[row] if row >= 0 else None for row in found.rows.tolist()]
    left_out = {f"in {split}": splits.count(split) for split in ("train", "val")} | {
        "unreadable": len(audited.quarantined)
    }
    kept = [i for i, split in enumerate(splits) if split not in ("train", "val")]
    if not kept:
        raise DataError(
            f"nothing is left of {source.root} to evaluate on:",
            [f"{n:,} {why}" for why, n in left_out.items() if n],
        )
    rows, index = [audited.rows[i] for i in kept], {name: number for number, name in enumerate(model.classes)}
    near = nearly(
        inputs, made, partial(small_image_or_none, levels=model.backbone.preprocess.levels), events.tick
    )
    copies = len(kept) - len({inputs.ids[i] for i in kept})
    content = set(made.ids)
    shown = sum(
        split in ("train", "val") and identity not in content
        for split, identity in zip(splits, inputs.ids, strict=True)
    )
    said = (
        *_about(
            left_out, shown, int(found.unsure.sum()), copies, set(model.classes) - {row.label for row in rows}
        ),
        *unknown,
    )
    labels = np.array([index[row.label] for row in rows], dtype=np.int64)
    groups, files = clusters([row.group for row in rows]), [inputs.paths[i] for i in kept]
    names, alike = (
        tuple(row.source for row in rows),
        frozenset(np.array(inputs.sources, dtype=object)[near].tolist()),
    )
    return _New(files, names, labels, groups, splits.count("test"), alike, left_out, said)


def _finished(place: Path) -> RunFolder:
    folder = RunFolder(place)
    if not folder.is_run():
        raise UsageError(f"{place} is no run (no run.json in it).")
    state = folder.read_state().get("state")
    if state != "finished":
        command = f"regraft fit --resume --out {quote(str(place))}"
        raise UsageError(f"{place} is {state}, and its test set sealed. Finish it first: {command}")
    return folder


def _check_labels(source: Source, classes: tuple[str, ...], place: Path) -> None:
    counts, faults = Counter(row.label for row in source.rows), []
    for label in sorted(counts.keys() - set(classes)):
        near = difflib.get_close_matches(label, classes, n=1)
        faults.append(
            f"{label!r}, of {several(counts[label], 'example')}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    if faults:
        more = [f"and {len(faults) - 20} more"] if len(faults) > 20 else []
        raise DataError(
            f"{source.root} has labels that are no classes of {place}:",
            [*faults[:20], *more],
            f"Its classes: {', '.join(classes[:20])}{', ...' if len(classes) > 20 else ''}. They go by name.",
        )


def _made_with(folder: RunFolder, moved: str | Path | None) -> tuple[Known, Known, list[str]]:
    """What a run learnt from or was chosen by, that of the runs before it as train; its own test set; and
    what to say.
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


def _about(left_out: dict[str, int], shown: int, unsure: int, copies: int, missing: set[str]) -> list[str]:
    """What is to be known of the examples, a sentence each; `shown` were known by their pixels alone."""
    said, made_with = [], left_out["in train"] + left_out["in val"]
    if made_with:
        other = f"; {shown:,} of them in other bytes, known by the pixels" if shown else ""
        said.append(
            f"{several(made_with, 'example')} the run was made with {'was' if made_with == 1 else 'were'} left out "
            f"({left_out['in train']:,} of its train, {left_out['in val']:,} of its val{other})."
        )
    if unsure:
        said.append(
            f"{several(unsure, 'example', 'looks', 'look')} like what the run was made with, whose files are gone or "
            "changed: pixels could not be compared. --data FOLDER says where the run's data are now."
        )
    if left_out["unreadable"]:
        said.append(f"{several(left_out['unreadable'], 'unreadable file', 'was', 'were')} left out.")
    if copies:
        said.append(f"{several(copies, 'example')} more, byte-identical to others, count like them.")
    if missing:
        said.append(
            f"No example is of: {', '.join(sorted(missing)[:10])}{', ...' if len(missing) > 10 else ''}."
        )
    return said


def _of_near(model: Model, apart: dict[str, Any]) -> list[str]:
    """What near-duplicates of the run's examples do to the score; nothing where there are none."""
    if not apart:
        return []
    text = f"{several(apart['left_out'], 'example', 'has', 'have')} a near-duplicate among those the run was made with"
    if not apart["metrics"]:
        return [
            f"{text}; {apart['why'].replace('test examples', 'examples').replace('in train or val', 'there')}."
        ]
    metric = task_of(model.task.kind, model.classes).headline
    e = Estimate.from_dict(apart["metrics"][metric.name])
    ends = f"[{metric.shown(e.low)}, {metric.shown(e.high)}]"
    return [f"{text}; without them {metric.words} is {metric.shown(e.value)} {ends} on {e.n:,} examples."]


def _logits(model: Model, paths: Sequence[KnownFile], device: str, events: Events) -> np.ndarray:
    """(N, K) logits, by the very code that predicts."""
    rows = []
    for number, row in enumerate(model.rows(paths, pick_device(device)), start=1):
        if not isinstance(row, np.ndarray):
            raise UsageError(f"{paths[number - 1]} cannot be read any more: {row}.")
        rows.append(row)
        events.tick(label="predicting", done=number, total=len(paths))
    return np.stack(rows)


def _beside_stored(folder: RunFolder, ids: Sequence[str], logits: np.ndarray, model: Model) -> str:
    """How today's predictions differ from those in predictions.parquet, and what its headline metric was, by
    metrics.json.
    """
    if not folder.predictions.is_file():
        return "predictions.parquet is gone: there is nothing to compare with."
    table = read_parquet(folder.predictions, ["id", "source", "split", "predicted"])
    rows = [row for row in table.to_pylist() if row["split"] == "test"]
    if [row["id"] for row in rows] != list(ids):
        return "predictions.parquet does not hold this test set: there is nothing to compare with."
    task = task_of(model.task.kind, model.classes)
    answers = task.said(task.answers(logits))
    other = [
        f"{row['source']} ({said}, was {row['predicted']})"
        for row, said in zip(rows, answers, strict=True)
        if said != row["predicted"]
    ]
    if not other:
        return f"All {len(rows):,} predictions are those of the run."
    before = ""
    if folder.metrics.is_file():
        value = read_json(folder.metrics)["test"][task.headline.name]["value"]
        before = f", whose {task.headline.words} was {task.headline.shown(value)}"
    return (
        f"{len(other):,} of {len(rows):,} predictions differ from those of the run{before}: "
        f"{', '.join(other[:5])}{', ...' if len(other) > 5 else ''}."
    )


def _evaluated(
    place: Path,
    data: str,
    reason: str,
    labels: np.ndarray,
    logits: np.ndarray,
    model: Model,
    groups: np.ndarray | None,
    said: tuple[str, ...],
    left_out: dict[str, int],
    counted: Readings | None,
    file: str = "",
    apart: dict[str, Any] | None = None,
) -> Evaluated:
    task = task_of(model.task.kind, model.classes)
    scaled = logits.astype(np.float64) / model.temperature
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Evaluated(
        str(place),
        data,
        reason,
        now,
        len(labels),
        task.kind,
        task.classes,
        evaluated(task, labels, scaled, groups),
        task.tables(labels, scaled, groups),
        said,
        left_out,
        counted,
        file,
        apart or {},
    )
