"""Prediction: what the model says of one item, in plain values; and how outputs become one."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import tee
from typing import Any

import numpy as np

from regraft.errors import Unreadable, UsageError
from regraft.evaluation import Familiarity
from regraft.inference import Outcome, batched
from regraft.tasks import Calibration, Task

TOGETHER = 32  # rows that are read together: one product with the training features serves them all
UNFAMILIAR = 99.0  # the percentile above which an item is unlike anything the model was trained on


@dataclass(frozen=True)
class Prediction:
    """One answer. A source that could not be read has `error` set and no label.

    `sure` says whether the promised precision holds for it; None where none was asked for. `familiarity`
    is a percentile from 0 to 100: so many of the training examples lie nearer to the other training
    examples than this item does. None where the model does not know. Of a task of several labels `labels` are
    those that hold, of one of numbers `values` are these by name, and `intervals` where each lies, as promised.
    `note` is what else is to be known of the answer, such as that a number lies outside of the training targets.
    `part` is the part of an item that speaks most for the label, where the network looks at several one by one:
    a window of a long recording.
    """

    source: str
    label: str | None
    probability: float | None
    probabilities: dict[str, float]
    error: str | None = None
    sure: bool | None = None
    familiarity: float | None = None
    labels: tuple[str, ...] | None = None
    values: dict[str, float] | None = None
    intervals: dict[str, tuple[float, float]] | None = None
    note: str = ""
    part: str | None = None

    @property
    def unfamiliar(self) -> bool:
        """Whether it is unlike anything the model was trained on."""
        return self.familiarity is not None and self.familiarity > UNFAMILIAR

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the line of jsonl, and what the server answers."""
        return {
            "source": self.source,
            "label": self.label,
            "probability": self.probability,
            "probabilities": dict(self.probabilities),
            "labels": None if self.labels is None else list(self.labels),
            "values": self.values,
            "intervals": None if self.intervals is None else {n: list(e) for n, e in self.intervals.items()},
            "sure": self.sure,
            "familiarity": self.familiarity,
            "unfamiliar": self.unfamiliar,
            "note": self.note,
            "error": self.error,
            **({} if self.part is None else {"part": self.part}),
        }

    def _repr_html_(self) -> str:
        rows = sorted(self.probabilities.items(), key=lambda item: -item[1])[:5]
        cells = "".join(f"<tr><td>{html.escape(name)}</td><td>{p:.3f}</td></tr>" for name, p in rows)
        head = html.escape(f"{self.source}: {self.error or self.label}")
        return f"<table><caption>{head}</caption>{cells}</table>"


@dataclass(frozen=True)
class Reading:
    """How the outputs of one model are read: calibrated, cut to the `top` most probable names where that is
    given, and held against the promised `threshold` where a precision was asked for.
    """

    task: Task
    calibration: Calibration
    top: int | None = None
    threshold: float | None = None

    @classmethod
    def of(
        cls, task: Task, calibration: Calibration, top: int | None = None, precision: float | None = None
    ) -> Reading:
        """Raises UsageError for a precision that is not promised, and a `top` that is no number of names."""
        if top is not None and top < 1:
            raise UsageError(f"top is how many probabilities are given, 1 or more; found {top}.")
        threshold = None
        if precision is not None:
            wanted = promised(calibration, precision)
            calibration, threshold = calibration.keeping(wanted), promises(calibration).get(wanted)
        return cls(task.decided(calibration), calibration, top, threshold)

    def __call__(
        self, sources: Sequence[str], outputs: np.ndarray, familiarity: Sequence[float | None]
    ) -> list[Prediction]:
        """Predictions of N sources by their (N, K) outputs as they come from the model, and how familiar
        each is.
        """
        answers = self.task.predict(self.calibration.applied(outputs.astype(np.float64)))
        predictions = []
        for source, answer, known in zip(sources, answers, familiarity, strict=True):
            shares, chance = answer.probabilities, answer.probability
            if self.top is not None:
                shares = dict(sorted(shares.items(), key=lambda item: -item[1])[: self.top])
            sure = None if self.threshold is None or chance is None else chance >= self.threshold
            more = {
                "labels": answer.labels,
                "values": answer.values,
                "intervals": answer.intervals,
                "note": answer.note,
            }
            told = Prediction(source, answer.label, chance, shares, sure=sure, familiarity=known, **more)  # type: ignore[arg-type]
            predictions.append(told)
        return predictions

    def unreadable(self, source: str, error: Unreadable) -> Prediction:
        """What is said of an item that could not be read."""
        return Prediction(source, None, None, {}, str(error))


