"""Several labels at once: each example has any number of them, and the model tells which.

The model's K outputs are logits, one a label, in the order of the labels' sorted names; the sigmoid of each,
divided by a temperature of its own, is the probability that an example has the label, whatever others it has.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
from scipy.special import expit

from regraft.data.answers import told
from regraft.errors import UsageError
from regraft.evaluation import (
    MEAN_PRECISION,
    SEVERAL,
    Flagged,
    Metric,
    PairedDifference,
    knn_means,
    paired_mean,
    paired_precisions,
    per_label,
)
from regraft.tasks.cutoffs import Cutoffs
from regraft.tasks.doubts import doubted
from regraft.tasks.grids import cutoffs_grid
from regraft.tasks.link import Sigmoids
from regraft.tasks.sections import PerClass, Reliability, Section, Together
from regraft.tasks.shares import strata_of_labels
from regraft.tasks.task import Answer, Held, InGraph, Known, Spoken, Suspect
from regraft.tasks.usual import Usual

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

NAMED = 6  # labels that the question names before it gives examples only
TELLING = 0.8  # area under the ROC curve of predictions that may speak against a label: others hardly tell it
RARE = 0.2  # share of examples that have a label, below which it may pay to count these more
HEAVIEST = 20.0  # times that an example with a label counts at most
CERTAIN = 1e-12  # probability that is as good as none
NONE = "none"  # what people read where an example has no label


@dataclass(frozen=True)
class Multi(Usual):
    """The task of telling which of `classes`, sorted names of labels, an example has. Targets are (N, K) float32:
    1, 0, or NaN where a label is not known. A label is said from its threshold on, of `cutoffs` in the order of
    the classes, or a row of them an example; without any, from one half on. No weighting of examples is known: a
    label's own threshold makes up for its being rare. `shares` is how frequent each label is in train and val,
    and with `positive` examples that have a label count so often in training, label by label.
    """

    classes: tuple[str, ...]
    cutoffs: tuple[float, ...] | tuple[tuple[float, ...], ...] = ()
    shares: tuple[float, ...] = ()
    positive: tuple[float, ...] = ()
    kind: str = "multi"
    hub: str = "classification"

    @property
    def noun(self) -> str:
        """A label."""
        return "label"

    @property
    def spoken(self) -> Spoken:
        """Of labels, any number of them."""
        return Spoken(fields=("labels", "probabilities"), notes=True)

    @property
    def outputs(self) -> int:
        """K: a logit a label."""
        return len(self.classes)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Mean average precision and the others, in the order they are shown in."""
        return SEVERAL

    @property
    def headline(self) -> Metric:
        """Mean average precision."""
        return MEAN_PRECISION

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        """(N, K) float32 of N labels: names between `;` or `|`, a list of names in JSON, or an object of what is
        known of each. Raises UsageError for a name that is none.
        """
        place = {name: k for k, name in enumerate(self.classes)}
        targets = np.zeros((len(labels), self.outputs), dtype=np.float32)
        strange: set[str] = set()
        for row, label in enumerate(labels):
            if label[:1] == "{":
                targets[row] = np.nan
            for name, value in told(label):
                if name in place:
                    targets[row, place[name]] = np.nan if value is None else float(bool(value))
                else:
                    strange.add(name)
        if strange:
            raise UsageError(f"no labels of this task: {', '.join(sorted(strange)[:10])}.")
        return targets

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """The sets of labels that are frequent; other examples by the rarest label they have."""
        return strata_of_labels(targets)

    def stratum(self, number: int) -> str:
        """The number alone: which labels it stands for depends on the examples."""
        return f"the group {number + 1} of examples with the same or a like set of labels"

    def named(self, label: str) -> tuple[str, ...]:
        """The names of the labels that it says an example has."""
        return tuple(name for name, value in told(label) if value)

    def shown(self, label: str) -> str:
        """The names, and those that are not known."""
        parts = told(label)
        unknown = [name for name, value in parts if value is None]
        more = f" ({', '.join(unknown)} not known)" if unknown else ""
        return ("; ".join(name for name, value in parts if value) or NONE) + more

    def differ(self, targets: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Where a label that both know is not the same."""
        both = np.isfinite(targets) & np.isfinite(others)
        return np.asarray((both & (targets != others)).any(axis=1))

    def lacking(self, labels: Sequence[str]) -> str:
        """There has to be a label, and each must be lacking somewhere."""
        if not self.classes:
            return "no example has a label"
        targets = self.encode(labels)
        everywhere = [
            name
            for k, name in enumerate(self.classes)
            if (targets[:, k] == 1).any() and not (targets[:, k] == 0).any()
        ]
        if everywhere:
            return (
                f"every training example of which it is known has {', '.join(map(repr, everywhere[:10]))}: "
                "there is nothing to tell apart; leave it out"
            )
        return ""

    @property
    def loss_name(self) -> str:
        """The log loss, summed over labels."""
        return "summed log loss"

    def fitted(self, targets: np.ndarray) -> Multi:
        """Knowing how frequent each label is."""
        return replace(self, shares=_shares(targets)) if len(targets) else self

    def settings(self) -> dict[str, Any]:
        """How often examples that have a label counted in training, where it was not once."""
        return {"positive": list(self.positive)} if self.positive else {}

    def restored(self, settings: Mapping[str, Any]) -> Multi:
        """With these weights."""
        return replace(self, positive=tuple(map(float, settings.get("positive") or ())))

    def ways(self) -> dict[str, Multi]:
        """By the log loss; where a label is rare, also with examples that have it counting so often that they
        weigh as much as the others, HEAVIEST at most, or the root of that.
        """
        plain = replace(self, positive=())
        if not self.shares or min(self.shares) >= RARE:
            return {"log loss": plain}
        odds = (1 - np.array(self.shares)) / np.array(self.shares)
        ways = {"log loss": plain}
        for name, power in (("rare labels weighed a little", 0.5), ("rare labels weighed", 1.0)):
            weights = np.clip(odds**power, 1.0, HEAVIEST)
            ways[name] = replace(self, positive=tuple(weights.tolist()))
        return ways

    def guessing(self, targets: np.ndarray) -> float:
        """K log 2, in nats, or with weights as much as no or yes costs at most."""
        return float(np.log1p(self.positive or (1.0,) * max(1, self.outputs)).sum())

    @property
    def link(self) -> Sigmoids:
        """One logistic regression a label."""
        return Sigmoids(np.array(self.positive) if self.positive else None)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(B,) sums over the known labels of the binary cross-entropy in nats, weighed as `Sigmoids` does."""
        from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

        known = targets.isfinite()
        weights = None
        if self.positive:
            weights = outputs.new_tensor(self.positive)
            outputs = outputs + weights.log()
        wanted = targets.nan_to_num(0.0).to(outputs.dtype)
        each = cross_entropy(outputs, wanted, reduction="none", pos_weight=weights)
        return (each * known).sum(dim=1)

    def losses(self, targets: np.ndarray, outputs: np.ndarray, refined: bool = False) -> np.ndarray:
        """(N,) sums of log losses in nats; `refined` are those at the best temperature from 1 up, one for all
        labels.
        """
        z = np.asarray(outputs, dtype=np.float64)
        link = Sigmoids()  # whatever weights training has, what is judged is the plain loss
        if not refined or not len(z):
            return link.losses(targets, z)
        found = scipy.optimize.minimize_scalar(
            lambda log_t: float(link.losses(targets, z / np.exp(log_t)).mean()),
            bounds=(0.0, math.log(20.0)),
            method="bounded",
        )
        tried = [link.losses(targets, z / np.exp(found.x)), link.losses(targets, z)]
        return min(tried, key=lambda losses: float(losses.mean()))

    def facts(self, targets: np.ndarray, outputs: np.ndarray) -> Flagged:
        """Targets, logits and answers, with what the metrics are made of."""
        return Flagged(targets, outputs, self.answers(outputs) > 0)

    def calibrate(self, held: Held) -> Cutoffs:
        """A temperature and a threshold a label, by the held-out examples."""
        return Cutoffs.of(self.classes, held)

    def calibration(self, saved: Mapping[str, Any]) -> Cutoffs:
        """The temperatures and thresholds that regraft.json keeps."""
        return Cutoffs.restored(self.classes, saved)

    def decided(self, calibration: Any) -> Multi:
        """Saying labels from the calibration's thresholds on."""
        return replace(self, cutoffs=calibration.thresholds)

    def decided_each(self, calibrations: Sequence[Any], of: np.ndarray) -> Multi:
        """Saying the labels of each example from the thresholds of its own calibration on."""
        rows = np.array([one.thresholds for one in calibrations])[of]
        return replace(self, cutoffs=tuple(map(tuple, rows.tolist())))

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        """(N, K) float32: 1 where the probability reaches the label's threshold, else 0."""
        cutoffs = np.array(self.cutoffs or (0.5,) * self.outputs)
        shares = expit(np.asarray(outputs, dtype=np.float64))
        return np.asarray(shares >= cutoffs, dtype=np.float32)

    def said(self, answers: np.ndarray) -> list[str]:
        """A list in JSON of the names; an object of what is known where not all are."""
        labels = []
        for row in answers:
            if np.isfinite(row).all():
                what: Any = [name for name, value in zip(self.classes, row, strict=True) if value]
            else:
                what = {
                    name: bool(value) if np.isfinite(value) else None
                    for name, value in zip(self.classes, row, strict=True)
                }
            labels.append(json.dumps(what, ensure_ascii=False))
        return labels

    def predict(self, outputs: np.ndarray) -> list[Answer]:
        """The labels of each row, with the probability of every one."""
        shares, answers = expit(np.asarray(outputs, dtype=np.float64)), []
        for row, said in zip(shares, self.answers(outputs), strict=True):
            names = tuple(name for name, value in zip(self.classes, said, strict=True) if value)
            named = {name: float(p) for name, p in zip(self.classes, row, strict=True)}
            answers.append(Answer("; ".join(names), None, named, names, note=self._unsaid()))
        return answers

    def _unsaid(self) -> str:
        """The labels that are never said, as nothing is promised of them; "" where all may be."""
        never = [name for name, at in zip(self.classes, self.cutoffs, strict=False) if at == math.inf]
        return f"not promised, so never said: {', '.join(never)}" if never else ""

    def in_graph(self, calibration: Any) -> InGraph:
        """The probabilities of the labels."""
        from regraft.tasks.graph import CalibratedSigmoid

        return InGraph(
            name="probabilities",
            names=self.classes,
            one=False,
            module=CalibratedSigmoid(calibration.temperatures),
            numbers=expit,
            outputs=_log_odds,
            said_from=tuple(calibration.thresholds),
        )

    def columns(self, outputs: np.ndarray, calibration: Any) -> dict[str, Any]:
        """`probability:LABEL` as float64 and `logit:LABEL`, not calibrated, as float32."""
        shares = expit(calibration.applied(np.asarray(outputs, dtype=np.float64)))
        columns: dict[str, Any] = {f"probability:{name}": shares[:, k] for k, name in enumerate(self.classes)}
        return columns | {
            f"logit:{name}": outputs[:, k].astype(np.float32) for k, name in enumerate(self.classes)
        }

    def outputs_in(self, table: pa.Table) -> np.ndarray:
        """(N, K) log odds of the probabilities."""
        return _log_odds(np.stack([table[f"probability:{name}"].to_numpy() for name in self.classes], axis=1))

    def probabilities(self, outputs: np.ndarray) -> np.ndarray | None:
        """(N, K) sigmoids of the outputs."""
        return np.asarray(expit(np.asarray(outputs, dtype=np.float64)))

    def suspects(self, targets: np.ndarray, outputs: np.ndarray) -> list[Suspect]:
        """Those with a label that confident learning does not believe, each label a question of its own."""
        areas = self.facts(targets, outputs).curves[0][0]
        shares, odd = expit(np.asarray(outputs, dtype=np.float64)), np.zeros(targets.shape, dtype=bool)
        for k in np.flatnonzero(np.nan_to_num(areas) >= TELLING).tolist():
            odd[:, k] = doubted(targets[:, k], shares[:, k])
        doubt = np.where(odd, np.abs(np.nan_to_num(targets) - shares), 0).max(axis=1, initial=0)
        found = []
        for row in sorted(np.flatnonzero(odd.any(axis=1)).tolist(), key=lambda row: -doubt[row]):
            turned = np.where(odd[row], 1 - targets[row], targets[row]).astype(np.float32)
            given, looks = self.said(np.stack([targets[row], turned]))
            what = [f"{self.classes[k]} {shares[row, k]:.0%}" for k in np.flatnonzero(odd[row])[:5]]
            note = f"labelled {self.shown(given)}, looks like {self.shown(looks)} ({', '.join(what)})"
            found.append(Suspect(row, looks, note))
        return found

    def guess(self, targets: np.ndarray, count: int) -> tuple[str, np.ndarray]:
        """How frequent each label is."""
        shares = np.array(_shares(targets))
        return "label frequencies", np.broadcast_to(_log_odds(shares), (count, self.outputs))

    def baselines(self, known: Known) -> dict[str, Callable[[], np.ndarray]]:
        """The nearest neighbours on frozen features."""

        def near() -> np.ndarray:
            shares, k = knn_means(known.values, known.targets, known.features(), known.tick, known.stop)
            return _log_odds((shares * k + 0.5) / (k + 1))

        return {"nearest neighbours": near}

    def versus(
        self,
        targets: np.ndarray,
        outputs: np.ndarray,
        others: np.ndarray,
        against: str,
        groups: np.ndarray | None = None,
    ) -> PairedDifference:
        """The difference in mean average precision."""
        facts, theirs = self.facts(targets, outputs), self.facts(targets, others)
        if not facts.told:
            return self.paired(targets, self.answers(outputs), self.answers(others), against, groups)
        return paired_precisions(facts, theirs, against, groups)

    def paired(
        self,
        targets: np.ndarray,
        answers: np.ndarray,
        others: np.ndarray,
        against: str,
        groups: np.ndarray | None = None,
    ) -> PairedDifference:
        """The difference in the share of an example's labels that is told right."""
        gains = self.worth(targets, answers) - self.worth(targets, others)
        return paired_mean(gains, against, groups, "%", "right labels")

    def worth(self, targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """(N,) the share of an example's known labels that is told right."""
        known = np.isfinite(targets)
        right = known & (answers == targets)
        return np.asarray(right.sum(axis=1) / np.maximum(1, known.sum(axis=1)), dtype=np.float64)

    def tables(
        self, targets: np.ndarray, outputs: np.ndarray, groups: np.ndarray | None = None
    ) -> dict[str, Any]:
        """`per_class`, and how often labels go `together`, as they are and as they are said: (K, K) counts."""
        facts = self.facts(targets, outputs)
        together = {name: (one.T @ one).astype(int).tolist() for name, one in _both(facts).items()}
        return {"per_class": per_label(facts, self.classes, groups), "together": together}

    def sections(self, metrics: Mapping[str, Any]) -> list[Section]:
        """Labels one by one, their thresholds, which go together, and reliability: those that there are."""
        sections: list[Section] = []
        rows = metrics.get("per_class") or []
        if metrics.get("cutoffs"):
            sections.append(cutoffs_grid(metrics["cutoffs"], rows))
        if (metrics.get("calibration") or {}).get("after"):
            sections.append(Reliability(metrics["calibration"]))
        if rows:
            sections.append(PerClass(rows, self.noun))
        if metrics.get("together") and len(self.classes) > 1:
            sections.append(Together(self.classes, metrics["together"]["held"], metrics["together"]["said"]))
        return sections

    def question(self) -> str:
        """The labels by name, or some of them where they are many."""
        if not self.classes:
            return ""
        if len(self.classes) > NAMED:
            return f"Tell which of {len(self.classes)} labels hold, such as {', '.join(self.classes[: NAMED - 2])}."
        return f"Tell which of these hold: {', '.join(self.classes)}."

    def abilities(self, things: str) -> tuple[str, str]:
        """How many labels there are, and that it knows no other."""
        count = f"{self.outputs} label{'s' * (self.outputs != 1)}"
        return (
            f"Tells which of {count} {things} have: none, one or several.",
            "It knows no other label: where it says none, something else may still be there.",
        )

    def result(self, metrics: Mapping[str, Any]) -> tuple[str, str]:
        """Mean average precision in a sentence."""
        return "the mean average precision is", ""


def _shares(targets: np.ndarray) -> tuple[float, ...]:
    """(K,) how frequent each label is among the examples of which it is known, none never or always."""
    known = np.isfinite(targets)
    shares = (np.where(known, targets, 0).sum(axis=0) + 1) / (known.sum(axis=0) + 2)
    return tuple(shares.tolist())


def _log_odds(shares: np.ndarray) -> np.ndarray:
    """Log odds of probabilities, none of them infinite."""
    inside = np.clip(np.asarray(shares, dtype=np.float64), CERTAIN, 1 - CERTAIN)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _both(facts: Flagged) -> dict[str, np.ndarray]:
    return {"held": facts.held, "said": facts.said}
