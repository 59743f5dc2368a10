"""Paired comparisons: the difference, its interval, McNemar's mid-p and the words."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from regraft.errors import UsageError
from regraft.evaluation import PairedDifference, holm, in_words, paired_accuracy, sign_flip


def outcomes(wins: int, losses: int, ties: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and two lists of predictions with that many examples won, lost and both right."""
    mine = np.array([1] * wins + [0] * losses + [1] * ties)
    other = np.array([0] * wins + [1] * losses + [1] * ties)
    return np.ones(len(mine), int), mine, other


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_difference_and_p_value(wins: int, losses: int, ties: int) -> None:
    labels, mine, other = outcomes(wins, losses, ties)
    diff = paired_accuracy(labels, mine, other, "head only")
    assert diff.difference == pytest.approx(np.mean(mine == labels) - np.mean(other == labels))
    assert diff.low <= diff.difference + 1e-12
    assert diff.high >= diff.difference - 1e-12
    if wins + losses:
        exact = stats.binomtest(wins, wins + losses).pvalue
        mid = min(1.0, exact - stats.binom.pmf(wins, wins + losses, 0.5)) if wins != losses else 1.0
        assert diff.p_value == pytest.approx(mid)
    else:
        assert diff.p_value == pytest.approx(1.0)
    turned = paired_accuracy(labels, other, mine, "x")
    assert turned.difference == pytest.approx(-diff.difference)
    assert turned.p_value == pytest.approx(diff.p_value)


def test_known_mid_p() -> None:
    """1 against 8 discordant pairs: 2 * P(X <= 1) - P(X = 1) = (2 * 10 - 9) / 512."""
    assert paired_accuracy(*outcomes(8, 1, 20), "x").p_value == pytest.approx(11 / 512)


def test_words_follow_the_interval() -> None:
    for wins, losses, ties, words in (
        (60, 10, 930, "better than head only: +5.0 points ["),
        (10, 60, 930, "worse than head only: -5.0 points ["),
        (5, 4, 91, "no clear difference from head only: +1.0 points ["),
    ):
        assert in_words(paired_accuracy(*outcomes(wins, losses, ties), "head only")).startswith(words)
    exact = PairedDifference("head only", 0.018, 0.003, 0.034, 0.01, 500, "m")
    assert in_words(exact) == "better than head only: +1.8 points [0.3, 3.4], p = 0.01"
    assert in_words(replace(exact, p_value=0.0002)).endswith(", p < 0.001")
    assert in_words(replace(exact, p_adjusted=0.021)).endswith(", p = 0.02")
    assert in_words(replace(exact, p_adjusted=0.14)).startswith("no clear difference from head only: ")
    assert in_words(replace(exact, against="from scratch")).startswith("better than one from scratch: ")
    turned = replace(exact, difference=-0.018, low=-0.034, high=-0.003, p_value=0.06)
    assert in_words(turned).startswith("no clear difference from head only: ")


def test_interval_covers_the_true_difference() -> None:
    rng = np.random.default_rng(0)
    draws = rng.multinomial(300, [0.12, 0.06, 0.82], size=200)
    found = [paired_accuracy(*outcomes(*map(int, row)), "x") for row in draws]
    assert 0.89 <= np.mean([d.low <= 0.06 <= d.high for d in found]) <= 0.995


def test_round_trip_and_faults() -> None:
    diff = paired_accuracy(*outcomes(3, 1, 9), "majority class")
    assert PairedDifference.from_dict(diff.to_dict()) == diff
    with pytest.raises(UsageError, match="one length"):
        paired_accuracy(np.zeros(3), np.zeros(3), np.zeros(2), "x")
    with pytest.raises(UsageError, match="no examples"):
        paired_accuracy(np.zeros(0), np.zeros(0), np.zeros(0), "x")


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_sign_flips_are_all_tried(sums: list[int]) -> None:
    reached = [
        abs(np.dot(signs, sums)) >= abs(sum(sums)) - 1e-9 for signs in product((-1, 1), repeat=len(sums))
    ]
    assert sign_flip(sums, np.random.default_rng(0)) == pytest.approx(np.mean(reached))


def test_many_groups_are_flipped_at_random_and_clear_gains_are_found() -> None:
    rng = np.random.default_rng(0)
    assert sign_flip(np.ones(30), rng) < 0.001
    assert sign_flip(np.tile([1.0, -1.0], 15), rng) > 0.9


def test_groups_that_err_together_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(30), 20)
    better = (rng.random(30) < 0.5)[group] & (rng.random(600) < 0.6)
    labels, mine, other = np.ones(600, int), np.ones(600, int), np.where(better, 0, 1)
    alone, together = (paired_accuracy(labels, mine, other, "x", groups) for groups in (None, group))
    assert together.difference == alone.difference
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    assert "30 groups" in together.method


def test_many_groups_are_flipped_a_bounded_number_at_a_time() -> None:
    """All flips of 2,000 groups at once are 160 MB."""
    sums = np.random.default_rng(0).normal(size=2_000) + 0.2
    tracemalloc.start()
    try:
        assert sign_flip(sums, np.random.default_rng(0)) == 2e-4  # the least of two sides and 9,999 flips
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 100_000_000
