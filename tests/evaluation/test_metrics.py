"""The metrics against scikit-learn's, their intervals against scipy's and against repetition."""

from __future__ import annotations

import math
import tracemalloc

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
    choose_thresholds,
    confusion,
    evaluate_single,
    fit_temperature,
    log_losses,
    per_class,
    refined_log_losses,
    score,
    scores,  # the weighted metrics themselves
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
    assert [metric.name for metric in METRICS if metric.name in found] == list(found)
    assert {
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "weighted_f1",
        "log_loss",
        "brier",
        "mcc",
        "ece",
    } <= set(found)
    assert ("top5_accuracy" in found) == (k > 5)
    shares = special.softmax(logits, axis=1)
    expected = {
        "weighted_f1": reference.f1_score(labels, predicted, average="weighted"),
        "brier": ((shares - np.eye(k)[labels]) ** 2).sum(1).mean(),
        "mcc": reference.matthews_corrcoef(labels, predicted),
        "accuracy": reference.accuracy_score(labels, predicted),
        "balanced_accuracy": np.mean([np.mean(predicted[labels == c] == c) for c in np.unique(labels)]),
        "macro_f1": reference.f1_score(labels, predicted, average="macro"),
        "log_loss": reference.log_loss(labels, special.softmax(logits, axis=1), labels=range(k)),
    }
    if k > 5:
        expected["top5_accuracy"] = reference.top_k_accuracy_score(labels, shares, k=5, labels=range(k))
    if "kappa" in found:
        expected["kappa"] = reference.cohen_kappa_score(labels, predicted)
    present = np.unique(labels)
    if len(present) > 1:
        pairs = [((labels == c).astype(int), shares[:, c]) for c in present]
        expected["roc_auc"] = np.mean([reference.roc_auc_score(own, given) for own, given in pairs])
        expected["average_precision"] = np.mean(
            [reference.average_precision_score(own, given) for own, given in pairs]
        )
    else:
        assert not {"roc_auc", "average_precision"} & set(found)
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-9), name
        assert found[name].low <= found[name].high
        assert found[name].n == len(labels)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss"):
        assert score(labels, logits, name) == pytest.approx(
            -expected[name] if name == "log_loss" else expected[name], abs=1e-9
        )
    if len(np.unique(labels)) > 1:
        assert found["balanced_accuracy"].value == pytest.approx(
            reference.balanced_accuracy_score(labels, predicted)
        )
    assert (
        confusion(labels, predicted, k) == reference.confusion_matrix(labels, predicted, labels=range(k))
    ).all()


@given(scored())
@settings(max_examples=40, deadline=None)
def test_rows_a_class_are_those_of_scikit_learn(data: tuple[np.ndarray, np.ndarray]) -> None:
    labels, logits = data
    k = logits.shape[1]
    rows = per_class(labels, logits, tuple("abcdefg"[:k]))
    table = reference.precision_recall_fscore_support(
        labels, logits.argmax(1), labels=range(k), zero_division=np.nan
    )
    for row, precision, recall, f1, support in zip(rows, *table, strict=True):
        assert row["support"] == support
        for name, value in (("precision", precision), ("recall", recall), ("f1", f1)):
            assert (row[name] is None) == bool(np.isnan(value))
            if row[name] is not None:
                assert row[name] == pytest.approx(value)
                assert row[f"{name}_low"] - 1e-12 <= row[name] <= row[f"{name}_high"] + 1e-12


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(deadline=None)
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


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(11)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(n) % 4
        return labels, rng.normal(size=(n, 4)) + 1.5 * np.eye(4)[labels]

    truth = {name: e.value for name, e in evaluate_single(*sample(100_000), resamples=2).items()}
    rounds = [evaluate_single(*sample(200), seed=i, resamples=400) for i in range(150)]
    for name in set(truth) - {"ece"}:
        covered = np.mean([e[name].low <= truth[name] <= e[name].high for e in rounds])
        assert 0.87 <= covered <= 0.995, name


