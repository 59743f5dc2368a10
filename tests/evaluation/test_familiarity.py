"""Familiarity: what lies beyond the training examples is told from what lies among them."""

from __future__ import annotations

import numpy as np
import pytest

from regraft.evaluation import Familiarity, some_rows


def clusters(count: int, seed: int, shift: int = 0) -> np.ndarray:
    """(count, 40) features around five directions; others where they are shifted."""
    rng = np.random.default_rng(seed)
    return np.eye(40)[rng.integers(0, 5, count) + shift] * 3 + rng.normal(0, 0.3, (count, 40))


@pytest.mark.parametrize("count", [60, 500])
def test_about_one_in_a_hundred_of_the_same_and_all_of_the_others_lie_above_99(count: int) -> None:
    known = Familiarity.of(clusters(count, 0))
    assert known is not None
    same, others = known(clusters(2000, 1)), known(clusters(50, 2, shift=20))
    assert 0.002 < (same > 99).mean() < 0.04
    assert (others > 99).all()
    assert ((same >= 0) & (same <= 100)).all()
    # Percentiles are those of the examples' own: as many of the same lie below each
    assert [(same < share).mean() for share in (25, 50, 75)] == pytest.approx([0.25, 0.5, 0.75], abs=0.15)


def test_examples_of_one_block_do_not_vouch_for_each_other() -> None:
    rows = clusters(100, 0)
    copied = np.concatenate([rows, rows])
    apart = Familiarity.of(copied, np.tile(np.arange(100), 2))
    together = Familiarity.of(copied)
    assert apart is not None
    assert together is not None
    new = clusters(200, 1)
    assert np.median(apart(new)) < np.median(together(new))
    assert apart.distances.min() > together.distances.min()


def test_one_block_or_nothing_tells_nothing() -> None:
    assert Familiarity.of(clusters(10, 0), np.zeros(10, dtype=int)) is None
    assert Familiarity.of(np.zeros((0, 4))) is None
    pair = Familiarity.of(clusters(2, 0))
    assert pair is not None
    assert pair(clusters(1, 3, shift=9)).shape == (1,)


def test_odd_features_are_no_trouble() -> None:
    odd = clusters(30, 0)
    odd[3], odd[4, 0] = 0.0, np.nan
    known = Familiarity.of(odd)
    assert known is not None
    found = known(np.stack([np.full(40, np.inf), np.full(40, np.nan), np.zeros(40), odd[0] * 1e30]))
    assert np.isfinite(found).all()
    constant = Familiarity.of(np.ones((20, 4)))
    assert constant is not None
    assert constant(np.array([[1.0, 1, 1, 1], [1, -1, 1, -1]]))[1] > 90


def test_a_bounded_sample_is_kept() -> None:
    assert list(some_rows(5)) == [0, 1, 2, 3, 4]
    assert len(np.unique(some_rows(9000))) == 1000
    rows = Familiarity.of(clusters(300, 0))
    assert rows is not None
    assert rows.rows.dtype == np.float16
