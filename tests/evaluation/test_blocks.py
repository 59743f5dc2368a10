"""Folds that keep blocks together, and standard errors that count a block once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from regraft.evaluation import assign_folds, fewest_blocks, folds_of, standard_error


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=4, max_size=200), st.integers(0, 5)
)
@settings(max_examples=60, deadline=None)
def test_every_row_is_held_out_once_and_no_block_is_parted(rows: list[tuple[int, int]], seed: int) -> None:
    labels, blocks = np.array(rows).T
    if fewest_blocks(labels, blocks) < 2:
        return
    splits = folds_of(labels, 4, seed, blocks)
    assert len(splits) >= 2
    assert sorted(np.concatenate([held for _, held in splits]).tolist()) == list(range(len(labels)))
    for fitted, held in splits:
        assert not set(blocks[fitted]) & set(blocks[held])
        assert sorted(np.r_[fitted, held].tolist()) == list(range(len(labels)))


def test_classes_are_shared_out_as_far_as_blocks_allow() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 6)
    labels = rng.integers(0, 3, len(patients))
    place = assign_folds(labels, 5, 0, patients)
    for label in range(3):
        counts = np.bincount(place[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 6  # the size of a block
    alone = np.r_[patients, 60 + np.arange(340)]  # single rows level out what blocks left uneven
    mixed = np.r_[labels, rng.integers(0, 3, 340)]
    place = assign_folds(mixed, 5, 0, alone)
    for label in range(3):
        assert np.ptp(np.bincount(place[mixed == label], minlength=5)) <= 1
    assert np.ptp(np.bincount(place, minlength=5)) <= 3


def test_without_blocks_the_folds_are_those_of_scikit_learn() -> None:
    labels = np.random.default_rng(1).integers(0, 4, 90)
    expected = [
        held.tolist() for _, held in StratifiedKFold(5, shuffle=True, random_state=3).split(labels, labels)
    ]
    assert [held.tolist() for _, held in folds_of(labels, 5, 3)] == expected
    assert [held.tolist() for _, held in folds_of(labels, 5, 3, np.arange(90) + 7)] == expected


def test_a_class_of_two_blocks_is_never_held_out_wholly() -> None:
    labels = np.r_[np.zeros(60, int), np.ones(4, int)]
    blocks = np.r_[np.repeat(np.arange(6), 10), 10, 10, 11, 11]
    for seed in range(10):
        for fitted, _ in folds_of(labels, 5, seed, blocks):
            assert set(labels[fitted]) == {0, 1}
    assert fewest_blocks(labels, blocks) == 2
    assert fewest_blocks(labels, np.r_[np.arange(60), 99, 99, 99, 99]) == 1


def test_the_standard_error_counts_blocks_and_not_their_rows() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=50)
    plain = values.std(ddof=1) / np.sqrt(50)
    assert standard_error(values) == pytest.approx(plain)
    assert standard_error(values, np.arange(50)) == pytest.approx(plain)
    assert standard_error(np.repeat(values, 8), np.repeat(np.arange(50), 8)) == pytest.approx(plain)
    assert standard_error(values, np.zeros(50)) == np.inf
