"""A finished run's model evaluated once more: on its own test set, or on labelled examples that are new to
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.artifacts import Events, RunFolder, next_free, read_json, read_parquet, write_json
from regraft.data import Examples, KnownFile, Readings, count_readings, readings, several
from regraft.data.addresses import Place
from regraft.data.answers import Wanted
from regraft.errors import UsageError
from regraft.evaluation import Estimate
from regraft.experiments.going import same_data
from regraft.modalities import read_source
from regraft.run.session import Session
from regraft.runtime import pick_device
from regraft.steps.audit import without_near_duplicates
from regraft.steps.evaluate import Verdict
from regraft.tasks import evaluated, task_of

if TYPE_CHECKING:
    from regraft.model import Model

KEPT_APART = "test_without_near_duplicates"


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
        """The task's headline metric with its interval, in one line."""
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
    place: Path, session: Session, reason: str = "", moved: str | Path | None = None
) -> Evaluated:
    """Predict a run's own test set afresh; the reading is recorded. `moved` says where the run's data are
    now.

    Raises UsageError where there is no test set, or its files are gone or have another content.
    """
    from regraft.model import Model

    folder = _finished(place)
    examples = Examples.load(folder.examples, task_of)
    if not examples.counts()["test"]:
        command = f"regraft evaluate {quote(str(place))} DATA"
        raise UsageError(f"{place} has no test set. Name labelled examples that are new to it: {command}")
    examples = same_data(examples, moved, session.events, ("test",), "test file")
    model, events = Model.load(folder.path), Events(folder.events, session.listeners)
    if set(model.classes) != set(examples.task.classes):
        raise UsageError(
            f"{place / 'model'} has other classes than the run's examples: {', '.join(model.classes[:10])}."
        )
    reason = reason or "evaluated again"
    folder.lock()
    try:
        test = examples.unseal(reason, events.emit)
        logits = _logits(model, test.items, session, events)
        write_json(folder.state, {**folder.read_state(), "readings": readings(folder)})
    finally:
        folder.release()
    counted = count_readings(folder)
    return Evaluated(
        run=str(place),
        data="its own test set",
        reason=reason,
        time=_now(),
        said=(_beside_stored(folder, test.ids, logits, model), counted.in_words()),
        left_out={},
        readings=counted,
        **_scores(model, _as_model(model, examples, test.labels), logits, test.clusters()),
    )


def evaluate_on(
    place: Path, data: str | Path, session: Session, reason: str = "", moved: str | Path | None = None
) -> Evaluated:
    """Score a run's model on all labelled examples of `data`, whatever splits these name, but for those it
    was made with.

    These are known by content and by what they show, as are those of the runs before it. Near-duplicates of
    them are counted, and the score without them is given. `moved` says where the run's own data are now.
    The result is kept in the run's folder `evaluations` and listed in run.json. Raises DataError for labels
    that are no classes of the run, and where no example is left.
    """
    from regraft.experiments.unseen import unseen
    from regraft.model import Model

    folder = _finished(place)
    model = Model.load(folder.path)
    source = read_source(data, Wanted.by(model.task.kind, model.classes))
    new = unseen(folder, source, model, session.events, moved)
    said, counted = list(new.said), None
    folder.lock()
    try:
        events = Events(folder.events, session.listeners)
        if new.own:
            why = f"evaluated on {source.name}, which shares them" + (f": {reason}" if reason else "")
            events.emit("unseal", reason=why, examples=new.own)
            counted = count_readings(folder)
            said.append(f"{new.own:,} of the examples are in the run's own test set. {counted.in_words()}")
        logits = _logits(model, new.files, session, events)
        scaled = model.calibrated.applied(logits.astype(np.float64))
        task, verdict = model.task.decided(model.calibrated), Verdict(new.labels, scaled, new.clusters)
        apart = without_near_duplicates(task, verdict, new.sources, new.near).get(KEPT_APART, {})
        file = next_free(folder.evaluations, source.name, ".json")
        evaluation = Evaluated(
            run=str(place),
            data=str(data),
            reason=reason,
            time=_now(),
            said=(*said, *_of_near(model, apart)),
            left_out=new.left_out,
            readings=counted,
            file=str(file),
            without_near_duplicates=apart,
            **_scores(model, new.labels, logits, new.clusters),
        )
        write_json(file, evaluation.to_dict())
        _list(evaluation, source.root, file, folder)
    finally:
        folder.release()
    return evaluation


