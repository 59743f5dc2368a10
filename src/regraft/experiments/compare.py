"""Finished runs on the same test examples, paired. Reads their files; computes no prediction anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from regraft.artifacts import RunFolder, read_json, read_parquet
from regraft.errors import FaultsError, UsageError
from regraft.evaluation import Estimate, PairedDifference, holm, in_words
from regraft.tasks import Metric, Task, task_of_run

RESAMPLES = 2000


@dataclass(frozen=True)
class Compared:
    """A run as a row of the table: its folder's name (or path, where names are alike) and what its own
    files say.
    """

    run: str
    path: str
    data: str
    backbone: str
    chosen: str
    metrics: dict[str, Estimate]
    seconds: float | None
    parameters: int | None  # of the backbone

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **vars(self),
            "metrics": {name: estimate.to_dict() for name, estimate in self.metrics.items()},
        }


@dataclass(frozen=True)
class Pair:
    """How much better `run` is than `difference.against`."""

    run: str
    difference: PairedDifference

    def in_words(self) -> str:
        """The verdict, with p adjusted for all pairs of the comparison."""
        return f"{self.run}: {in_words(self.difference)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"run": self.run, **self.difference.to_dict(), "in_words": self.in_words()}


@dataclass(frozen=True)
class Comparison:
    """Runs that share a test set: rows in the order asked for, and pairs: each against the first, then the
    best against each.

    `metrics` are those that are shown, the one the runs are summed up by first. `optimism` is how much too
    good the best of them looks in that one, for having been picked on these examples.
    """

    metrics: tuple[Metric, ...]
    rows: tuple[Compared, ...]
    pairs: tuple[Pair, ...]
    best: str
    examples: int
    groups: int | None
    optimism: float

    def caution(self) -> str:
        """What picking one of these runs by this table does to its score."""
        metric = self.metrics[0]
        much = self.optimism >= 0.0005
        by = f"about {metric.step(self.optimism)}" if much else f"less than {metric.step(0.001)}"
        return (
            f"{len(self.rows)} runs are compared on these {self.examples:,} test examples: picking the "
            f"best of them by it makes that one's score optimistic, here by {by} of {metric.words}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "examples": self.examples,
            "groups": self.groups,
            "best": self.best,
            "optimism": self.optimism,
            "caution": self.caution(),
            "metrics": [metric.described() for metric in self.metrics],
            "rows": [row.to_dict() for row in self.rows],
            "pairs": [pair.to_dict() for pair in self.pairs],
        }


@dataclass(frozen=True)
class _Answers:
    """The task, and the test rows of predictions.parquet in the order of (id, label): content ids, labels
    and predictions by name.
    """

    task: Task

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    predicted: tuple[str, ...]


def compare(runs: Sequence[str | Path]) -> Comparison:
    """Compare two or more finished runs. Raises UsageError that says what differs where they do not share a
    test set.

    The same test set means the same contents, the same label of each and the same classes, all by name and
    in any order. P values are adjusted by Holm's method over all pairs of runs, so that they hold for
    whichever pair is looked at.
    """
    folders = [RunFolder(Path(run)) for run in runs]
    if len(folders) < 2:
        raise UsageError("a comparison needs two runs at least: regraft compare RUN RUN")
    twice = [
        place
        for place, count in Counter(str(folder.path.resolve()) for folder in folders).items()
        if count > 1
    ]
    if twice:
        raise UsageError(f"{twice[0]} is named twice; a run is not compared with itself.")
    answers = [_answers(folder) for folder in folders]
    _check_same(folders, answers)
    names = _names(folders)
    rows = tuple(_row(folder, name) for folder, name in zip(folders, names, strict=True))
    task, groups = answers[0].task, _groups(folders[0], answers[0].ids)
    targets = task.encode(answers[0].labels)
    predicted = {name: task.encode(given.predicted) for name, given in zip(names, answers, strict=True)}
    worth = np.stack([task.worth(targets, encoded) for encoded in predicted.values()], axis=1)
    best = names[int(worth.mean(axis=0).argmax())]
    return Comparison(
        tuple(sorted((m for m in task.metrics if m.main), key=lambda m: m.name != task.headline.name)),
        rows,
        _pairs(task, targets, predicted, best, groups),
        best,
        len(targets),
        None if groups is None else len(set(groups.tolist())),
        optimism(worth, groups),
    )


def optimism(worth: np.ndarray, groups: np.ndarray | None = None, seed: int = 0) -> float:
    """How much too good the best of K models looks on average for having been picked on these examples;
    `worth` is (N, K), how good each answer is.

    By the bootstrap: the best on resampled examples is better there than it is on all of them, by so
    much on average (Efron, JASA 1983, on the optimism of what was chosen by the data). Groups are drawn
    whole.
    """
    units = np.arange(len(worth)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(units).astype(np.float64)
    hits = np.stack([np.bincount(units, weights=column) for column in worth.T], axis=1)
    everywhere, rng, excess = hits.sum(axis=0) / sizes.sum(), np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        drawn = np.bincount(rng.integers(0, len(sizes), len(sizes)), minlength=len(sizes))
        there = drawn @ hits / (drawn @ sizes)
        best = int(there.argmax())
        excess.append(there[best] - everywhere[best])
    return max(0.0, float(np.mean(excess)))


def _pairs(
    task: Task, targets: np.ndarray, predicted: dict[str, np.ndarray], best: str, groups: np.ndarray | None
) -> tuple[Pair, ...]:
    """Each run against the first, then the best against each other one that it was not yet seen beside."""
    names = list(predicted)
    wanted = [(name, names[0]) for name in names[1:]]
    wanted += [(best, name) for name in names[1:] if best not in (name, names[0])]

    def paired(run: str, against: str) -> PairedDifference:
        return task.paired(targets, predicted[run], predicted[against], against, groups)

    differences = {pair: paired(*pair) for pair in wanted}
    others = [
        paired(*pair).p_value
        for pair in combinations(names, 2)
        if not {pair, pair[::-1]} & differences.keys()
    ]
    adjusted = holm([*(difference.p_value for difference in differences.values()), *others])
    return tuple(
        Pair(run, replace(difference, p_adjusted=float(p)))
        for ((run, _), difference), p in zip(differences.items(), adjusted[: len(differences)], strict=True)
    )


def _answers(folder: RunFolder) -> _Answers:
    """What a finished run answered on its test set. Raises UsageError where it did not."""
    if not folder.is_run():
        raise UsageError(f"{folder.path} is no run (no run.json in it).")
    state = folder.read_state()
    if state.get("state") != "finished":
        raise UsageError(
            f"{folder.path} is {state.get('state')}: only finished runs have read their test set."
        )
    try:
        table = read_parquet(folder.predictions, ["id", "split", "label", "predicted"])
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{folder.predictions} cannot be read: {str(error).splitlines()[0]}") from None
    cells = (table[name].to_pylist() for name in ("id", "label", "predicted", "split"))
    rows = sorted((i, label, said) for i, label, said, split in zip(*cells, strict=True) if split == "test")
    if not rows:
        raise UsageError(f"{folder.path} has no test set: there is nothing to compare on.")
    ids, labels, predicted = zip(*rows, strict=True)
    return _Answers(task_of_run(state), ids, labels, predicted)


def _check_same(folders: Sequence[RunFolder], answers: Sequence[_Answers]) -> None:
    """Raise FaultsError that says, for each run, how its test set differs from that of the first."""
    first, faults = answers[0], []
    for folder, other in zip(folders[1:], answers[1:], strict=True):
        place, ours, theirs = folder.path, set(first.task.classes), set(other.task.classes)
        missing, more = ours - theirs, theirs - ours
        if first.task.kind != other.task.kind:
            faults.append(f"{place} is of another kind of task: {other.task.kind}, not {first.task.kind}")
        elif missing or more:
            told = [
                f"{word} {_some(names)}"
                for word, names in (("lacks", missing), ("has besides", more))
                if names
            ]
            faults.append(f"{place} {' and '.join(told)}: other classes")
        elif first.ids != other.ids:
            common = (Counter(first.ids) & Counter(other.ids)).total()
            faults.append(
                f"{place} has {len(other.ids):,} test examples, "
                f"{common:,} of them in common with {len(first.ids):,}"
            )
        elif first.labels != other.labels:
            wrong = [f"{a} or {b}" for a, b in zip(first.labels, other.labels, strict=True) if a != b]
            faults.append(
                f"{place} labels {len(wrong):,} of the {len(first.ids):,} "
                f"test examples otherwise ({_some(wrong)})"
            )
    if faults:
        raise FaultsError(
            f"these runs do not have the test set of {folders[0].path}:",
            faults,
            "To compare, fit on the same data, with `--splits RUN` where they have grown.",
        )


def _row(folder: RunFolder, name: str) -> Compared:
    state: Mapping[str, Any] = folder.read_state()
    test, shown = read_json(folder.metrics).get("test") or {}, task_of_run(state).metrics
    origin = state.get("provenance") or {}
    return Compared(
        name,
        str(folder.path),
        str(state.get("name") or ""),
        str(origin.get("id") or ""),
        str(state.get("chosen") or ""),
        {m.name: Estimate.from_dict(test[m.name]) for m in shown if m.main and m.name in test},
        state.get("seconds"),
        origin.get("parameters"),
    )


def _groups(folder: RunFolder, ids: Sequence[str]) -> np.ndarray | None:
    """(N,) numbers of the groups of the test examples; None where there are none. One without a group is
    its own.
    """
    table = read_parquet(folder.examples, ["id", "group", "split"]).to_pydict()
    rows = zip(table["id"], table["group"], table["split"], strict=True)
    named = {identity: group for identity, group, split in rows if split == "test" and group is not None}
    if not named:
        return None
    keys = [f"group {named[identity]}" if identity in named else f"id {identity}" for identity in ids]
    return np.unique(keys, return_inverse=True)[1]


def _names(folders: Sequence[RunFolder]) -> list[str]:
    """The folders' names, or their paths as they were given where two names are alike."""
    names = [folder.path.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder.path) for folder in folders]


def _some(names: Sequence[str] | set[str]) -> str:
    listed = sorted(set(names))
    return ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")
