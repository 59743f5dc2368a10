"""The metrics against scikit-learn's, their intervals against scipy's and against repetition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from sklearn import metrics as reference

from regraft.errors import UsageError
from regraft.evaluation import (
    METRICS,
    Estimate,
    confusion,
    evaluate_single,
    log_losses,
    per_class,
    refined_log_losses,
    score,
    wilson,
)


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and logits (N, K), some classes often absent."""
    n, k, seed = draw(st.integers(1, 60)), draw(st.integers(2, 7)), draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, draw(st.integers(1, k)), n)
    return labels, rng.normal(size=(n, k)) * 2 + draw(st.floats(0, 4)) * np.eye(k)[labels]


@given(scored())
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_values_are_those_of_scikit_learn(data: tuple[np.ndarray, np.ndarray]) -> None:
    labels, logits = data
    k, predicted = logits.shape[1], logits.argmax(1)
    found = evaluate_single(labels, logits, resamples=50)
    assert tuple(found) == METRICS
    expected = {
        "accuracy": reference.accuracy_score(labels, predicted),
        "balanced_accuracy": np.mean([np.mean(predicted[labels == c] == c) for c in np.unique(labels)]),
        "macro_f1": reference.f1_score(labels, predicted, average="macro"),
        "log_loss": reference.log_loss(labels, special.softmax(logits, axis=1), labels=range(k)),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-9)
        assert score(labels, logits, name) == pytest.approx(-value if name == "log_loss" else value, abs=1e-9)
        assert found[name].low <= found[name].high
        assert found[name].n == len(labels)
    if len(np.unique(labels)) > 1:
        assert found["balanced_accuracy"].value == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert (confusion(labels, predicted, k) == reference.confusion_matrix(labels, predicted, labels=range(k))).all()


@given(scored())
@settings(max_examples=40, deadline=None)
def test_rows_a_class_are_those_of_scikit_learn(data: tuple[np.ndarray, np.ndarray]) -> None:
    labels, logits = data
    k = logits.shape[1]
    rows = per_class(labels, logits, tuple("abcdefg"[:k]))
    table = reference.precision_recall_fscore_support(labels, logits.argmax(1), labels=range(k), zero_division=np.nan)
    for row, precision, recall, f1, support in zip(rows, *table, strict=True):
        assert row["support"] == support
        for name, value in (("precision", precision), ("recall", recall), ("f1", f1)):
            assert (row[name] is None) == bool(np.isnan(value))
            if row[name] is not None:
                assert row[name] == pytest.approx(value)
        if row["recall"] is not None:
            assert row["recall_low"] <= row["recall"] <= row["recall_high"]


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(pair: tuple[int, int]) -> None:
    successes, n = pair
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_log_losses_stay_finite_for_huge_logits() -> None:
    losses = log_losses(np.array([0, 1]), np.array([[1e4, -1e4], [1e4, -1e4]]))
    assert losses == pytest.approx([0.0, 2e4])


def test_perfect_predictions_keep_an_interval_with_width() -> None:
    labels = np.arange(40) % 4
    found = evaluate_single(labels, 9.0 * np.eye(4)[labels])
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert found[name].value == found[name].high == 1.0
        assert found[name].low < 0.95


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(3)
    labels, logits = rng.integers(0, 3, 80), rng.normal(size=(80, 3))
    assert evaluate_single(labels, logits, seed=5) == evaluate_single(labels, logits, seed=5)
    assert evaluate_single(labels, logits, seed=5) != evaluate_single(labels, logits, seed=6)


@pytest.mark.parametrize("metric", METRICS)
def test_intervals_cover_the_truth_about_as_often_as_they_say(metric: str) -> None:
    rng = np.random.default_rng(11)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(n) % 4
        return labels, rng.normal(size=(n, 4)) + 1.5 * np.eye(4)[labels]

    truth = abs(score(*sample(200_000), metric))
    rounds = [evaluate_single(*sample(200), seed=i, resamples=400)[metric] for i in range(200)]
    covered = np.mean([e.low <= truth <= e.high for e in rounds])
    assert 0.88 <= covered <= 0.995


def test_faults_are_named() -> None:
    with pytest.raises(UsageError, match="no examples"):
        evaluate_single(np.zeros(0, int), np.zeros((0, 3)))
    with pytest.raises(UsageError, match=r"0\.\.2"):
        evaluate_single(np.array([3]), np.zeros((1, 3)))
    with pytest.raises(UsageError, match="not finite"):
        score(np.array([0]), np.array([[np.nan, 0.0]]), "accuracy")
    with pytest.raises(UsageError, match="macro_f1"):
        score(np.array([0]), np.zeros((1, 2)), "auc")
    with pytest.raises(UsageError, match="2 classes"):
        per_class(np.array([0]), np.zeros((1, 3)), ("a", "b"))
    with pytest.raises(UsageError, match="lie in"):
        confusion(np.array([0]), np.array([2]), 2)


def test_an_estimate_survives_its_dictionary() -> None:
    estimate = Estimate(0.5, 0.4, 0.6, 10, "Wilson")
    assert Estimate.from_dict(estimate.to_dict()) == estimate
    assert math.isnan(Estimate.from_dict({**estimate.to_dict(), "low": None}).low)


def test_the_refined_log_loss_sees_confidence_neither_as_merit_nor_as_fault() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    logits = rng.normal(size=(200, 3)) + 2 * np.eye(3)[labels]
    refined = refined_log_losses(labels, logits).mean()
    assert refined <= log_losses(labels, logits).mean()
    assert refined_log_losses(labels, 7 * logits) == pytest.approx(refined_log_losses(labels, 3 * logits), rel=1e-3)
    assert log_losses(labels, 30 * logits).mean() > 2 * refined  # overconfident: the plain loss calls it far worse
    right = 5 * np.eye(3)[labels]
    assert refined_log_losses(labels, right).mean() == pytest.approx(log_losses(labels, right).mean())  # no better than it is
