"""What the words tell: alone, as a baseline, by TF-IDF of words, pairs of words and pieces of words; and beside
the network, by its tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.errors import Unreadable
from regraft.modalities.text.reading import plain, read_text
from regraft.modalities.text.sparse import solved

if TYPE_CHECKING:
    from scipy import sparse
    from torch import Tensor

    from regraft.modalities import Small
    from regraft.tasks import Task

LONGEST = 20_000  # characters of a text that are looked at
STRENGTHS = (1.0, 10.0)  # the inverse of the L2 penalty, as scikit-learn has it
TAUGHT_BY = 20_000  # texts that the baseline learns from: of more, so many are drawn
CHOSEN_ON = 1_500  # texts that choose between these, at most
# Words (with their pairs), and pieces of words, that are told apart: the commonest of each, so many, and fewer
# where there are so many answers that their weights would be more than MOST
EACH, FEWEST, MOST = 30_000, 5_000, 4_000_000
STEPS, SLOPE = 80, 1e-3  # of the solver: more of either moves no answer of a baseline to speak of
LEAST = 1e-6  # a probability, so that its logarithm is a number


@dataclass(frozen=True)
class Words:
    """TF-IDF of words and of pieces of words, with logistic regression: what a network has to beat."""

    name: str = "words alone"

    def answers(
        self,
        known: Sequence[Any],
        targets: np.ndarray,
        weights: np.ndarray,
        asked: Sequence[Any],
        outputs: int,
    ) -> np.ndarray:
        """(M, outputs) logarithms of probabilities of M items, by what N `known` ones with (N,) targets and
        weights teach; of very many, TAUGHT_BY of them.
        """
        if len(known) > TAUGHT_BY:
            some = np.sort(np.random.default_rng(0).permutation(len(known))[:TAUGHT_BY])
            known, targets, weights = [known[row] for row in some], targets[some], weights[some]
        vectors = _vectors(min(EACH, max(FEWEST, MOST // (2 * outputs))))
        x = vectors.fit_transform([_text(item) for item in known]).tocsr()
        answer = _learnt(x, targets, weights, _strength(x, targets, weights))
        found = np.full((len(asked), outputs), np.log(LEAST))
        found[:, np.unique(targets)] = answer(vectors.transform([_text(item) for item in asked]))
        return np.maximum(found, np.log(LEAST))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Beside:
    """Words beside the network (`regraft.modalities.Beside`): see `regraft.modalities.text.grams`."""

    name: str = "words"

    def learnt(
        self, raws: Sequence[np.ndarray], targets: np.ndarray, weights: np.ndarray, task: Task
    ) -> Small:
        """A linear model of the tokens of prepared texts, of pairs and of threes of them."""
        from regraft.modalities.text.grams import learnt

        return learnt(raws, targets, weights, task)

    def restored(self, state: Mapping[str, Tensor]) -> Small:
        """The one whose state was kept."""
        from regraft.modalities.text.grams import restored

        return restored(state)


def _vectors(most: int) -> Any:
    """TF-IDF of words and pairs of these, and of pieces of words, `most` of each."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    how = {"preprocessor": str, "min_df": 2, "sublinear_tf": True, "max_features": most, "dtype": np.float32}
    words = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b|[^\w\s]", ngram_range=(1, 2), **how)
    return make_union(words, TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), **how))


def _learnt(
    x: sparse.csr_matrix, targets: np.ndarray, weights: np.ndarray, strength: float
) -> Callable[[sparse.csr_matrix], np.ndarray]:
    """What gives (M, K) logarithms of probabilities of the K classes that (N,) targets name, in their order."""
    from regraft.tasks import Softmax

    classes, numbers = np.unique(targets, return_inverse=True)
    count, l2 = len(classes), 1 / (strength * float(weights.sum()))
    solution, bias = solved(x, numbers, weights, Softmax(count), count, l2, STEPS, SLOPE)

    def answer(asked: sparse.csr_matrix) -> np.ndarray:
        outputs = asked @ solution + bias
        outputs -= outputs.max(axis=1, keepdims=True)
        return np.asarray(outputs - np.log(np.exp(outputs).sum(axis=1, keepdims=True)))

    return answer


def _strength(x: sparse.csr_matrix, targets: np.ndarray, weights: np.ndarray) -> float:
    """The penalty with the least loss on a fifth that was left out."""
    order = np.random.default_rng(0).permutation(len(targets))[:CHOSEN_ON]
    held, taught = order[: len(order) // 5], order[len(order) // 5 :]
    classes = np.unique(targets[taught])
    held = held[np.isin(targets[held], classes)]
    if len(classes) < 2 or not len(held):
        return STRENGTHS[-1]
    there = np.unique(x[taught].indices)  # what none of them has learns nothing
    known, asked, truth = x[taught][:, there], x[held][:, there], np.searchsorted(classes, targets[held])
    losses = []
    for strength in STRENGTHS:
        found = _learnt(known, targets[taught], weights[taught], strength)(asked)
        losses.append(-found[np.arange(len(held)), truth].mean())
    return STRENGTHS[int(np.argmin(losses))]


def _text(item: Any) -> str:
    """A text as it is compared; nothing of one that cannot be read any more."""
    try:
        return plain(read_text(item).text[:LONGEST])
    except Unreadable:
        return ""
