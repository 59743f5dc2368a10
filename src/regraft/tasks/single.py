"""Single-label classification: each example is of one class, and the model tells which.

The model's K outputs are logits, one a class, in the order of the classes' sorted names; their softmax,
divided by a temperature, gives probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from regraft.data.examples import one_class
from regraft.errors import UsageError
from regraft.evaluation import (
    METRICS,
    SHARE,
    Classified,
    Estimate,
    Metric,
    PairedDifference,
    confusion,
    effective_count,
    knn_logits,
    knn_out_of_fold,
    log_losses,
    logme,
    named,
    paired_accuracy,
    per_class,
    predicted_classes,
    refined_log_losses,
    softmax,
    wilson,
)
from regraft.tasks.doubts import doubted_classes
from regraft.tasks.imbalance import class_offset, class_weighted
from regraft.tasks.link import Softmax
from regraft.tasks.sections import Confusion, PerClass, Promises, Reliability, Section
from regraft.tasks.task import Answer, Held, InGraph, Known, Probed, Score, Suspect
from regraft.tasks.temperature import Temperature
from regraft.tasks.usual import Usual

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

IMBALANCE = 3.0  # times the smallest class: from there on it may pay to treat classes of different sizes
LARGE = 1 << 24  # probabilities up to which they are float64
NAMED = 6  # classes that the question names before it gives examples only
TINIEST = 1e-300  # probability whose logarithm is taken
PROBE, NEIGHBOURS = (
    replace(SHARE, name=name, title=title)
    for name, title in (("probe_accuracy", "Probe accuracy"), ("knn", "Nearest neighbours"))
)


@dataclass(frozen=True)
class Single(Usual):
    """The task of telling `classes` apart: sorted names. Targets are (N,) int64 positions in them."""

    classes: tuple[str, ...]
    kind: str = "single"
    hub: str = "classification"

    @property
    def outputs(self) -> int:
        """K: a logit a class."""
        return len(self.classes)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Accuracy and the others, in the order they are shown in."""
        return METRICS

    @property
    def headline(self) -> Metric:
        """Accuracy."""
        return METRICS[0]

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        """(N,) int64 positions of N names among the classes. Raises UsageError for a name that is none."""
        index = {name: place for place, name in enumerate(self.classes)}
        if strange := sorted(set(labels) - index.keys()):
            raise UsageError(f"no classes of this task: {', '.join(strange[:10])}.")
        return np.array([index[label] for label in labels], dtype=np.int64)

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """The classes themselves."""
        return np.asarray(targets, dtype=np.int64)

    def stratum(self, number: int) -> str:
        """The class by name."""
        return f"class {self.classes[number]!r}"

    def named(self, label: str) -> tuple[str, ...]:
        """The label itself."""
        return (label,)

    def lacking(self, labels: Sequence[str]) -> str:
        """Two classes are the least that can be told apart."""
        return one_class(self.classes)

    @property
    def loss_name(self) -> str:
        """The log loss."""
        return "log loss"

    def scores(self, probed: Probed) -> tuple[Score, ...]:
        """The probe's accuracy, that of the nearest neighbours, and LogME."""
        targets = probed.targets
        right = self.answers(probed.outputs) == targets[probed.rows]
        near = knn_out_of_fold(probed.values, targets, list(probed.folds)) == targets
        return (
            Score.of(PROBE, _share(right, probed.row_blocks)),
            Score.of(NEIGHBOURS, _share(near, probed.blocks)),
            Score("logme", "LogME", True, "", logme(probed.values, targets)),
        )

    @property
    def known_weightings(self) -> tuple[str, ...]:
        """None, logit adjustment, and weights of the examples."""
        return ("none", "adjusted", "balanced")

    def weightings(self, targets: np.ndarray) -> tuple[tuple[str, ...], str]:
        """All of them, where the largest class is IMBALANCE times the smallest."""
        sizes = np.bincount(targets, minlength=self.outputs)
        ratio = sizes.max() / max(1, sizes.min())
        if ratio < IMBALANCE:
            return ("none",), ""
        return self.known_weightings, f"the largest class is {ratio:.1f} times the smallest"

    def weighed_by(self, metric: Metric) -> Metric:
        """Macro F1 in place of accuracy, which small classes hardly touch."""
        return named(METRICS, "macro_f1") if metric.name == "accuracy" else metric

    def weighted(self, targets: np.ndarray, weights: np.ndarray, weighting: str) -> np.ndarray:
        """The examples' own weights, with each class counting the same where it is "balanced"."""
        return class_weighted(targets, weights, weighting == "balanced", self.outputs)

    def offset(self, targets: np.ndarray, weighting: str) -> np.ndarray | None:
        """The log shares of the classes where it is "adjusted"."""
        return class_offset(targets, weighting, self.outputs)

    def guessing(self, targets: np.ndarray) -> float:
        """The loss of guessing among the K classes, two at least: log K, in nats."""
        return math.log(max(2, self.outputs))

    @property
    def link(self) -> Softmax:
        """Multinomial logistic regression."""
        return Softmax(self.outputs)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(B,) cross-entropy in nats."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, targets, reduction="none")

    def losses(self, targets: np.ndarray, outputs: np.ndarray, refined: bool = False) -> np.ndarray:
        """(N,) log losses in nats; `refined` are those at the best temperature from 1 up."""
        return refined_log_losses(targets, outputs) if refined else log_losses(targets, outputs)

    def facts(self, targets: np.ndarray, outputs: np.ndarray) -> Classified:
        """Labels and logits, with what the metrics are made of."""
        return Classified(targets, outputs)

    def calibrate(self, held: Held) -> Temperature:
        """The temperature by the log loss of the held-out examples, and the promises that these prove."""
        return Temperature.of(held)

    def calibration(self, saved: Mapping[str, Any]) -> Temperature:
        """The temperature and the promises that regraft.json keeps."""
        return Temperature.restored(saved)

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        """(N,) int64: the class of the largest logit, the first of those that tie."""
        return predicted_classes(outputs)

    def said(self, answers: np.ndarray) -> list[str]:
        """The classes by name."""
        return [self.classes[place] for place in answers]

    def predict(self, outputs: np.ndarray) -> list[Answer]:
        """The most probable class of each row, with all probabilities."""
        answers = []
        for shares in softmax(outputs):
            best = int(shares.argmax())
            named = {name: float(p) for name, p in zip(self.classes, shares, strict=True)}
            answers.append(Answer(self.classes[best], float(shares[best]), named))
        return answers

    def in_graph(self, calibration: Temperature) -> InGraph:
        """The probabilities of the classes."""
        from regraft.tasks.graph import CalibratedSoftmax

        return InGraph(
            name="probabilities",
            names=self.classes,
            one=True,
            module=CalibratedSoftmax(calibration.temperature),
            numbers=softmax,
            outputs=lambda shares: np.log(np.maximum(shares, TINIEST)),
        )

    def columns(self, outputs: np.ndarray, calibration: Temperature) -> dict[str, Any]:
        """`probability:CLASS` as float64 and `logit:CLASS`, not calibrated, as float32."""
        shares = softmax(outputs, calibration.temperature)
        columns: dict[str, Any] = {f"probability:{name}": shares[:, i] for i, name in enumerate(self.classes)}
        return columns | {
            f"logit:{name}": outputs[:, i].astype(np.float32) for i, name in enumerate(self.classes)
        }

    def outputs_in(self, table: pa.Table) -> np.ndarray:
        """(N, K) logarithms of the probabilities."""
        shares = np.stack([table[f"probability:{name}"].to_numpy() for name in self.classes], axis=1)
        return np.asarray(np.log(np.maximum(shares, TINIEST)))

    def probabilities(self, outputs: np.ndarray) -> np.ndarray | None:
        """(N, C) softmax of the outputs, in float64 where these are not very many."""
        precise = np.float64 if outputs.size <= LARGE else np.float32
        return np.asarray(scipy.special.softmax(outputs.astype(precise), axis=1))

    def suspects(self, targets: np.ndarray, outputs: np.ndarray) -> list[Suspect]:
        """Those whose class confident learning does not believe."""
        return doubted_classes(self.classes, targets, softmax(outputs))

    def guess(self, targets: np.ndarray, count: int) -> tuple[str, np.ndarray]:
        """The log frequencies of the classes, of which the majority class is the largest."""
        return "majority class", majority_logits(targets, count, self.outputs)

    def baselines(self, known: Known) -> dict[str, Callable[[], np.ndarray]]:
        """The nearest neighbours on frozen features."""
        return {
            "nearest neighbours": lambda: knn_logits(
                known.values, known.targets, known.features(), self.outputs, known.tick, known.stop
            )[0]
        }

    def paired(
        self,
        targets: np.ndarray,
        answers: np.ndarray,
        others: np.ndarray,
        against: str,
        groups: np.ndarray | None = None,
    ) -> PairedDifference:
        """The difference in accuracy."""
        return paired_accuracy(targets, answers, others, against, groups)

    def worth(self, targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """1 for a right answer, else 0."""
        return np.asarray(answers == targets, dtype=np.float64)

    def tables(
        self, targets: np.ndarray, outputs: np.ndarray, groups: np.ndarray | None = None
    ) -> dict[str, Any]:
        """`per_class` and `confusion`."""
        counts = confusion(targets, outputs.argmax(1), self.outputs)
        return {"per_class": per_class(targets, outputs, self.classes, groups), "confusion": counts.tolist()}

    def sections(self, metrics: Mapping[str, Any]) -> list[Section]:
        """Promises, reliability, the classes one by one and the confusion matrix: those that there are."""
        counts = metrics.get("confusion")
        sections: list[Section] = []
        if metrics.get("thresholds"):
            sections.append(Promises(metrics["thresholds"]))
        if metrics.get("calibration"):
            sections.append(Reliability(metrics["calibration"]))
        if metrics.get("per_class"):
            sections.append(PerClass(metrics["per_class"]))
        if counts and len(counts) == len(self.classes):
            sections.append(Confusion(self.classes, counts))
        return sections

    def question(self) -> str:
        """The classes by name, or some of them where they are many."""
        if len(self.classes) < 2:
            return ""
        if len(self.classes) > NAMED:
            return f"Tell {len(self.classes)} classes apart, such as {', '.join(self.classes[: NAMED - 2])}."
        return f"Tell apart {', '.join(self.classes[:-1])} and {self.classes[-1]}."

    def abilities(self, things: str) -> tuple[str, str]:
        """How many classes there are, and that there is no other answer."""
        return (
            f"Sorts {things} into {self.outputs} classes.",
            f"It always answers with one of its {self.outputs} classes: "
            "there is no answer for what is none of them.",
        )

    def result(self, metrics: Mapping[str, Any]) -> tuple[str, str]:
        """Accuracy in a sentence."""
        return "the model is right", "of the time"


def _share(right: np.ndarray, blocks: np.ndarray | None) -> Estimate:
    """The share of (N,) truths, with an interval that counts blocks."""
    value, count = float(right.mean()), effective_count(right, blocks)
    return Estimate(value, *wilson(value * count, count), len(right), "Wilson, out of fold")


def majority_logits(targets: np.ndarray, count: int, classes: int) -> np.ndarray:
    """(count, classes) log frequencies of the classes in (N,) targets: the baseline that knows no picture."""
    shares = (np.bincount(targets, minlength=classes) + 1) / (len(targets) + classes)
    return np.broadcast_to(np.log(shares), (count, classes))
