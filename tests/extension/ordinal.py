"""A task that only tests know: classes in an order, of which the model tells how far along an example is.

Its K = C - 1 outputs are log odds, of lying beyond the first class, beyond the second, and so on (Frank and
Hall 2001).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.evaluation import (
    Metric,
    PairedDifference,
    bootstrapped,
    knn_logits,
    mean_of,
    paired_accuracy,
    softmax,
)
from regraft.tasks import Answer, Grid, Held, InGraph, Known, Probed, Score, Section, Usual, headline_score


class Ranked:
    """(N,) places of what is asked and of what is said."""

    def __init__(self, targets: np.ndarray, answers: np.ndarray) -> None:
        self.targets, self.answers = targets, answers

    def __len__(self) -> int:
        return len(self.targets)


def off(facts: Ranked) -> np.ndarray:
    """(N,) how many places each answer is off."""
    return np.abs(facts.targets - facts.answers).astype(np.float64)


STEPS_OFF = Metric(
    "steps_off", "Steps off", bootstrapped, mean_of(off), higher=False, unit="steps", main=True
)
NEAR = Metric(
    "near", "At most one off", bootstrapped, mean_of(lambda facts: 1.0 * (off(facts) < 2)), unit="%"
)


def beyond(targets: np.ndarray, outputs: int) -> np.ndarray:
    """(N, K) 1 where a target lies beyond a class, else 0."""
    return (targets[:, None] > np.arange(outputs)).astype(np.float32)


def log_odds(shares: np.ndarray) -> np.ndarray:
    """(N, K) outputs that say (N, C) probabilities of the classes."""
    further = np.clip(1 - shares.cumsum(axis=1)[:, :-1], 1e-6, 1 - 1e-6)
    return np.asarray(np.log(further / (1 - further)))


@dataclass(frozen=True)
class Sigmoids:
    """The link: K logistic regressions side by side, each of a question whose answer is yes or no."""

    outputs: int
    curvature: float = 0.25

    def tensor(self, targets: np.ndarray) -> Tensor:
        return torch.from_numpy(beyond(targets, self.outputs))

    def slope(self, outputs: Tensor, targets: Tensor, shares: Tensor) -> tuple[float, Tensor]:
        wanted, share = targets[:, None, :].expand_as(outputs), shares[:, :, None]
        losses = F.binary_cross_entropy_with_logits(outputs, wanted, reduction="none")
        return float((share * losses).double().sum()), share * (outputs.sigmoid() - wanted)

    def losses(self, targets: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        signs = 1 - 2 * beyond(targets, self.outputs)
        return np.asarray(np.logaddexp(0, signs * outputs).sum(axis=1))


@dataclass(frozen=True)
class Unchanged:
    """Outputs stay as they are, and nothing is promised."""

    fitted_on: str = ""

    def applied(self, outputs: np.ndarray) -> np.ndarray:
        return outputs

    def promising_nothing(self, why: str) -> Unchanged:
        return self

    def saved(self) -> dict[str, Any]:
        return {}

    def to_metrics(self) -> dict[str, Any]:
        return {}

    def tested(self, targets: np.ndarray, outputs: np.ndarray) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Ordinal(Usual):
    """Classes in the order of their names. Targets are (N,) int64 places."""

    classes: tuple[str, ...]
    kind: str = "ordinal"
    hub: str = "classification"
    loss_name: str = "ordinal loss"
    known_weightings: tuple[str, ...] = ("none",)
    metrics: tuple[Metric, ...] = (STEPS_OFF, NEAR)
    headline: Metric = STEPS_OFF

    @property
    def outputs(self) -> int:
        return len(self.classes) - 1

    @property
    def link(self) -> Sigmoids:
        return Sigmoids(self.outputs)

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        return np.array([self.classes.index(label) for label in labels], dtype=np.int64)

    def strata(self, targets: np.ndarray) -> np.ndarray:
        return targets

    def stratum(self, number: int) -> str:
        return f"place {self.classes[number]!r}"

    def named(self, label: str) -> tuple[str, ...]:
        return (label,)

    def lacking(self, labels: Sequence[str]) -> str:
        return "" if len(self.classes) > 1 else "an order needs two places"

    def scores(self, probed: Probed) -> tuple[Score, ...]:
        return (headline_score(self, probed),)

    def weightings(self, targets: np.ndarray) -> tuple[tuple[str, ...], str]:
        return ("none",), ""

    def weighed_by(self, metric: Metric) -> Metric:
        return metric

    def weighted(self, targets: np.ndarray, weights: np.ndarray, weighting: str) -> np.ndarray:
        return np.asarray(weights / (weights.mean() or 1.0)) if len(weights) else weights

    def offset(self, targets: np.ndarray, weighting: str) -> None:
        return None

    def guessing(self, targets: np.ndarray) -> float:
        return float(self.outputs * np.log(2))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        wanted = (targets[:, None] > torch.arange(self.outputs, device=targets.device)).to(outputs.dtype)
        return F.binary_cross_entropy_with_logits(outputs, wanted, reduction="none").sum(dim=1)

    def losses(self, targets: np.ndarray, outputs: np.ndarray, refined: bool = False) -> np.ndarray:
        return self.link.losses(targets, outputs.astype(np.float64))

    def facts(self, targets: np.ndarray, outputs: np.ndarray) -> Ranked:
        return Ranked(targets, self.answers(outputs))

    def calibrate(self, held: Held) -> Unchanged:
        return Unchanged(held.name)

    def calibration(self, saved: Mapping[str, Any]) -> Unchanged:
        return Unchanged()

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        return np.asarray((outputs > 0).sum(axis=1), dtype=np.int64)

    def said(self, answers: np.ndarray) -> list[str]:
        return [self.classes[place] for place in answers]

    def predict(self, outputs: np.ndarray) -> list[Answer]:
        return [Answer(name, None, {}) for name in self.said(self.answers(outputs))]

    def in_graph(self, calibration: Unchanged) -> InGraph:
        return InGraph("log_odds", self.classes[:-1], False, torch.nn.Identity(), np.asarray, np.asarray)

    def columns(self, outputs: np.ndarray, calibration: Unchanged) -> dict[str, Any]:
        return {
            f"beyond:{name}": outputs[:, k].astype(np.float64) for k, name in enumerate(self.classes[:-1])
        }

    def outputs_in(self, table: pa.Table) -> np.ndarray:
        return np.stack([table[f"beyond:{name}"].to_numpy() for name in self.classes[:-1]], axis=1)

    def probabilities(self, outputs: np.ndarray) -> None:
        return None

    def guess(self, targets: np.ndarray, count: int) -> tuple[str, np.ndarray]:
        shares = np.bincount(targets, minlength=len(self.classes)) / len(targets)
        return "the middle", np.repeat(log_odds(shares[None]), count, axis=0)

    def baselines(self, known: Known) -> dict[str, Callable[[], np.ndarray]]:
        def near() -> np.ndarray:
            classes = len(self.classes)
            found, _ = knn_logits(
                known.values, known.targets, known.features(), classes, known.tick, known.stop
            )
            return log_odds(softmax(found))

        return {"nearest neighbours": near}

    def paired(
        self,
        targets: np.ndarray,
        answers: np.ndarray,
        others: np.ndarray,
        against: str,
        groups: np.ndarray | None = None,
    ) -> PairedDifference:
        return paired_accuracy(targets, answers, others, against, groups)

    def worth(self, targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
        return -off(Ranked(targets, answers))

    def tables(
        self, targets: np.ndarray, outputs: np.ndarray, groups: np.ndarray | None = None
    ) -> dict[str, Any]:
        steps = off(Ranked(targets, self.answers(outputs))).astype(int)
        return {"by_steps": np.bincount(steps, minlength=len(self.classes)).tolist()}

    def sections(self, metrics: Mapping[str, Any]) -> list[Section]:
        rows = [(str(k), str(n)) for k, n in enumerate(metrics.get("by_steps") or [])]
        return [Grid("How far off", ("Steps", "Examples"), rows, "None off is right.")]

    def question(self) -> str:
        return f"Tell how far along {self.classes[0]} to {self.classes[-1]}." if self.classes else ""

    def abilities(self, things: str) -> tuple[str, str]:
        return f"Puts {things} in order.", "It knows no half steps."

    def result(self, metrics: Mapping[str, Any]) -> tuple[str, str]:
        return "the model is", "off on average"
