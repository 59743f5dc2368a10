"""What the other rooms ask of a task. One task is one object that holds no data: names in, numbers out.

Shapes: N examples, B of a batch, K outputs of the model for each. Targets are what `encode` makes of
labels: an array of N rows. Answers are shaped like targets: what the model says, decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from regraft.evaluation import ErrorSizes, Estimate, Metric, PairedDifference, estimate_of
from regraft.tasks.link import Link
from regraft.tasks.sections import Section

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor, nn


@dataclass(frozen=True)
class Held:
    """(N, K) outputs of the model for examples it had not learnt from, and the (N, ...) targets of these.

    `name` says where they come from, "val" or "out-of-fold". Rows of one of the `blocks` (N,) are no
    independent evidence of each other; None where each is alone.
    """

    name: str
    targets: np.ndarray
    outputs: np.ndarray
    blocks: np.ndarray | None = None

    @property
    def indicative(self) -> bool:
        """Whether these examples also chose the epoch and the winner: then they prove no promise."""
        return self.name == "val"


@dataclass(frozen=True)
class Answer:
    """What the model says of one example: `label` in words, how probable it is, and every probability by
    name.

    A task without probabilities leaves these out. Of several labels at once `labels` are those that the
    example has; of numbers `values` are these by name, and `intervals` where each lies, as promised. `note` is
    what a reader has to know of this answer.
    """

    label: str
    probability: float | None
    probabilities: dict[str, float]
    labels: tuple[str, ...] | None = None
    values: dict[str, float] | None = None
    intervals: dict[str, tuple[float, float]] | None = None
    note: str = ""


@dataclass(frozen=True)
class Spoken:
    """How people speak of the answers of a task: what the data give an example, "label" or "number"; what stands
    before it, "labelled cat", "given as 17"; the fields of a `Prediction` that a program reads answers from;
    what outputs are where they are no probabilities; and whether answers may have a note.
    """

    answer: str = "label"
    given: str = "labelled"
    fields: tuple[str, ...] = ("label", "probability")
    outputs: str = "outputs"
    notes: bool = False


@dataclass(frozen=True)
class Suspect:
    """A target that predictions speak against: its `row`, the label that is rather to be expected, and why."""

    row: int
    suggested: str
    note: str


@dataclass(frozen=True)
class InGraph:
    """What an exported graph answers: M numbers an example, called `name`, one for each of `names`.

    `module` makes them of (B, K) outputs as they come from the model, `numbers` of (N, K) calibrated ones;
    `outputs` is the way back, as far as answers and losses go by it. With `one` the answer is the name of
    the largest number, and with `said_from` (M,) every name whose number reaches what stands there. `within` (M,)
    is how far the truth lies from each number at most, as promised; None where nothing is, and `sizes` (M,) times
    what by the number itself, where that is not the same everywhere. What two graphs
    differ by is told in units of `scale`, and by no more than `alike` of them may they differ in float32.
    """

    name: str
    names: tuple[str, ...]
    one: bool
    module: nn.Module
    numbers: Callable[[np.ndarray], np.ndarray]
    outputs: Callable[[np.ndarray], np.ndarray]
    said_from: tuple[float, ...] = ()
    within: tuple[float | None, ...] = ()
    sizes: tuple[ErrorSizes | None, ...] = ()
    scale: np.ndarray = field(default_factory=lambda: np.ones(1))
    alike: float = 1e-3


@dataclass(frozen=True)
class Probed:
    """Frozen features (N, D) `values` of a set with (N, ...) `targets`, and what a linear head makes of them:
    (M, K) `outputs` for the examples at (M,) `rows`, each by a head that had not seen it.

    No two `folds` (positions that are fitted, positions that are held out) part one of the `blocks` (N,).
    """

    values: np.ndarray
    targets: np.ndarray
    blocks: np.ndarray | None
    folds: Sequence[tuple[np.ndarray, np.ndarray]]
    rows: np.ndarray
    outputs: np.ndarray

    @property
    def row_blocks(self) -> np.ndarray | None:
        """(M,) the blocks of `rows`."""
        return None if self.blocks is None else self.blocks[self.rows]


@dataclass(frozen=True)
class Score:
    """How well frozen features suit a set by one measure, and what it takes to show it (see `Metric`)."""

    name: str
    title: str
    higher: bool
    unit: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0

    @classmethod
    def of(cls, metric: Metric, estimate: Estimate) -> Score:
        """The value of a metric, with its interval."""
        return cls(
            **metric.described(), value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n
        )


def headline_score(task: Task, probed: Probed) -> Score:
    """The task's headline metric of the linear head on frozen features."""
    facts = task.facts(probed.targets[probed.rows], probed.outputs)
    return Score.of(task.headline, estimate_of(task.headline, facts, probed.row_blocks))