@given(scored(), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_weights_count_as_in_scikit_learn(data: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    labels, logits = data
    k, predicted = logits.shape[1], logits.argmax(1)
    weights = np.random.default_rng(seed).integers(0, 4, (1, len(labels))).astype(float)
    if weights.sum() == 0:
        weights[:] = 1
    counted, w = scores.counts(weights, labels, predicted, k), weights[0]
    assert scores.accuracy(counted)[0] == pytest.approx(
        reference.accuracy_score(labels, predicted, sample_weight=w)
    )
    assert scores.mcc(counted)[0] == pytest.approx(
        reference.matthews_corrcoef(labels, predicted, sample_weight=w)
    )
    assert scores.weighted_f1(counted)[0] == pytest.approx(
        reference.f1_score(labels, predicted, average="weighted", sample_weight=w)
    )


@given(scored(), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_influences_are_the_derivatives_in_the_weights(
    data: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    labels, shares = data[0], np.round(special.softmax(data[1], axis=1), 1)  # with ties
    present = np.unique(labels)
    values, influences = scores.curves(labels, shares)
    if len(present) < 2:
        assert np.isnan(values).all()
        return
    one = np.random.default_rng(seed).integers(len(labels))

    def at(weight: float) -> np.ndarray:
        w = np.ones(len(labels))
        w[one] = weight
        own = [(labels == c).astype(int) for c in present]
        both = (reference.roc_auc_score, reference.average_precision_score)
        return np.array(
            [[f(o, shares[:, c], sample_weight=w) for o, c in zip(own, present, strict=True)] for f in both]
        ).mean(1)

    assert values == pytest.approx(at(1.0), abs=1e-9)
    assert influences[one] == pytest.approx((at(1.001) - at(0.999)) / 0.002, abs=1e-5)
    assert influences.sum(axis=0) == pytest.approx(0.0, abs=1e-9)


def test_groups_that_err_together_widen_every_interval() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(40), 10)
    labels = rng.integers(0, 3, 400)
    hard = (rng.random(40) < 0.3)[groups]
    logits = rng.normal(size=(400, 3)) + np.where(hard, 0.0, 6.0)[:, None] * np.eye(3)[labels]
    alone, together = evaluate_single(labels, logits), evaluate_single(labels, logits, groups)
    for name in ("accuracy", "macro_f1", "log_loss", "roc_auc", "kappa"):
        assert together[name].value == alone[name].value
        assert together[name].high - together[name].low > 1.3 * (alone[name].high - alone[name].low), name
        assert "over groups" in together[name].method
    rows = per_class(labels, logits, ("a", "b", "c"), groups)
    assert all(row["f1_low"] < row["f1"] < row["f1_high"] for row in rows)


@pytest.mark.filterwarnings("error")
def test_a_class_that_test_lacks_has_no_score_and_no_warning() -> None:
    """17.13: with groups, neither has one that was never predicted."""
    labels = np.tile([0, 1], 20)
    rows = per_class(labels, 6.0 * np.eye(3)[labels], ("a", "b", "c"), np.repeat(np.arange(10), 4))
    assert [row["recall"] for row in rows] == [1.0, 1.0, None]
    assert {rows[2][name] for name in ("precision", "precision_low", "recall_high", "f1", "f1_high")} == {
        None
    }


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
    assert refined_log_losses(labels, 7 * logits) == pytest.approx(
        refined_log_losses(labels, 3 * logits), rel=1e-3
    )
    # Overconfident: the plain loss calls it far worse
    assert log_losses(labels, 30 * logits).mean() > 2 * refined
    right = 5 * np.eye(3)[labels]
    # No better than it is
    assert refined_log_losses(labels, right).mean() == pytest.approx(log_losses(labels, right).mean())


def test_many_classes_are_scored_without_a_copy_of_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.evaluation.resampling.BLOCK", 100_000)
    monkeypatch.setattr("regraft.evaluation.calibration.PIECE", 1 << 17)
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 250, 20_000), rng.normal(size=(20_000, 250)).astype(np.float32)
    tracemalloc.start()
    try:
        assert evaluate_single(labels, logits, resamples=10)["accuracy"].n == 20_000
        constant = np.broadcast_to(logits[0].astype(np.float64), logits.shape)  # as the majority's are
        assert (
            evaluate_single(labels, constant, resamples=10)["accuracy"].value
            == (labels == logits[0].argmax()).mean()
        )
        fit_temperature(labels, logits)
        choose_thresholds(labels, logits)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < logits.nbytes
