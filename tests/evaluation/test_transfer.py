"""LogME is the largest evidence there is, and neighbours vote only from outside their fold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from regraft.evaluation import knn_logits, knn_out_of_fold, logme


def largest_evidence(features: np.ndarray, y: np.ndarray) -> float:
    """By its definition: y is normal with covariance F F' / alpha + 1 / beta; alpha and beta are searched
    for.
    """

    def negative(logs: np.ndarray) -> float:
        alpha, beta = np.exp(logs)
        covariance = features @ features.T / alpha + np.eye(len(y)) / beta
        return -float(stats.multivariate_normal(np.zeros(len(y)), covariance).logpdf(y))

    starts = [np.array([a, b]) for a in (0.0, 4.0) for b in (0.0, 3.0)]
    return max(-optimize.minimize(negative, start, method="Nelder-Mead").fun for start in starts)


@pytest.mark.parametrize(("n", "d"), [(60, 5), (25, 60)])
def test_logme_is_the_largest_evidence_an_example(n: int, d: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    features = rng.normal(size=(n, d)) + 2 * rng.normal(size=(3, d))[labels]
    expected = np.mean([largest_evidence(features, (labels == k).astype(float)) for k in range(3)]) / n
    assert logme(features, labels) == pytest.approx(expected, abs=2e-3)


def test_logme_prefers_what_tells_the_classes_apart_and_minds_no_rotation() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 200)
    noise = rng.normal(size=(200, 30))
    useful = noise + 2 * rng.normal(size=(4, 30))[labels]
    assert logme(useful, labels) > logme(noise, labels) + 0.1
    turn = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    assert logme(useful @ turn, labels) == pytest.approx(logme(useful, labels), abs=1e-6)
    assert np.isfinite(logme(np.zeros((20, 3)), labels[:20]))


def test_neighbours_are_those_of_the_other_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(120) % 3
    features = rng.normal(size=(120, 8)) + np.array([3.0, -3.0, 0.0])[labels, None]
    order = rng.permutation(120)
    folds = [(np.setdiff1d(order, held), held) for held in np.array_split(order, 4)[:3]]
    found = knn_out_of_fold(features, labels, folds, k=5)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for fit, held in folds:
        for row in held:
            near = fit[np.argsort(-(unit[fit] @ unit[row]))[:5]]
            counts = np.bincount(labels[near], minlength=3)
            assert counts[found[row]] == counts.max()
    assert set(np.flatnonzero(found == -1)) == set(np.array_split(order, 4)[3])
    monkeypatch.setattr("regraft.evaluation.transfer.BLOCK", 1000)
    assert np.array_equal(knn_out_of_fold(features, labels, folds, k=5), found)


def test_labels_without_a_pattern_are_not_predicted_by_an_examples_own_label() -> None:
    rng = np.random.default_rng(3)
    features, labels = rng.normal(size=(400, 4)), rng.integers(0, 2, 400)
    held = np.array_split(rng.permutation(400), 5)
    folds = [(np.setdiff1d(np.arange(400), some), some) for some in held]
    assert (knn_out_of_fold(features, labels, folds, k=1) == labels).mean() < 0.65


def test_neighbours_vote_as_scikit_learn_counts_them_and_k_is_found_without_the_queries() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 8))
    labels = rng.integers(0, 3, 120)
    features = centres[labels] + 1.2 * rng.normal(size=(120, 8))
    wanted = rng.integers(0, 3, 60)
    queries = centres[wanted] + 1.2 * rng.normal(size=(60, 8))
    logits, k = knn_logits(features, labels, queries, 3)
    scores = {
        n: (
            cross_val_predict(KNeighborsClassifier(n, metric="cosine"), features, labels, cv=LeaveOneOut())
            == labels
        ).mean()
        for n in (1, 3, 5, 9, 15)
    }
    assert scores[k] >= max(scores.values()) - 0.02  # ties between classes may be told otherwise
    theirs = KNeighborsClassifier(k, metric="cosine").fit(features, labels).predict_proba(queries)
    np.testing.assert_allclose(np.exp(logits), (k * theirs + 1 / 3) / (k + 1), atol=2e-3)
    assert (logits.argmax(1) == wanted).mean() > 0.6
