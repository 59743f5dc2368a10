"""What an answer is, and how it is judged: one object a kind of task, found by its name.

`register` adds a kind; nothing outside this room asks which kind a task is.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.data.answers import names_told, numbers_told
from regraft.data.examples import Examples
from regraft.data.rows import Labels, counted
from regraft.errors import UsageError
from regraft.evaluation import Estimate, Metric, estimate_of, estimates
from regraft.tasks.arrays import given_in
from regraft.tasks.link import Link, Softmax
from regraft.tasks.multi import Multi
from regraft.tasks.numbers import Numbers
from regraft.tasks.sections import (
    Confusion,
    Grid,
    PerClass,
    Promises,
    Reliability,
    Scatter,
    Section,
    Together,
)
from regraft.tasks.single import Single
from regraft.tasks.task import (
    Answer,
    Calibration,
    Held,
    InGraph,
    Known,
    Probed,
    Score,
    Spoken,
    Suspect,
    Task,
    headline_score,
)
from regraft.tasks.usual import Usual

USUAL = "single"  # what is fitted where nothing else is asked for
# The kind of task that labels ask for, by what they are, and that in words
ASKED_FOR: dict[Labels, tuple[str, str]] = {
    "name": (USUAL, "one name an example"),
    "names": ("multi", "several names an example"),
    "number": ("regression", "numbers"),
}


def distinct(labels: Iterable[str]) -> tuple[str, ...]:
    """The sorted names among labels of one name each."""
    return tuple(sorted(set(labels)))


@dataclass(frozen=True)
class _Kind:
    make: Callable[[tuple[str, ...]], Any]
    classes: Callable[[Iterable[str]], tuple[str, ...]]


_KINDS: dict[str, _Kind] = {
    USUAL: _Kind(Single, distinct),
    "multi": _Kind(Multi, names_told),
    "regression": _Kind(Numbers, numbers_told),
}


def register(
    kind: str,
    make: Callable[[tuple[str, ...]], Task],
    classes: Callable[[Iterable[str]], tuple[str, ...]] = distinct,
) -> None:
    """Add a kind of task: `make` gives the task of some classes, sorted names, and `classes` tells these
    from the labels of a set. A kind that is there is replaced.
    """
    _KINDS[kind] = _Kind(make, classes)


def kinds() -> tuple[str, ...]:
    """The names of all kinds of task, the usual one first."""
    return tuple(_KINDS)


@contextmanager
def registered(
    kind: str,
    make: Callable[[tuple[str, ...]], Task],
    classes: Callable[[Iterable[str]], tuple[str, ...]] = distinct,
) -> Iterator[None]:
    """Register a kind of task until the `with` block ends."""
    before = dict(_KINDS)
    register(kind, make, classes)
    try:
        yield
    finally:
        _KINDS.clear()
        _KINDS.update(before)


def task_of(kind: str, classes: Sequence[str], settings: Mapping[str, Any] | None = None) -> Task:
    """The task of that kind and these classes, sorted names, with the settings that it was saved with. Raises
    UsageError for a kind that is not known.
    """
    if kind not in _KINDS:
        raise UsageError(f"{kind!r} is no kind of task that is known here; there are {', '.join(_KINDS)}.")
    task: Task = _KINDS[kind].make(tuple(classes))
    return task.restored(settings) if settings else task


def task_of_examples(examples: Examples) -> Task:
    """The task of a set, knowing the targets of its train and val."""
    task = task_of(examples.task.kind, examples.task.classes)
    return task.fitted(examples.part("train").then(examples.part("val")).labels)


def task_for(kind: str, labels: Iterable[str], are: Labels, place: object) -> Task:
    """The task of a set with these labels; `are` says what they are, by which the kind "auto" is decided, and
    `place` where they stand. Raises UsageError for a kind that is not known.
    """
    wanted, words = ASKED_FOR[are]
    if kind == "auto" and wanted not in _KINDS:
        raise UsageError(
            f"the labels of {place} are {words}, which is a task of kind {wanted!r}; known here are "
            f"{', '.join(_KINDS)}. Give one class an example in the column `label`, or say with data.task "
            "what they are."
        )
    kind = wanted if kind == "auto" else kind
    return task_of(kind, _KINDS[kind].classes(labels) if kind in _KINDS else ())


def task_of_run(state: Mapping[str, Any]) -> Task:
    """The task of a run, by the contents of its run.json; the usual one where the run ended before it had
    data.
    """
    data = state.get("data") or {}
    names = [str(name) for name in data.get("classes") or []]
    return task_of(str(data.get("kind") or USUAL), names, data.get("settings"))


def chosen_by(task: Task, name: str) -> Metric:
    """The metric of that name, for choices; "auto" is the headline.

    Raises UsageError where the task has none of that name, or none to choose by.
    """
    name = task.headline.name if name == "auto" else name
    known = [metric for metric in task.metrics if metric.value is not None]
    of_name = next((metric for metric in known if metric.name == name), None)
    if of_name is None:
        near = difflib.get_close_matches(name, [metric.name for metric in known], n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        names = ", ".join(metric.name for metric in known)
        raise UsageError(
            f"run.metric: {name!r} is no metric of this task to choose by; these are {names}.{hint}"
        )
    return of_name


def evaluated(
    task: Task, targets: np.ndarray, outputs: np.ndarray, groups: np.ndarray | None = None
) -> dict[str, Estimate]:
    """The metrics of (N, K) calibrated outputs with their intervals, by name, those that the examples define and
    the headline, which is NaN where they do not; `groups` (N,) are drawn whole.
    """
    facts, headline = task.facts(targets, outputs), task.headline
    found = estimates(task.metrics, facts, groups)
    return found if headline.name in found else {headline.name: estimate_of(headline, facts, groups), **found}


__all__ = [
    "USUAL",
    "Answer",
    "Calibration",
    "Confusion",
    "Estimate",
    "Grid",
    "Held",
    "InGraph",
    "Known",
    "Link",
    "Metric",
    "Multi",
    "Numbers",
    "PerClass",
    "Probed",
    "Promises",
    "Reliability",
    "Scatter",
    "Score",
    "Section",
    "Single",
    "Softmax",
    "Spoken",
    "Suspect",
    "Task",
    "Together",
    "Usual",
    "chosen_by",
    "counted",
    "evaluated",
    "given_in",
    "headline_score",
    "kinds",
    "register",
    "registered",
    "task_for",
    "task_of",
    "task_of_examples",
    "task_of_run",
]
