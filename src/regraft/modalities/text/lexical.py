"""What the words tell: alone, as a baseline, by TF-IDF of words, pairs of words and pieces of words; and beside
the network, by its tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.errors import Unreadable
from regraft.modalities.text.reading import plain, read_text

if TYPE_CHECKING:
    from torch import Tensor

    from regraft.modalities import Small
    from regraft.tasks import Task

LONGEST = 20_000  # characters of a text that are looked at
STRENGTHS = (1.0, 10.0)  # the inverse of the L2 penalty, as scikit-learn has it
TAUGHT_BY = 20_000  # texts that the baseline learns from: of more, so many are drawn
CHOSEN_ON = 1_500  # texts that choose between these, at most
PIECES = 30_000  # pieces of words that are told apart, the commonest
STEPS, CLOSE = 80, 1e-3  # of the solver: more of either moves no answer of a baseline to speak of
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
        from sklearn.pipeline import make_union

        if len(known) > TAUGHT_BY:
            some = np.sort(np.random.default_rng(0).permutation(len(known))[:TAUGHT_BY])
            known, targets, weights = [known[row] for row in some], targets[some], weights[some]
        vectors = make_union(_words(), _pieces())
        x = vectors.fit_transform([_text(item) for item in known])
        model = _model(_strength(x, targets, weights)).fit(x, targets, sample_weight=weights)
        found = np.full((len(asked), outputs), LEAST)
        found[:, model.classes_] = model.predict_proba(vectors.transform([_text(item) for item in asked]))
        return np.log(np.maximum(found, LEAST))  # type: ignore[no-any-return]


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


def _words() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        preprocessor=str,
        token_pattern=r"(?u)\b\w+\b|[^\w\s]",
        ngram_range=(1, 2),
        min_df=2,
        sublinear_tf=True,
    )


def _pieces() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        preprocessor=str,
        analyzer="char_wb",
        ngram_range=(3, 5),
        min_df=2,
        sublinear_tf=True,
        max_features=PIECES,
    )


def _model(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=STEPS, tol=CLOSE)


def _strength(x: Any, targets: np.ndarray, weights: np.ndarray) -> float:
    """The penalty with the least loss on a fifth that was left out."""
    from sklearn.metrics import log_loss

    order = np.random.default_rng(0).permutation(len(targets))[:CHOSEN_ON]
    held, taught = order[: len(order) // 5], order[len(order) // 5 :]
    classes = np.unique(targets[taught])
    held = held[np.isin(targets[held], classes)]
    if len(classes) < 2 or not len(held):
        return STRENGTHS[-1]
    losses = []
    for strength in STRENGTHS:
        model = _model(strength).fit(x[taught], targets[taught], sample_weight=weights[taught])
        losses.append(log_loss(targets[held], model.predict_proba(x[held]), labels=model.classes_))
    return STRENGTHS[int(np.argmin(losses))]


def _text(item: Any) -> str:
    """A text as it is compared; nothing of one that cannot be read any more."""
    try:
        return plain(read_text(item).text[:LONGEST])
    except Unreadable:
        return ""
