"""Numbers: of each example one or several are told, such as a weight, an age or a count.

The model's K outputs are the numbers less the mean of the training targets, divided by their deviation; what is
told is in the units of the data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.data.answers import NUMBER, told
from regraft.errors import UsageError
from regraft.evaluation import (
    Metric,
    PairedDifference,
    Told,
    conformal_widths,
    coverage,
    knn_means,
    numbers_metrics,
    paired_mean,
)
from regraft.evaluation.numbers import DEVIATIONS
from regraft.tasks.grids import by_name, digits, intervals_grid, numbers_grid, short
from regraft.tasks.link import Squares
from regraft.tasks.sections import Scatter, Section
from regraft.tasks.shares import strata_of_numbers
from regraft.tasks.task import Answer, Held, InGraph, Known, Spoken, Suspect
from regraft.tasks.usual import Usual
from regraft.tasks.widths import PROMISED, Each, Scale, Widths, medians

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

ALIKE = 0.01  # deviations of the targets up to which two answers are the same to a reader
TURN = 1.0  # error, in deviations of the targets, from which on Huber's loss is linear
SUSPECT = 5.0  # robust deviations of the errors from which on a target is suspected
POINTS = 400  # examples of the picture of what was told
NAMED = 6  # numbers that the question names


@dataclass(frozen=True)
class Numbers(Usual):
    """The task of telling numbers, called `classes`, sorted names. Targets are (N, K) float64, NaN where a number
    is not known. Without a `scale` outputs are in the units of the data. With `robust` the loss of training is
    Huber's, else half the squared error.
    """

    classes: tuple[str, ...]
    scale: Scale | None = None
    widths: Widths | Each | None = None
    robust: bool = False
    kind: str = "regression"
    hub: str = "regression"

    @property
    def spread(self) -> tuple[str, ...]:
        """Each number, and where it is promised to lie."""
        return ("value", "low", "high")

    @property
    def noun(self) -> str:
        """A number."""
        return "number"

    @property
    def spoken(self) -> Spoken:
        """Of numbers."""
        outputs = "numbers, in deviations of the targets,"
        return Spoken("number", "given as", ("values", "intervals"), outputs, notes=True)

    @property
    def outputs(self) -> int:
        """K."""
        return len(self.classes)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Mean absolute error and the others, in the order they are shown in."""
        return numbers_metrics(DEVIATIONS if len(self.classes) > 1 else "")

    @property
    def headline(self) -> Metric:
        """Mean absolute error."""
        return self.metrics[0]

    @property
    def _mean(self) -> np.ndarray:
        return np.array(self.scale.mean if self.scale else [0.0] * self.outputs)

    @property
    def _deviation(self) -> np.ndarray:
        return np.array(self.scale.deviation if self.scale else [1.0] * self.outputs)

    def values(self, outputs: np.ndarray) -> np.ndarray:
        """(N, K) float64 numbers in the units of the data, of (N, K) outputs."""
        return np.asarray(np.asarray(outputs, dtype=np.float64) * self._deviation + self._mean)

    def _outputs(self, values: np.ndarray) -> np.ndarray:
        return np.asarray((np.asarray(values, dtype=np.float64) - self._mean) / self._deviation)

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        """(N, K) float64 of N labels: a number, or an object in JSON of numbers by name. Raises UsageError for
        what is none, and for a name that is none of this task.
        """
        place = {name: k for k, name in enumerate(self.classes)}
        targets = np.full((len(labels), self.outputs), np.nan)
        for row, label in enumerate(labels):
            try:
                parts = told(label) if label[:1] == "{" else ((self.classes[0], float(label)),)
                for name, value in parts:
                    targets[row, place[name]] = np.nan if value is None else float(value)
            except (KeyError, IndexError, ValueError, TypeError):
                raise UsageError(
                    f"{label!r} gives no numbers of this task: {', '.join(self.classes)}."
                ) from None
        return targets

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Parts of about equal size, by how large the numbers are."""
        return strata_of_numbers(targets)

    def stratum(self, number: int) -> str:
        """The part by its place."""
        return f"part {number + 1} of the examples by the size of their numbers"

    def named(self, label: str) -> tuple[str, ...]:
        """The numbers that it gives."""
        if label[:1] == "{":
            return tuple(name for name, value in told(label) if value is not None)
        return self.classes[:1]

    def shown(self, label: str) -> str:
        """The number, or the numbers by name."""
        if label[:1] != "{":
            try:
                return digits(float(label))
            except ValueError:
                return label
        return by_name(dict(told(label)))

    def differ(self, targets: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Where they lie more than a deviation of the targets apart."""
        with np.errstate(invalid="ignore"):
            return np.asarray((np.abs(targets - others) > self._deviation).any(axis=1))

    def same(self, answers: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Where they lie no more than a hundredth of the targets' deviation apart."""
        return np.asarray((np.abs(answers - others) <= ALIKE * self._deviation).all(axis=1))

    def fitted(self, targets: np.ndarray) -> Numbers:
        """Knowing mean, deviation and range of the targets."""
        return replace(self, scale=Scale.of(targets)) if len(targets) else self

    def settings(self) -> dict[str, Any]:
        """`scale`, what of the targets it knows, and whether the loss is `robust`."""
        if self.scale is None:
            return {}
        return {"scale": {k: list(v) for k, v in vars(self.scale).items()}, "robust": self.robust}

    def restored(self, settings: Mapping[str, Any]) -> Numbers:
        """With the scale, and the loss."""
        kept = settings.get("scale")
        if not kept:
            return self
        scale = Scale(**{name: tuple(map(float, values)) for name, values in kept.items()})
        return replace(self, scale=scale, robust=bool(settings.get("robust", False)))

    def decided(self, calibration: Any) -> Numbers:
        """With intervals around what it tells."""
        return replace(self, widths=calibration)

    def decided_each(self, calibrations: Sequence[Any], of: np.ndarray) -> Numbers:
        """With the intervals of each example's own calibration."""
        return replace(self, widths=Each(tuple(calibrations), tuple(of.tolist())))

    def lacking(self, labels: Sequence[str]) -> str:
        """A number has to vary."""
        targets = self.encode(labels)
        constant = [
            f"{name!r} is always {digits(float(column[np.isfinite(column)][0]))}"
            for name, column in zip(self.classes, targets.T, strict=True)
            if np.isfinite(column).any() and np.ptp(column[np.isfinite(column)]) == 0
        ]
        return f"{', '.join(constant)} in training: there is nothing to learn" if constant else ""

    @property
    def loss_name(self) -> str:
        """The absolute error by the deviation of the targets."""
        return "scaled absolute error"

    def guessing(self, targets: np.ndarray) -> float:
        """That of telling the mean of standardised numbers."""
        return 0.5 * max(1, self.outputs)

    @property
    def link(self) -> Squares:
        """Ridge regression, or Huber's."""
        return Squares(self._mean, self._deviation, TURN if self.robust else math.inf)

    def ways(self) -> dict[str, Numbers]:
        """By the squared error, or by Huber's loss, which minds outliers less."""
        return {"squared error": replace(self, robust=False), "Huber's loss": replace(self, robust=True)}

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(B,) sums over the known numbers of Huber's loss (1964) of standardised errors, or of half their
        squares.
        """
        import torch

        mean, deviation = (
            torch.as_tensor(values, dtype=targets.dtype, device=targets.device)
            for values in (self._mean, self._deviation)
        )
        wanted = (targets - mean) / deviation
        known = wanted.isfinite()
        error = torch.where(known, outputs - wanted.nan_to_num(0.0).to(outputs.dtype), 0.0)
        if not self.robust:
            return 0.5 * error.square().sum(dim=1)
        size = error.abs()
        return torch.where(size <= TURN, 0.5 * error.square(), TURN * (size - 0.5 * TURN)).sum(dim=1)

    def losses(self, targets: np.ndarray, outputs: np.ndarray, refined: bool = False) -> np.ndarray:
        """(N,) mean absolute errors of an example's known numbers, in deviations of the targets."""
        return Told(targets, self.values(outputs), self._deviation).absolute

    def facts(self, targets: np.ndarray, outputs: np.ndarray) -> Told:
        """Targets and numbers, with what the metrics are made of."""
        values = self.values(outputs)
        return Told(targets, values, self._deviation if self.outputs > 1 else None, self._ends(values))

    def _ends(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """(N, K) where the numbers are promised to lie, NaN where nothing is; None without any promise."""
        around = None if self.widths is None else self.widths.around(values)
        if around is None or np.isnan(around).all():
            return None
        return values - around, values + around

    def calibrate(self, held: Held) -> Widths:
        """How far numbers lie from what is told, by the held-out examples."""
        if not len(held.targets):
            return Widths(held.name, (None,) * self.outputs)
        values, found = self.values(held.outputs), []
        for values_k, truth in zip(values.T, held.targets.T, strict=True):
            known = np.isfinite(truth)
            blocks = None if held.blocks is None else held.blocks[known]
            found.append(conformal_widths(values_k[known], (truth - values_k)[known], PROMISED, blocks))
        widths, sizes = zip(*found, strict=True)
        return Widths(held.name, widths, PROMISED, len(values), sizes)

    def calibration(self, saved: Mapping[str, Any]) -> Widths:
        """The intervals that regraft.json keeps."""
        return Widths.restored(saved.get("intervals") or {}, self.outputs)

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        """(N, K) float64: the numbers."""
        return self.values(outputs)

    def said(self, answers: np.ndarray) -> list[str]:
        """A number alone, several as an object in JSON by name."""
        if self.classes == (NUMBER,):
            return [repr(float(row[0])) for row in answers]
        return [
            json.dumps(
                {
                    name: float(value) if np.isfinite(value) else None
                    for name, value in zip(self.classes, row, strict=True)
                }
            )
            for row in answers
        ]

    def predict(self, outputs: np.ndarray) -> list[Answer]:
        """The numbers of each row, and the intervals that are promised to hold them."""
        answers, values = [], self.values(outputs)
        around = self.widths.around(values) if self.widths else np.full(values.shape, np.nan)
        for row, widths in zip(values, around.tolist(), strict=True):
            named = {name: float(value) for name, value in zip(self.classes, row, strict=True)}
            ends = {
                name: (named[name] - width, named[name] + width)
                for name, width in zip(self.classes, widths, strict=True)
                if math.isfinite(width)
            }
            label = digits(float(row[0])) if self.outputs == 1 else by_name(named)
            answers.append(Answer(label, None, {}, None, named, ends, self._beyond(named)))
        return answers

    def _beyond(self, named: Mapping[str, float]) -> str:
        """Which numbers lie outside of what the model was trained on; "" where none does."""
        if self.scale is None:
            return ""
        out = [
            f"{name} lies outside of the training targets, {digits(low)} to {digits(high)}"
            for (name, value), low, high in zip(
                named.items(), self.scale.least, self.scale.largest, strict=True
            )
            if not low <= value <= high
        ]
        return "; ".join(out)

    def in_graph(self, calibration: Any) -> InGraph:
        """The numbers in the units of the data."""
        from regraft.tasks.graph import Scaled

        module = Scaled(tuple(self._mean.tolist()), tuple(self._deviation.tolist()))
        ways = self.values, self._outputs
        wide = calibration.widths, calibration.sizes
        # A number is no share between 0 and 1, which rounding hardly moves: the limit is what a reader calls the same
        return InGraph("values", self.classes, False, module, *ways, (), *wide, self._deviation, ALIKE)

    def columns(self, outputs: np.ndarray, calibration: Any) -> dict[str, Any]:
        """`value:NAME` as float64, and where it is promised `low:NAME` and `high:NAME`."""
        values = self.values(outputs)
        columns: dict[str, Any] = {f"value:{name}": values[:, k] for k, name in enumerate(self.classes)}
        around = calibration.around(values)
        for k, name in enumerate(self.classes):
            if calibration.widths[k] is not None:
                low, high = values[:, k] - around[:, k], values[:, k] + around[:, k]
                columns[f"low:{name}"], columns[f"high:{name}"] = low, high
        return columns

    def outputs_in(self, table: pa.Table) -> np.ndarray:
        """(N, K) outputs that say the values."""
        values = np.stack([table[f"value:{name}"].to_numpy() for name in self.classes], axis=1)
        return self._outputs(values)

    def probabilities(self, outputs: np.ndarray) -> None:
        """None."""
        return None

    def suspects(self, targets: np.ndarray, outputs: np.ndarray) -> list[Suspect]:
        """Those whose error lies SUSPECT robust deviations from the median error, the farthest first."""
        errors = targets - self.values(outputs)
        middle = medians(errors)
        spread = 1.4826 * medians(np.abs(errors - middle))
        far = np.nan_to_num(np.abs(errors - middle) / np.maximum(spread, 1e-12 * self._deviation))
        rows = [row for row in range(len(far)) if far[row].max() > SUSPECT]
        found = []
        for row in sorted(rows, key=lambda row: -far[row].max()):
            k = int(far[row].argmax())
            expected = targets[row].copy()
            expected[k] = targets[row, k] - errors[row, k]
            here, there = digits(float(targets[row, k])), digits(float(expected[k]))
            note = f"{self.classes[k]} is given as {here}, looks like {there}"
            found.append(Suspect(int(row), self.said(expected[None])[0], note))
        return found

    def guess(self, targets: np.ndarray, count: int) -> tuple[str, np.ndarray]:
        """The median of the targets."""
        values = medians(targets)
        return "median of the targets", np.broadcast_to(self._outputs(values), (count, self.outputs))

    def baselines(self, known: Known) -> dict[str, Callable[[], np.ndarray]]:
        """The mean of the targets, and the nearest neighbours on frozen features."""

        def mean() -> np.ndarray:
            values = np.nan_to_num(np.nanmean(known.targets, axis=0))
            return np.broadcast_to(self._outputs(values), (known.count, self.outputs))

        def near() -> np.ndarray:
            features = known.features()
            return self._outputs(knn_means(known.values, known.targets, features, known.tick, known.stop)[0])

        return {"mean of the targets": mean, "nearest neighbours": near}

    def paired(
        self,
        targets: np.ndarray,
        answers: np.ndarray,
        others: np.ndarray,
        against: str,
        groups: np.ndarray | None = None,
    ) -> PairedDifference:
        """By how much the mean absolute error is lower."""
        gains = self.worth(targets, answers) - self.worth(targets, others)
        unit = DEVIATIONS if self.outputs > 1 else ""
        return paired_mean(gains, against, groups, unit, "absolute error lower")

    def worth(self, targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """(N,) the absolute error, negative."""
        return -Told(targets, answers, self._deviation if self.outputs > 1 else None).absolute

    def tables(
        self, targets: np.ndarray, outputs: np.ndarray, groups: np.ndarray | None = None
    ) -> dict[str, Any]:
        """`numbers`: a row a number with its errors, how often its interval held, and some examples as they are
        and as they were told.
        """
        facts = self.facts(targets, outputs)
        some = np.sort(np.random.default_rng(0).permutation(len(facts))[:POINTS])
        rows = []
        for k, name in enumerate(self.classes):
            known = facts.known[:, k]
            one = Told(facts.targets[known, k : k + 1], facts.values[known, k : k + 1])
            weights = np.ones((1, len(one)))
            row: dict[str, Any] = {"name": name, "n": len(one)}
            if len(one):
                metrics = (m for m in numbers_metrics("") if m.value is not None)
                row |= {m.name: float(m.value(one, weights)[0]) for m in metrics if m.value is not None}
            shown = some[known[some]]
            row["points"] = np.stack([facts.targets[shown, k], facts.values[shown, k]], axis=1).tolist()
            row["held"] = coverage(facts, k, groups)
            rows.append(row)
        return {"numbers": rows}

    def sections(self, metrics: Mapping[str, Any]) -> list[Section]:
        """The promised intervals, the numbers one by one where they are several, and pictures of what was told:
        those that there are.
        """
        sections: list[Section] = []
        rows, intervals = metrics.get("numbers") or [], metrics.get("intervals")
        if intervals and any(width is not None for width in intervals["widths"]):
            sections.append(intervals_grid(self.classes, intervals, rows))
        if len(rows) > 1:
            sections.append(numbers_grid(rows))
        sections += [Scatter(row["name"], row["points"]) for row in rows if row.get("points")]
        return sections

    def question(self) -> str:
        """The numbers by name."""
        if not self.classes:
            return ""
        more = ", ..." if len(self.classes) > NAMED else ""
        number = "numbers" if self.outputs > 1 else "a number"
        return f"Tell {', '.join(self.classes[:NAMED])}{more}: {number}."

    def abilities(self, things: str) -> tuple[str, str]:
        """Which numbers, and what it cannot know."""
        what = "a number" if self.outputs == 1 else f"{self.outputs} numbers"
        ranges = ""
        if self.scale is not None:
            ends = zip(self.classes, self.scale.least, self.scale.largest, strict=True)
            ranges = f" ({', '.join(f'{name} {digits(low)} to {digits(high)}' for name, low, high in ends)})"
        return (
            f"Tells {what} of {things}: {', '.join(self.classes)}.",
            f"It knows the range of its training targets only{ranges}: what it tells beyond is a guess.",
        )

    def result(self, metrics: Mapping[str, Any]) -> tuple[str, str]:
        """Mean absolute error in a sentence; of several numbers that of each, in its own unit."""
        rows = [row for row in metrics.get("numbers") or [] if row.get("mae") is not None]
        each = ", ".join(f"{short(row['mae'])} ({row['name']})" for row in rows[:NAMED])
        if self.outputs == 1 or not each:
            return "the model is off by", "on average"
        more = ", ..." if len(rows) > NAMED else ""
        return f"the model is off by {each}{more} on average, which is", "of the targets"