def _as_model(model: Model, examples: Examples, targets: np.ndarray) -> np.ndarray:
    """The targets of a run's examples in the order of the classes of its model."""
    if model.classes == tuple(examples.task.classes):
        return targets
    own = task_of(examples.task.kind, examples.task.classes)
    return model.task.encode(own.said(targets))


def _list(evaluation: Evaluated, root: Place, file: Path, folder: RunFolder) -> None:
    """List an evaluation on the data in `root` in run.json."""
    headline = task_of(evaluation.kind, evaluation.classes).headline.name
    entry = {
        "time": evaluation.time,
        "reason": evaluation.reason,
        "data": str(root),
        "examples": evaluation.examples,
        "file": file.name,
        headline: evaluation.metrics[headline].to_dict(),
    }
    state = folder.read_state()
    state["evaluations"] = [*(state.get("evaluations") or []), entry]
    if evaluation.readings is not None:
        state["readings"] = readings(folder)
    write_json(folder.state, state)


def _scores(
    model: Model, labels: np.ndarray, logits: np.ndarray, groups: np.ndarray | None
) -> dict[str, Any]:
    """The fields of `Evaluated` that come from (N,) labels, (N, K) logits and (N,) numbers of the groups."""
    task = model.task.decided(model.calibrated)
    scaled = model.calibrated.applied(logits.astype(np.float64))
    return {
        "examples": len(labels),
        "kind": task.kind,
        "classes": task.classes,
        "metrics": evaluated(task, labels, scaled, groups),
        "tables": {**model.calibrated.tested(labels, logits), **task.tables(labels, scaled, groups)},
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _finished(place: Path) -> RunFolder:
    folder = RunFolder(place)
    if not folder.is_run():
        raise UsageError(f"{place} is no run (no run.json in it).")
    state = folder.read_state().get("state")
    if state != "finished":
        command = f"regraft fit --resume --out {quote(str(place))}"
        raise UsageError(f"{place} is {state}, and its test set sealed. Finish it first: {command}")
    return folder


def _logits(model: Model, paths: Sequence[KnownFile], session: Session, events: Events) -> np.ndarray:
    """(N, K) logits of files, by the code that predicts. Raises UsageError for a file that cannot be read."""
    rows = []
    for number, row in enumerate(model.outputs(paths, pick_device(session.recipe.run.device)), start=1):
        if not isinstance(row, np.ndarray):
            raise UsageError(f"{paths[number - 1]} cannot be read any more: {row}.")
        rows.append(row)
        events.tick(label="predicting", done=number, total=len(paths))
    return np.stack(rows)


def _beside_stored(folder: RunFolder, ids: Sequence[str], logits: np.ndarray, model: Model) -> str:
    """A sentence on how these predictions differ from those in predictions.parquet."""
    if not folder.predictions.is_file():
        return "predictions.parquet is gone: there is nothing to compare with."
    table = read_parquet(folder.predictions, ["id", "source", "split", "predicted"])
    rows = [row for row in table.to_pylist() if row["split"] == "test"]
    if [row["id"] for row in rows] != list(ids):
        return "predictions.parquet does not hold this test set: there is nothing to compare with."
    task = model.task.decided(model.calibrated)
    answers = task.said(task.answers(model.calibrated.applied(logits.astype(np.float64))))
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


def _of_near(model: Model, apart: dict[str, Any]) -> list[str]:
    """A sentence on what near-duplicates of the run's examples do to the score; none where there are none."""
    if not apart:
        return []
    text = (
        f"{several(apart['left_out'], 'example', 'has', 'have')} "
        "a near-duplicate among those the run was made with"
    )
    if not apart["metrics"]:
        return [
            f"{text}; "
            f"{apart['why'].replace('test examples', 'examples').replace('in train or val', 'there')}."
        ]
    metric = model.task.headline
    e = Estimate.from_dict(apart["metrics"][metric.name])
    ends = "[{}, {}]".format(*metric.ends(e.low, e.high))
    return [f"{text}; without them {metric.words} is {metric.shown(e.value)} {ends} on {e.n:,} examples."]
