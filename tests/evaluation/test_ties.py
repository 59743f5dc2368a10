"""Equal scores: a rank is shared, an answer is the first class, and no number depends on the order of the
examples.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn import metrics as reference

from regraft.evaluation import (
    choose_thresholds,
    confusion,
    ece,
    evaluate_single,
    knn_logits,
    paired_accuracy,
    per_class,
    reliability,
    score,
    verify,
)
from regraft.tasks.single import majority_logits


@st.composite
def tied(draw: st.DrawFn, k: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Labels and logits of a few levels, several rows being equal throughout."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n, kinds = draw(st.integers(2, 60)), draw(st.integers(1, 6))
    rows = rng.integers(0, draw(st.integers(1, 4)), (kinds, k)).astype(float)
    return rng.integers(0, k, n), rows[rng.integers(0, kinds, n)]


@given(st.integers(6, 120), st.integers(1, 40), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_equal_scores_are_worth_their_chance(k: int, n: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, k, n)
    found = evaluate_single(labels, np.zeros((n, k)), resamples=20)
    assert found["top5_accuracy"].value == pytest.approx(5 / k)
    assert found["top5_accuracy"].low <= found["top5_accuracy"].value <= found["top5_accuracy"].high
    assert found["accuracy"].value == (labels == 0).mean()  # what `predict` answers: the first class
    if "roc_auc" in found:
        prevalence = np.bincount(labels)[np.unique(labels)] / n
        assert found["roc_auc"].value == pytest.approx(0.5)
        assert found["average_precision"].value == pytest.approx(prevalence.mean())
    distinct = np.random.default_rng(seed).permutation(n * k).reshape(n, k).astype(float)
    expected = reference.top_k_accuracy_score(labels, distinct, k=5, labels=range(k))
    assert evaluate_single(labels, distinct, resamples=20)["top5_accuracy"].value == pytest.approx(expected)


@given(tied(6))
@settings(max_examples=10, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_top5_is_the_mean_over_all_ways_to_break_ties(data: tuple[np.ndarray, np.ndarray]) -> None:
    labels, logits = data
    ways = []
    for order in permutations(range(6)):
        broken = logits + 1e-3 * np.array(order)
        ways.append(((broken > broken[np.arange(len(labels)), labels][:, None]).sum(axis=1) < 5).mean())
    assert evaluate_single(labels, logits, resamples=20)["top5_accuracy"].value == pytest.approx(
        np.mean(ways)
    )


@given(tied())
@settings(max_examples=40, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_ranks_that_tie_count_as_in_scikit_learn(data: tuple[np.ndarray, np.ndarray]) -> None:
    labels, logits = data
    found, shares, predicted = (
        evaluate_single(labels, logits, resamples=20),
        special.softmax(logits, axis=1),
        logits.argmax(1),
    )
    if len(np.unique(labels)) > 1:
        pairs = [((labels == c).astype(int), shares[:, c]) for c in np.unique(labels)]
        assert found["roc_auc"].value == pytest.approx(
            np.mean([reference.roc_auc_score(*pair) for pair in pairs])
        )
        expected = np.mean([reference.average_precision_score(*pair) for pair in pairs])
        assert found["average_precision"].value == pytest.approx(expected)
    assert found["accuracy"].value == score(labels, logits, "accuracy") == (predicted == labels).mean()
    assert found["macro_f1"].value == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    assert np.trace(confusion(labels, predicted, 7)) == (predicted == labels).sum()
    paired = paired_accuracy(labels, predicted, np.zeros(len(labels), int), "the first class")
    assert paired.difference == pytest.approx(found["accuracy"].value - (labels == 0).mean())
    assert [row["support"] for row in per_class(labels, logits, tuple("abcdefg"))] == np.bincount(
        labels, minlength=7
    ).tolist()


@given(tied(), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_no_value_depends_on_the_order_of_the_examples(
    data: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    labels, logits = data
    order = np.random.default_rng(seed).permutation(len(labels))
    one, other = (
        {
            name: found.value
            for name, found in evaluate_single(labels[some], logits[some], resamples=20).items()
        }
        for some in (slice(None), order)
    )
    assert one == pytest.approx(other)
    assert [tuple(row.values()) for row in reliability(labels, logits)] == [
        pytest.approx(tuple(row.values())) for row in reliability(labels[order], logits[order])
    ]


def test_equal_confidences_are_one_bin_and_lie_on_one_side_of_a_threshold() -> None:
    labels = np.repeat(np.arange(4), 50)  # sorted by class: bins of fifty would be all right or all wrong
    logits = np.tile([2.0, 1.0, 0.0, 0.0], (200, 1))
    assert len(reliability(labels, logits)) == 1
    confidence = special.softmax(logits[0]).max()
    assert ece(labels, logits) == pytest.approx(abs(confidence - 0.25))
    rng = np.random.default_rng(0)
    sure = rng.integers(0, 3, 300)
    labels = np.where(rng.random(300) < np.array([0.6, 0.9, 0.999])[sure], 0, 1)
    logits = np.zeros((300, 2))
    logits[:, 0] = np.array([0.5, 2.0, 7.0])[sure]
    shares = {float((sure >= level).mean()) for level in range(3)}
    for offer in choose_thresholds(labels, logits):
        assert min(abs(offer.answered - share) for share in shares) < 1e-12
        if offer.threshold is not None:
            assert verify(offer.threshold, labels, logits)[0].value == pytest.approx(offer.answered)


def test_baselines_that_know_nothing_reach_no_top_five() -> None:
    """A hundred classes of noise: both baselines scored 1.000 where a tie was a hit."""
    rng = np.random.default_rng(0)
    labels, truth = np.arange(1_000) % 100, np.arange(500) % 100
    features, queries = rng.normal(size=(1_000, 16)), rng.normal(size=(500, 16))
    neighbours, _ = knn_logits(features, labels, queries, 100)
    for logits in (majority_logits(labels, 500, 100), neighbours):
        found = evaluate_single(truth, logits, resamples=20)["top5_accuracy"]
        assert found.value == pytest.approx(0.05, abs=0.02)
        assert found.low < found.value < found.high
