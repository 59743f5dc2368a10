"""Step 7: evaluate, on examples nothing has seen; or by cross-validation where there are too few to spare."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from sklearn.model_selection import RepeatedStratifiedKFold

from regraft.evaluation import (
    Threshold,
    choose_thresholds,
    confusion,
    ece,
    evaluate_single,
    fit_temperature,
    holm,
    in_words,
    paired_accuracy,
    per_class,
    reliability,
    verify,
    wilson,
)  # fmt: skip
from regraft.steps.context import Context
from regraft.steps.train import Features, apply_head, train_head
from regraft.training import Layers

REPEATS = 5


@dataclass(frozen=True)
class Held:
    """(N, K) logits of examples the model had not learnt from, "val" or "out-of-fold": temperature and thresholds come from
    them."""

    name: str
    labels: np.ndarray
    logits: np.ndarray

    @property
    def temperature(self) -> float:
        """What logits are divided by; 1 where there is nothing to find it by."""
        return fit_temperature(self.labels, self.logits)

    def offers(self, temperature: float) -> list[Threshold]:
        """Confidences above which the wanted precisions can be promised."""
        return choose_thresholds(self.labels, self.logits / temperature) if len(self.labels) else []


@dataclass(frozen=True)
class Verdict:
    """What is told of one set of labels: (N,) labels, (N, K) logits, (N,) numbers of groups where there are any."""

    labels: np.ndarray
    logits: np.ndarray
    clusters: np.ndarray | None = None

    def estimates(self) -> dict[str, Any]:
        """Metrics with intervals as plain values."""
        return {name: asdict(found) for name, found in evaluate_single(self.labels, self.logits, self.clusters).items()}


def majority_logits(train_labels: np.ndarray, count: int, classes: int) -> np.ndarray:
    """(count, classes) log frequencies of the training classes: the baseline that knows no picture."""
    shares = (np.bincount(train_labels, minlength=classes) + 1) / (len(train_labels) + classes)
    return np.tile(np.log(shares), (count, 1))


def evaluate_test(
    test: Verdict, temperature: float, held: Held, baselines: dict[str, np.ndarray], classes: tuple[str, ...], context: Context
) -> dict[str, Any]:
    """The one reading of test: the final model's logits, not yet divided by the temperature, and (N, K) of each baseline."""
    labels, clusters = test.labels, test.clusters
    scaled = test.logits / temperature
    found: dict[str, Any] = {"test": Verdict(labels, scaled, clusters).estimates()}
    found["baselines"] = {name: Verdict(labels, logits, clusters).estimates() for name, logits in baselines.items()}
    pairs = [
        paired_accuracy(labels, scaled.argmax(1), logits.argmax(1), name, clusters) for name, logits in baselines.items()
    ]
    adjusted = holm([pair.p_value for pair in pairs])
    pairs = [replace(pair, p_adjusted=p) for pair, p in zip(pairs, adjusted, strict=True)]
    found["versus"] = [asdict(pair) for pair in pairs]
    found |= _class_by_class(Verdict(labels, scaled, clusters), classes)
    sides = {"before": test.logits, "after": scaled}
    found["calibration"] = {
        "split": "test", "temperature": temperature, "fitted_on": held.name,
        **{side: {"ece": ece(labels, z), "bins": reliability(labels, z)} for side, z in sides.items()},
    }  # fmt: skip
    found["thresholds"] = [
        {**asdict(offer), "chosen_on": held.name, "test": _kept(offer, labels, scaled)} for offer in held.offers(temperature)
    ]
    accuracy = found["test"]["accuracy"]
    context.decide(
        "evaluate", f"test accuracy {accuracy['value']:.1%} [{accuracy['low']:.1%}, {accuracy['high']:.1%}]"
        f" on {len(labels)} examples",
        "; ".join(in_words(pair) for pair in pairs),
    )  # fmt: skip
    return found


def _class_by_class(verdict: Verdict, classes: tuple[str, ...]) -> dict[str, Any]:
    clusters = verdict.clusters
    found: dict[str, Any] = {
        "per_class": per_class(verdict.labels, verdict.logits, classes, clusters),
        "confusion": confusion(verdict.labels, verdict.logits.argmax(1), len(classes)).tolist(),
    }
    return found if clusters is None else {**found, "groups": len(np.unique(clusters))}


def _kept(offer: Threshold, labels: np.ndarray, scaled: np.ndarray) -> dict[str, Any] | None:
    """What came of an offered threshold on test."""
    if offer.threshold is None:
        return None
    answered, precision = verify(offer.threshold, labels, scaled)
    return {"answered": asdict(answered), "precision": asdict(precision)}


def evaluate_folds(
    labels: np.ndarray, logits: np.ndarray, classes: tuple[str, ...], clusters: np.ndarray | None, folds: int
) -> dict[str, Any]:
    """Metrics of (N, K) logits, each row by a walk that did not see it."""
    verdict = Verdict(labels, logits, clusters)
    found = verdict.estimates()
    for estimate in found.values():
        estimate["method"] += f"; {folds}-fold cross-validation of the whole walk"
    return {"cv": found, **_class_by_class(verdict, classes)}


def cross_validate(layers: Layers, data: Features, classes: int, context: Context) -> dict[str, Any]:
    """Repeated stratified cross-validation of the head on frozen features, its L2 chosen anew inside each fold."""
    least = int(np.bincount(data.labels, minlength=classes).min())
    folds = max(2, min(5, least))
    splitter = RepeatedStratifiedKFold(n_splits=folds, n_repeats=REPEATS, random_state=context.recipe.run.seed)
    correct = np.zeros((REPEATS, len(data.labels)))
    quiet = Context(context.recipe.model_copy(deep=True), context.store, context.device, type(context.events)())
    chosen = context.recipe.train.model_copy()
    splits = list(splitter.split(data.values, data.labels))
    for number, (fit, held) in enumerate(splits):
        quiet.recipe.train = chosen.model_copy(update={"l2": "auto"} if layers.kind == "linear" else {})
        some = Features(data.values[fit], data.labels[fit], data.weights[fit])
        logits = apply_head(train_head((layers,), some, len(some), classes, quiet).refitted, data.values[held])
        correct[number // folds, held] = logits.argmax(1) == data.labels[held]
        context.events.tick(label="cross-validating", done=number + 1, total=len(splits))
    share, n = float(correct.mean()), len(data.labels)
    low, high = wilson(round(share * n), n)
    method = f"{REPEATS} times {folds}-fold cross-validation of the head; Wilson interval for {n} examples"
    found = {"accuracy": {"value": share, "low": low, "high": high, "n": n, "method": method}}
    context.decide(
        "evaluate", f"cross-validated accuracy {share:.1%} [{low:.1%}, {high:.1%}] on {n} examples, no test",
        "fewer than 10 examples a class: too few to spare a test set",
    )  # fmt: skip
    return found
