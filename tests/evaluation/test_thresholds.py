"""Thresholds promise only what held-out examples can carry; bins of equal mass."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from regraft.evaluation import choose_thresholds, ece, reliability, verify


def answers(rng: np.random.Generator, n: int, sure: float) -> tuple[np.ndarray, np.ndarray]:
    """Two classes, calibrated: an answer of confidence c is right in a share c of cases; a share `sure` has
    0.995.
    """
    confidence = np.where(rng.random(n) < sure, 0.995, rng.uniform(0.5, 0.9, n))
    right = rng.random(n) < confidence
    logits = np.zeros((n, 2))
    logits[:, 1] = special.logit(confidence)
    return np.where(right, 1, 0), logits


def test_a_promise_is_kept_at_least_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    offered, broken = 0, 0
    for _ in range(300):
        (offer,) = choose_thresholds(*answers(rng, 400, 0.6), wanted=(0.95,))
        if offer.threshold is None:
            continue
        offered += 1
        labels, logits = answers(np.random.default_rng(1), 50_000, 0.6)
        broken += verify(offer.threshold, labels, logits)[1].value < 0.95
    assert offered > 150
    assert broken / offered <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / offered)


def test_too_few_examples_promise_nothing_and_say_how_many_it_takes() -> None:
    labels = np.ones(100, int)
    logits = np.tile([0.0, 5.0], (100, 1))
    low, high = choose_thresholds(labels, logits)
    assert high.threshold is None
    assert "too few examples to promise 99%" in high.why
    assert low.wanted == 0.95
    many = choose_thresholds(np.ones(1000, int), np.tile([0.0, 5.0], (1000, 1)), wanted=(0.99,))[0]
    assert many.threshold == 0.0
    assert many.why.startswith("all answers: 100.0% right on 100% of 1000")


def test_the_bound_is_clopper_pearsons_shared_by_the_looks() -> None:
    labels = np.r_[np.zeros(10, int), np.ones(290, int)]
    (offer,) = choose_thresholds(labels, np.tile([0.0, 3.0], (300, 1)), wanted=(0.9,))
    looks = len(np.unique(np.r_[0.0, np.full(19, special.expit(3.0))]))
    assert offer.bound == pytest.approx(
        stats.binomtest(290, 300).proportion_ci(1 - 2 * 0.05 / looks, "exact").low
    )


def test_calibration_error_by_hand() -> None:
    confidence = np.repeat([0.6, 0.9], 10)
    right = np.r_[np.repeat([1, 0], 5), np.ones(10, int)]
    logits = np.stack([np.zeros(20), special.logit(confidence)], axis=1)
    assert ece(right, logits) == pytest.approx(0.5 * abs(0.6 - 0.5) + 0.5 * abs(0.9 - 1.0))
    first, second = reliability(right, logits)
    assert (first["n"], first["accuracy"], second["accuracy"]) == (10, 0.5, 1.0)
    assert first["confidence"] == pytest.approx(0.6)
    assert first["low"] < 0.5 < first["high"]


def test_a_calibrated_model_has_a_small_error_and_an_overconfident_one_a_large() -> None:
    labels, logits = answers(np.random.default_rng(3), 20_000, 0.5)
    assert ece(labels, logits) < 0.02
    assert ece(labels, 4 * logits) > 0.05
    assert sum(row["n"] for row in reliability(labels, logits)) == 20_000