class Calibration(Protocol):
    """What is done to outputs before they are read, found on held-out examples, and what can be promised
    then.
    """

    @property
    def fitted_on(self) -> str:
        """The name of the held-out examples."""

    def applied(self, outputs: np.ndarray) -> np.ndarray:
        """(N, K) calibrated outputs of (N, K) outputs."""

    @property
    def promises(self) -> tuple[float, ...] | None:
        """The precisions that held-out examples promise, the least first; None where the task promises none of
        its answers.
        """

    def keeping(self, precision: float) -> Calibration:
        """This calibration, by which a task says only what one of its `promises` is made of, where it can say
        less.
        """

    def promising_nothing(self, why: str) -> Calibration:
        """This calibration without a promise: its examples were seen before and prove nothing."""

    def saved(self) -> dict[str, Any]:
        """What regraft.json keeps of it, plain values; `Task.calibration` reads it back."""

    def to_metrics(self) -> dict[str, Any]:
        """Its entries of metrics.json, before test."""

    def tested(self, targets: np.ndarray, outputs: np.ndarray) -> dict[str, Any]:
        """Its entries of metrics.json with what came of it on test: (N, ...) targets, (N, K) outputs as
        they come from the model."""


class Task(Protocol):
    """One kind of question, and how answers to it are learnt from, given and judged."""

    @property
    def kind(self) -> str:
        """The name it is registered under."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of what is told apart, in the order of the outputs; () where answers are no names."""

    @property
    def outputs(self) -> int:
        """K: how many numbers the model gives for an example."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics, in the order they are shown in."""

    @property
    def headline(self) -> Metric:
        """The metric that a run is summed up by."""

    @property
    def noun(self) -> str:
        """What one of the classes is called: "class", "label", "number"."""

    @property
    def spoken(self) -> Spoken:
        """How people speak of its answers."""

    @property
    def spread(self) -> tuple[str, ...]:
        """What tables of predictions have a column for, of each class: "probability", or "value", "low" and
        "high".
        """

    @property
    def hub(self) -> str:
        """The task as model hubs name it behind the modality, such as "classification"."""

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        """(N, ...) targets of N labels as the data name them. Raises UsageError for one that is none."""

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """(N,) int64 from 0 up: what should be as frequent in every split and fold."""

    def stratum(self, number: int) -> str:
        """What an error calls one of the strata, such as "class 'cat'"."""

    def named(self, label: str) -> tuple[str, ...]:
        """The classes that a label names: one, several or none; of numbers, those that it gives."""

    def shown(self, label: str) -> str:
        """A label as people read it."""

    def differ(self, targets: np.ndarray, others: np.ndarray) -> np.ndarray:
        """(N,) whether (N, ...) targets contradict others, as those of two examples that show the same."""

    def same(self, answers: np.ndarray, others: np.ndarray) -> np.ndarray:
        """(N,) whether (N, ...) answers are the same as others, for a person who reads them."""

    def fitted(self, targets: np.ndarray) -> Task:
        """This task, knowing what it has to know of the (N, ...) targets of train and val, such as the scale of
        numbers; most tasks stay as they are.
        """

    def settings(self) -> dict[str, Any]:
        """What it knows beside its classes, plain values; `restored` reads them back."""

    def restored(self, settings: Mapping[str, Any]) -> Task:
        """This task, knowing what `settings` told."""

    def decided(self, calibration: Any) -> Task:
        """This task, answering as a calibration of its own found best, by thresholds, say; most tasks stay as
        they are.
        """

    def decided_each(self, calibrations: Sequence[Any], of: np.ndarray) -> Task:
        """The same for N examples, each of which has a calibration of its own, the one at `of` (N,): for these
        alone, in this order. Most tasks stay as they are.
        """

    def suspects(self, targets: np.ndarray, outputs: np.ndarray) -> list[Suspect]:
        """Targets that (N, K) out-of-fold outputs speak against, the surest first."""

    def lacking(self, labels: Sequence[str]) -> str:
        """Why nothing could be learnt from training examples with these labels; "" where it can. That each
        class has training examples is asked of every task that has classes.
        """

    @property
    def loss_name(self) -> str:
        """What `losses` are called inside a sentence, such as "log loss"."""

    def scores(self, probed: Probed) -> tuple[Score, ...]:
        """How well frozen features suit a set, beside the mean of `losses` that a ranking goes by: what its
        tables and its plot show, the most telling first. A task without measures of its own gives its
        headline (`headline_score`).
        """

    @property
    def known_weightings(self) -> tuple[str, ...]:
        """Every way that `train.class_weights` may name, "none" first."""

    def weightings(self, targets: np.ndarray) -> tuple[tuple[str, ...], str]:
        """What could be done about answers that some of (N, ...) targets have far more often than others,
        the simplest first, and why it is worth comparing; ("none",) and "" where there is nothing to do.
        """

    def weighed_by(self, metric: Metric) -> Metric:
        """The metric that weightings are compared by in a run that `metric` is chosen for."""

    def weighted(self, targets: np.ndarray, weights: np.ndarray, weighting: str) -> np.ndarray:
        """(N,) weights of mean 1 for training: the examples' own, with what the weighting does to them.

        An example of weight 0 counts nowhere. Raises UsageError for weights that are negative or no
        numbers.
        """

    def offset(self, targets: np.ndarray, weighting: str) -> np.ndarray | None:
        """(K,) float32 that the weighting adds to outputs in the loss of training, by the targets trained
        on.

        What was trained without it gets there by subtracting it from its outputs; None where there is none.
        """

    def guessing(self, targets: np.ndarray) -> float:
        """The mean `loss` of who knows nothing of an example, above 0: training whose loss is many times
        that has fallen apart.
        """

    @property
    def link(self) -> Link:
        """How a linear head is fitted: a convex stand-in for `loss`, or that loss itself."""

    def ways(self) -> Mapping[str, Task]:
        """This task with each of the losses that may suit it, by name, the simplest first: out-of-fold `losses`
        say which is taken. Most tasks have one.
        """

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(B,) losses of (B, K) outputs, differentiable: what training makes small."""

    def losses(self, targets: np.ndarray, outputs: np.ndarray, refined: bool = False) -> np.ndarray:
        """(N,) losses of (N, K) outputs: what every "is it better?" asks.

        `refined` are those after the best calibration on these very examples, as the model that is handed
        over is calibrated.
        """

    def facts(self, targets: np.ndarray, outputs: np.ndarray) -> Any:
        """What the metrics are computed of, for (N, K) calibrated outputs; its length is N."""

    def calibrate(self, held: Held) -> Calibration:
        """The calibration by held-out examples alone; without any, one that changes nothing."""

    def calibration(self, saved: Mapping[str, Any]) -> Calibration:
        """The calibration that `Calibration.saved` described, out of all that regraft.json holds."""

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        """(N, ...) answers, shaped like targets, of (N, K) outputs."""

    def said(self, answers: np.ndarray) -> list[str]:
        """N answers, or targets, as labels: `encode` reads them back."""

    def predict(self, outputs: np.ndarray) -> list[Answer]:
        """What N rows of (N, K) calibrated outputs say."""

    def in_graph(self, calibration: Calibration) -> InGraph:
        """What an exported graph says of the model's outputs, calibrated."""

    def columns(self, outputs: np.ndarray, calibration: Calibration) -> dict[str, Any]:
        """The columns of predictions.parquet for (N, K) outputs, beside the labels and the answers."""

    def outputs_in(self, table: pa.Table) -> np.ndarray:
        """(N, K) calibrated outputs, read back from the columns of predictions.parquet."""

    def probabilities(self, outputs: np.ndarray) -> np.ndarray | None:
        """(N, C) how probable each of the C classes is by (N, K) outputs; None where answers are no
        classes.
        """

    def guess(self, targets: np.ndarray, count: int) -> tuple[str, np.ndarray]:
        """The best answer that knows nothing of an example, by the targets of train and val: what to call
        it, and (count, K) calibrated outputs."""

    def baselines(self, known: Known) -> dict[str, Callable[[], np.ndarray]]:
        """What else the model has to beat, by name: each gives (M, K) calibrated outputs for test."""

    def paired(
        self,
        targets: np.ndarray,
        answers: np.ndarray,
        others: np.ndarray,
        against: str,
        groups: np.ndarray | None = None,
    ) -> PairedDifference:
        """How much better `answers` are than the `others`, which are those of `against`, on the same
        examples.
        """

    def versus(
        self,
        targets: np.ndarray,
        outputs: np.ndarray,
        others: np.ndarray,
        against: str,
        groups: np.ndarray | None = None,
    ) -> PairedDifference:
        """How much better (N, K) calibrated `outputs` are than the `others`, which are those of `against`, on
        the same examples, by the headline where that can be.
        """

    def worth(self, targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """(N,) float64: how good each answer is; their mean is what `paired` compares."""

    def tables(
        self, targets: np.ndarray, outputs: np.ndarray, groups: np.ndarray | None = None
    ) -> dict[str, Any]:
        """What metrics.json holds of (N, K) calibrated outputs beside the metrics, plain values."""

    def sections(self, metrics: Mapping[str, Any]) -> list[Section]:
        """What page, card and console show of metrics.json beside the metrics, in this order."""

    def question(self) -> str:
        """What the model is asked, a sentence; "" where nothing is known yet."""

    def abilities(self, things: str) -> tuple[str, str]:
        """What the model does with `things` (images, say), and what its answers cannot say; two sentences."""

    def result(self, metrics: Mapping[str, Any]) -> tuple[str, str]:
        """What stands before and after the headline's value in a sentence: ("the model is right", "of the
        time"). `metrics` are those of metrics.json.
        """


@dataclass(frozen=True)
class Known:
    """What baselines are made of: (N, D) features and (N, ...) targets of train and val, and test's
    features.

    `features()` gives the (M, D) features of the `count` M examples of test; they are computed when first
    asked for. `tick` hears how far a baseline is, `stop` says whether the time is up.
    """

    values: np.ndarray
    targets: np.ndarray
    count: int
    features: Callable[[], np.ndarray]
    tick: Callable[..., None]
    stop: Callable[[], bool]