class Answering:
    """What answers items in plain values: a `Model`, or one that is ready for a few items without PyTorch.

    `batches` is its own: items and what came of each, several at a time.
    """

    task: Task
    familiarity: Familiarity | None

    @property
    def calibrated(self) -> Calibration:
        """The calibration of the outputs, or one that changes nothing."""
        raise NotImplementedError

    def rows(self, items: Iterable[Any]) -> Iterator[Outcome | Unreadable]:
        """For each item, in order, its outputs and features, or the Unreadable that it is."""
        raise NotImplementedError

    def parts(self, item: Any) -> list[tuple[str, Any]]:
        """The parts of an item that the network looks at one by one (`regraft.modalities.parts_of`)."""
        raise NotImplementedError

    def deciding(self, item: Any, label: str | None) -> str | None:
        """The part of an item that speaks most for a label, in words; None of an item that is looked at as a
        whole. Raises Unreadable.
        """
        parts = self.parts(item)
        if len(parts) < 2 or label not in self.task.classes:
            return None
        rows = [row for row in self.rows([part for _, part in parts]) if isinstance(row, Outcome)]
        outputs = np.stack([row.outputs for row in rows]).astype(np.float64)
        shares = self.task.probabilities(self.calibrated.applied(outputs))
        if shares is None:
            return None
        return parts[int(shares[:, self.task.classes.index(label)].argmax())][0]

    def predict_each(
        self, items: Iterable[Any], top: int | None = None, precision: float | None = None
    ) -> Iterator[Prediction]:
        """One Prediction an item, in order, as they come: of a stream of any length, memory stays as it is.

        `top` leaves so many of the probabilities, the largest first. With `precision`, such as 0.95, `sure`
        tells the answers of which so many are promised to be right. Raises UsageError at once for a
        precision that cannot be promised. Several threads may call it.
        """
        return self._answered(items, Reading.of(self.task, self.calibrated, top, precision))

    def predict(self, items: Any, top: int | None = None, precision: float | None = None) -> list[Prediction]:
        """Predictions for paths, bytes, PIL images or (H, W[, 3]) arrays: a list of them, or a single one.

        `top` and `precision` are those of `predict_each`.
        """
        if isinstance(items, (str, bytes, bytearray, os.PathLike, np.ndarray)) or hasattr(items, "convert"):
            items = [items]
        return list(self.predict_each(items, top, precision))

    def _answered(self, items: Iterable[Any], reading: Reading) -> Iterator[Prediction]:
        ours, theirs = tee(items)
        rows = zip(enumerate(ours), self.rows(theirs), strict=True)
        for some in batched(rows, TOGETHER):
            done = [row for _, row in some if not isinstance(row, Unreadable)]
            found = iter(self._read(reading, done))
            for (number, item), row in some:
                source = named(item, number)
                if isinstance(row, Unreadable):
                    yield reading.unreadable(source, row)
                else:
                    answer = next(found)
                    yield replace(answer, source=source, part=self.deciding(item, answer.label))

    def _read(self, reading: Reading, done: Sequence[Outcome]) -> list[Prediction]:
        """What several rows say, of sources not named yet."""
        if not done:
            return []
        outputs, features = np.stack([row.outputs for row in done]), np.stack([row.features for row in done])
        known = self.familiarity
        familiar = [None] * len(done) if known is None else [float(each) for each in known(features)]
        return reading([f"item {number}" for number in range(len(done))], outputs, familiar)


def promises(calibration: Calibration) -> dict[float, float]:
    """By wanted precision, the probability above which answers were so often right on held-out examples."""
    kept = calibration.saved().get("thresholds", {})
    return {float(wanted): float(threshold) for wanted, threshold in kept.items()}


def promised(calibration: Calibration, precision: float) -> float:
    """The least promised precision that is as high as the one asked for.

    Raises UsageError for a task that promises none, and where the run could promise none that is as high: how
    sure the model is then says nothing of how often it is right.
    """
    offers = calibration.promises
    if offers is None:
        raise UsageError(
            "a precision is promised of classes and labels only: numbers have intervals, which every answer gives."
        )
    if not 0 < precision < 1:
        raise UsageError(f"a precision is a share between 0 and 1, such as 0.95; found {precision:g}.")
    enough = [wanted for wanted in offers if wanted >= precision]
    if enough:
        return min(enough)
    can = ", ".join(f"{wanted:g}" for wanted in offers)
    raise UsageError(
        f"this model cannot promise that {precision:.0%} of its answers are right: "
        + (f"it promises {can} at most. " if can else "too few held-out examples proved any promise. ")
        + "The run's report says how many it would take. Leave the precision out, or fit with more examples."
    )


def named(item: Any, number: int) -> str:
    """What the source of an item is called: its path, or its place among the items."""
    return str(item) if isinstance(item, (str, os.PathLike)) else f"item {number}"
