"""Leaks: labels that a shallow tree tells from what is no subject: sizes, formats, where items come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regraft.evaluation import fewest_blocks, folds_of, wilson

DEPTH = 3  # of the tree: at most eight leaves
FOLDS = 5
CLOSED = 0.5  # of the way from chance to certainty that the lower bound must have gone
FEWEST_EXAMPLES = 40  # examples below which nothing is told


@dataclass(frozen=True)
class Told:
    """Cross-validated balanced accuracy of a tree, its lower bound, chance, and the columns the tree goes
    by.
    """

    accuracy: float
    low: float
    chance: float
    by: tuple[str, ...]

    def in_words(self) -> str:
        """For a finding's message."""
        return (
            f"tells the answer right in {self.accuracy:.0%} of cases (at least {self.low:.0%}, "
            f"by chance {self.chance:.0%}): by {' and '.join(self.by)}"
        )


def told(columns: dict[str, np.ndarray], labels: np.ndarray, blocks: np.ndarray | None = None) -> Told | None:
    """What a shallow tree tells of (N,) labels from columns of (N,) numbers; None unless it is far above
    chance.

    The tree is judged on blocks (N,) that it has not seen: all examples of one patient may come from one
    device.
    """
    from sklearn.model_selection import cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    columns = {name: values for name, values in columns.items() if np.ptp(values) > 0}
    counts = np.bincount(labels)
    classes, least = int((counts > 0).sum()), fewest_blocks(labels, blocks)
    if not columns or classes < 2 or least < 2 or len(labels) < FEWEST_EXAMPLES:
        return None
    if (
        CLOSED * classes >= FOLDS * 2**DEPTH
    ):  # a tree answers a class a leaf at most: it cannot tell half of so many
        return None
    x = np.stack(list(columns.values()), axis=1)
    tree = DecisionTreeClassifier(
        max_depth=DEPTH, min_samples_leaf=5, class_weight="balanced", random_state=0
    )
    predicted = cross_val_predict(tree, x, labels, cv=folds_of(labels, FOLDS, 0, blocks))
    hits = np.bincount(labels[predicted == labels], minlength=len(counts))
    accuracy, low, _ = mean_recall(hits[counts > 0], counts[counts > 0])
    chance = 1 / classes
    if low < chance + CLOSED * (1 - chance):
        return None
    weight = dict(zip(columns, tree.fit(x, labels).feature_importances_, strict=True))
    by = tuple(name for name in sorted(columns, key=lambda name: -weight[name]) if weight[name] >= 0.2)
    return Told(accuracy, low, chance, by or (max(columns, key=lambda name: weight[name]),))


def mean_recall(hits: np.ndarray, support: np.ndarray) -> tuple[float, float, float]:
    """Balanced accuracy of (K,) right ones among (K,) examples, with a 95 % interval.

    The classes' Wilson intervals put together by the square root of summed squares (MOVER; Zou and Donner
    2008).
    """
    recall = hits / support
    low, high = np.array([wilson(int(h), int(n)) for h, n in zip(hits, support, strict=True)]).T
    value = float(recall.mean())
    down, up = (float(np.sqrt(((recall - edge) ** 2).sum()) / len(recall)) for edge in (low, high))
    return value, value - down, value + up
