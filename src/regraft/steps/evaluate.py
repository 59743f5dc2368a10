"""Step 7: evaluate, on examples nothing has seen; or by cross-validation where there are too few to spare."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from regraft.data.examples import Part
from regraft.errors import UsageError
from regraft.evaluation import (
    Threshold,
    all_alone,
    choose_thresholds,
    confusion,
    ece,
    effective_count,
    evaluate_single,
    fit_temperature,
    folds_of,
    holm,
    in_words,
    paired_accuracy,
    per_class,
    predicted_classes,
    reliability,
    verify,
    wilson,
)
from regraft.model import Model
from regraft.steps.context import Context
from regraft.steps.train import Features, Heads, apply_head, train_head
from regraft.training import Layers

REPEATS = 5


@dataclass(frozen=True)
class Calibration:
    """What logits are divided by (1 where nothing is known), and the confidences above which precisions can
    be promised.

    `fitted_on` names the predictions both come from, "val" or "out-of-fold".
    """

    fitted_on: str
    temperature: float
    offers: tuple[Threshold, ...]

    @property
    def indicative(self) -> bool:
        """Whether the predictions also chose the epoch and the winner: then what they promise is not proven
        by them.
        """
        return self.fitted_on == "val"

    def promising_nothing(self, why: str) -> Calibration:
        """The same without a promise: what the predictions are of was seen before, so they prove nothing."""
        return replace(
            self, offers=tuple(replace(offer, threshold=None, bound=0.0, why=why) for offer in self.offers)
        )

    @property
    def thresholds(self) -> dict[float, float]:
        """The promises that can be kept: the threshold by wanted precision."""
        return {offer.wanted: offer.threshold for offer in self.offers if offer.threshold is not None}

    def to_metrics(self, kept: Sequence[dict[str, Any] | None] = ()) -> dict[str, Any]:
        """`calibration` and `thresholds` of metrics.json; `kept` is what came of each offer on test, nothing
        without one.
        """
        offers, source = zip(self.offers, kept or [None] * len(self.offers), strict=True), self.fitted_on
        about = {"chosen_on": source, "indicative": self.indicative}
        return {
            "calibration": {"temperature": self.temperature, "fitted_on": source},
            "thresholds": [{**asdict(offer), **about, "test": found} for offer, found in offers],
        }


@dataclass(frozen=True)
class Held:
    """(N, K) logits of examples the model had not learnt from, "val" or "out-of-fold"; those of one of the
    `blocks` (N,) belong together."""

    name: str
    labels: np.ndarray
    logits: np.ndarray
    blocks: np.ndarray | None = None

    def calibration(self) -> Calibration:
        """Temperature and thresholds, by these examples alone."""
        temperature = fit_temperature(self.labels, self.logits)
        scaled = self.logits / temperature
        offers = choose_thresholds(self.labels, scaled, blocks=self.blocks) if len(self.labels) else []
        return Calibration(self.name, temperature, tuple(offers))


def out_of_fold(heads: Heads, both: Part) -> Held:
    """The out-of-fold logits of the head alone; `both` are train and val. It holds no rows where a class has
    a single block.
    """
    if heads.oof_logits is None:
        return Held("out-of-fold", both.labels[:0], np.zeros((0, 0)))
    return Held("out-of-fold", both.labels[heads.oof_rows], heads.oof_logits, both.blocks[heads.oof_rows])


@dataclass(frozen=True)
class Verdict:
    """What is told of one set of labels: (N,) labels, (N, K) logits, (N,) numbers of groups where there are
    any.
    """

    labels: np.ndarray
    logits: np.ndarray
    clusters: np.ndarray | None = None

    def estimates(self) -> dict[str, Any]:
        """Metrics with intervals as plain values."""
        return {
            name: asdict(found)
            for name, found in evaluate_single(self.labels, self.logits, self.clusters).items()
        }


def predicted(model: Model, part: Part, context: Context, say: Callable[[str], None]) -> np.ndarray:
    """(N, K) float32 logits of a part, by the very code that predicts; `say` is told where test takes longer
    than the budget.

    Raises UsageError for a file that has gone bad.
    """
    began, batch = time.monotonic(), context.recipe.run.feature_batch
    rows = np.empty((len(part), len(model.classes)), dtype=np.float32)
    for number, row in enumerate(model.rows(part.paths, context.device, batch), start=1):
        if not isinstance(row, np.ndarray):
            raise UsageError(
                f"{part.sources[number - 1]} could be read when the run began and cannot be now: {row}."
            )
        rows[number - 1] = row
        context.events.tick(label=f"predicting {part.name}", done=number, total=len(part))
        if number == 2 * batch and part.name == "test":
            needed, left = (time.monotonic() - began) / number * (len(part) - number), context.seconds_left
            if needed > left:
                say(
                    f"predicting test takes about {needed:.0f} s more and the budget leaves {max(0.0, left):.0f} s: "
                    "it is predicted in full all the same"
                )
    return rows


def majority_logits(train_labels: np.ndarray, count: int, classes: int) -> np.ndarray:
    """(count, classes) log frequencies of the training classes: the baseline that knows no picture."""
    shares = (np.bincount(train_labels, minlength=classes) + 1) / (len(train_labels) + classes)
    return np.broadcast_to(np.log(shares), (count, classes))


def evaluate_test(
    test: Verdict,
    calibration: Calibration,
    baselines: dict[str, np.ndarray],
    classes: tuple[str, ...],
    context: Context,
) -> dict[str, Any]:
    """The one reading of test: the final model's logits, not yet divided by the temperature, and (N, K) of
    each baseline.
    """
    labels, clusters = test.labels, test.clusters
    scaled = test.logits / calibration.temperature
    found: dict[str, Any] = {"test": Verdict(labels, scaled, clusters).estimates()}
    found["baselines"] = {
        name: Verdict(labels, logits, clusters).estimates() for name, logits in baselines.items()
    }
    mine = predicted_classes(scaled)
    pairs = [
        paired_accuracy(labels, mine, predicted_classes(logits), name, clusters)
        for name, logits in baselines.items()
    ]
    adjusted = holm([pair.p_value for pair in pairs])
    pairs = [replace(pair, p_adjusted=p) for pair, p in zip(pairs, adjusted, strict=True)]
    found["versus"] = [asdict(pair) for pair in pairs]
    found |= _class_by_class(Verdict(labels, scaled, clusters), classes)
    found |= calibration.to_metrics([_kept(offer, labels, scaled) for offer in calibration.offers])
    sides = {"before": test.logits, "after": scaled}
    found["calibration"] |= {
        "split": "test",
        **{side: {"ece": ece(labels, z), "bins": reliability(labels, z)} for side, z in sides.items()},
    }
    accuracy = found["test"]["accuracy"]
    context.decide(
        "evaluate",
        f"test accuracy {accuracy['value']:.1%} [{accuracy['low']:.1%}, {accuracy['high']:.1%}]"
        f" on {len(labels)} examples",
        "; ".join(in_words(pair) for pair in pairs),
    )
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


def from_folds(held: Held, temperature: float, context: Context) -> dict[str, Any]:
    """Metrics of the held-out predictions that chose fine-tuning, where there is neither val nor test."""
    found = Verdict(
        held.labels, held.logits / temperature, None if all_alone(held.blocks) else held.blocks
    ).estimates()
    for estimate in found.values():
        estimate["method"] += (
            f"; {context.recipe.finetune.folds}-fold cross-validation, which also chose to fine-tune"
        )
    accuracy = found["accuracy"]
    context.decide(
        "evaluate",
        f"cross-validated accuracy {accuracy['value']:.1%} [{accuracy['low']:.1%}, {accuracy['high']:.1%}] on "
        f"{accuracy['n']} examples, no test",
        "fewer than 10 examples a class: too few to spare a test set",
    )
    return found


def cross_validate(layers: Layers, data: Features, classes: int, context: Context) -> dict[str, Any]:
    """Repeated cross-validation of the head on frozen features, by block, stratified, its L2 chosen anew
    inside each fold.
    """
    seed = context.recipe.run.seed
    repeats = [
        folds_of(data.labels, 5, (REPEATS * seed + number) % 2**32, data.blocks) for number in range(REPEATS)
    ]
    folds = len(repeats[0])
    correct = np.zeros((REPEATS, len(data.labels)))
    quiet = Context(
        context.recipe.model_copy(deep=True), context.store, context.device, type(context.events)()
    )
    chosen = context.recipe.train.model_copy()
    splits = [(number, *fold) for number, some in enumerate(repeats) for fold in some]
    for done, (number, fit, held) in enumerate(splits, start=1):
        quiet.recipe.train = chosen.model_copy(update={"l2": "auto"} if layers.kind == "linear" else {})
        some = data.some(fit)
        logits = apply_head(
            train_head((layers,), some, len(some), classes, quiet).refitted, data.values[held]
        )
        correct[number, held] = logits.argmax(1) == data.labels[held]
        context.events.tick(label="cross-validating", done=done, total=len(splits))
    share, n = float(correct.mean()), len(data.labels)
    count = effective_count(correct.mean(axis=0), data.blocks)
    low, high = wilson(share * count, count)
    method = (
        f"{REPEATS} times {folds}-fold cross-validation of the head; Wilson interval for {count:.0f} examples"
    )
    found = {"accuracy": {"value": share, "low": low, "high": high, "n": n, "method": method}}
    context.decide(
        "evaluate",
        f"cross-validated accuracy {share:.1%} [{low:.1%}, {high:.1%}] on {n} examples, no test",
        "fewer than 10 examples a class: too few to spare a test set",
    )
    return found
