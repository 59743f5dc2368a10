"""Prediction: what the model says of one item, in plain values; and how outputs become one."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.errors import Unreadable, UsageError
from regraft.tasks import Calibration, Task

UNFAMILIAR = 99.0  # the percentile above which an item is unlike anything the model was trained on


@dataclass(frozen=True)
class Prediction:
    """One answer. A source that could not be read has `error` set and no label.

    `sure` says whether the promised precision holds for it; None where none was asked for. `familiarity`
    is a percentile from 0 to 100: so many of the training examples lie nearer to the other training
    examples than this item does. None where the model does not know.
    """

    source: str
    label: str | None
    probability: float | None
    probabilities: dict[str, float]
    error: str | None = None
    sure: bool | None = None
    familiarity: float | None = None

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
            "sure": self.sure,
            "familiarity": self.familiarity,
            "unfamiliar": self.unfamiliar,
            "error": self.error,
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
        return cls(task, calibration, top, None if precision is None else promised(calibration, precision)[1])

    def __call__(
        self, sources: Sequence[str], outputs: np.ndarray, familiarity: Sequence[float | None]
    ) -> list[Prediction]:
        """Predictions of N sources by their (N, K) outputs as they come from the model, and how familiar
        each is.
        """
        answers = self.task.predict(self.calibration.applied(outputs.astype(np.float64)))
        found = []
        for source, answer, known in zip(sources, answers, familiarity, strict=True):
            shares, chance = answer.probabilities, answer.probability
            if self.top is not None:
                shares = dict(sorted(shares.items(), key=lambda item: -item[1])[: self.top])
            sure = None if self.threshold is None or chance is None else chance >= self.threshold
            found.append(Prediction(source, answer.label, chance, shares, sure=sure, familiarity=known))
        return found

    def unreadable(self, source: str, error: Unreadable) -> Prediction:
        """What is said of an item that could not be read."""
        return Prediction(source, None, None, {}, str(error))


def promises(calibration: Calibration) -> dict[float, float]:
    """By wanted precision, the probability above which answers were so often right on held-out examples."""
    kept = calibration.saved().get("thresholds", {})
    return {float(wanted): float(threshold) for wanted, threshold in kept.items()}


def promised(calibration: Calibration, precision: float) -> tuple[float, float]:
    """The least promised precision that is as high as the one asked for, and its threshold.

    Raises UsageError where the run could promise none that is as high: how sure the model is then says
    nothing of how often it is right.
    """
    if not 0 < precision < 1:
        raise UsageError(f"a precision is a share between 0 and 1, such as 0.95; found {precision:g}.")
    offers = promises(calibration)
    enough = [wanted for wanted in offers if wanted >= precision]
    if enough:
        return min(enough), offers[min(enough)]
    can = ", ".join(f"{wanted:g}" for wanted in sorted(offers))
    raise UsageError(
        f"this model cannot promise that {precision:.0%} of its answers are right: "
        + (f"it promises {can} at most. " if can else "too few held-out examples proved any promise. ")
        + "The run's report says how many it would take. Leave the precision out, or fit with more examples."
    )


def named(item: Any, number: int) -> str:
    """What the source of an item is called: its path, or its place among the items."""
    return str(item) if isinstance(item, (str, os.PathLike)) else f"item {number}"
