"""Step 7: evaluate, on examples nothing has seen; or by cross-validation where there are too few to spare."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from sklearn.model_selection import RepeatedStratifiedKFold

from regraft.evaluation import Estimate, confusion, evaluate_single, in_words, paired_accuracy, per_class
from regraft.steps.context import Context
from regraft.steps.train import Features, apply_head, train_head
from regraft.training import Layers

REPEATS = 5


def estimates(labels: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    """Metrics with intervals as plain values."""
    return {name: asdict(estimate) for name, estimate in evaluate_single(labels, logits).items()}


def majority_logits(train_labels: np.ndarray, count: int, classes: int) -> np.ndarray:
    """(count, classes) log frequencies of the training classes: the baseline that knows no picture."""
    shares = (np.bincount(train_labels, minlength=classes) + 1) / (len(train_labels) + classes)
    return np.tile(np.log(shares), (count, 1))


def evaluate_test(
    labels: np.ndarray, final: np.ndarray, baselines: dict[str, np.ndarray], classes: tuple[str, ...], context: Context
) -> dict[str, Any]:
    """The one reading of test: (N,) labels, (N, K) logits of the final model and of each baseline."""
    found: dict[str, Any] = {"test": estimates(labels, final)}
    found["baselines"] = {name: estimates(labels, logits) for name, logits in baselines.items()}
    pairs = [paired_accuracy(labels, final.argmax(1), logits.argmax(1), name) for name, logits in baselines.items()]
    found["versus"] = [asdict(pair) for pair in pairs]
    found["per_class"] = per_class(labels, final, classes)
    found["confusion"] = confusion(labels, final.argmax(1), len(classes)).tolist()
    accuracy = found["test"]["accuracy"]
    context.decide(
        "evaluate", f"test accuracy {accuracy['value']:.1%} [{accuracy['low']:.1%}, {accuracy['high']:.1%}]"
        f" on {len(labels)} examples",
        "; ".join(in_words(pair) for pair in pairs),
    )  # fmt: skip
    return found


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
    from regraft.evaluation import wilson

    interval = wilson(round(share * n), n)
    low, high = (interval.low, interval.high) if isinstance(interval, Estimate) else interval
    method = f"{REPEATS} times {folds}-fold cross-validation of the head; Wilson interval for {n} examples"
    found = {"accuracy": {"value": share, "low": low, "high": high, "n": n, "method": method}}
    context.decide(
        "evaluate", f"cross-validated accuracy {share:.1%} [{low:.1%}, {high:.1%}] on {n} examples, no test",
        "fewer than 10 examples a class: too few to spare a test set",
    )  # fmt: skip
    return found
