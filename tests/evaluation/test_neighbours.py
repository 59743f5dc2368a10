"""The index of many rows finds what comparing all with all finds, reads mapped features piece by piece, and
can be stopped.
"""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from regraft.errors import BudgetError
from regraft.evaluation import knn_logits
from regraft.evaluation.neighbours import Lists, compact


def rows_of_classes(count: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) features of ten classes and their labels; every tenth row is nearly another one."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    features = rng.normal(size=(10, width))[labels] + rng.normal(size=(count, width))
    features[::10] = features[5::10] + 0.2 * rng.normal(size=(len(features[::10]), width))
    return features.astype(np.float32), labels


def test_the_index_finds_what_comparing_all_with_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.evaluation.neighbours.LIST", 100)
    features, _ = rows_of_classes(3_000, 32)
    unit = compact(features, centre=True)(features)
    rows, cosines = Lists(unit).search(unit, 5, least=0.5, own=np.arange(len(unit)))
    close = unit @ unit.T
    np.fill_diagonal(close, -2)
    wanted = np.argsort(-close, axis=1)[:, :5]
    reached = np.take_along_axis(close, wanted, axis=1) >= 0.5
    hits = np.array(
        [
            [row in set(found) for row in line]
            for line, found in zip(wanted.tolist(), rows.tolist(), strict=True)
        ]
    )
    assert hits[reached].mean() > 0.97
    assert hits[np.take_along_axis(close, wanted, axis=1) >= 0.9].all()
    assert (rows != np.arange(len(unit))[:, None]).all()
    known = rows >= 0
    np.testing.assert_allclose(
        cosines[known], np.take_along_axis(close, np.where(known, rows, 0), axis=1)[known], atol=1e-5
    )
    assert (cosines[known] >= 0.5).all()
    assert (np.diff(cosines, axis=1) <= 0).all()


def test_the_baseline_by_index_is_as_good_as_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = rows_of_classes(2_000, 32)
    queries, truth = rows_of_classes(500, 32)  # the same classes: the same seed
    exact, k = knn_logits(features, labels, queries, 10)
    for place in ("neighbours", "transfer"):
        monkeypatch.setattr(f"regraft.evaluation.{place}.EXACT", 500)
    monkeypatch.setattr("regraft.evaluation.neighbours.LIST", 100)
    found, again = knn_logits(features, labels, queries, 10)
    assert again == k
    assert (found.argmax(1) == exact.argmax(1)).mean() > 0.95
    assert (found.argmax(1) == truth).mean() == pytest.approx((exact.argmax(1) == truth).mean(), abs=0.02)
    with pytest.raises(BudgetError, match="no time"):
        knn_logits(features, labels, queries, 10, stop=lambda: True)


def test_many_equal_rows_cost_no_more_than_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thirds of the rows are one blank picture, and one row holds what is no number."""
    for name, value in (("LIST", 50), ("LONGEST_LIST", 200)):
        monkeypatch.setattr(f"regraft.evaluation.neighbours.{name}", value)
    features, _ = rows_of_classes(3_000, 16)
    features[:2_000] = features[0]
    features[-1, 3] = np.nan
    unit, compared, look = compact(features, centre=False)(features), 0, Lists._look

    def counted(
        self: Lists, asked: np.ndarray, members: np.ndarray, asking: np.ndarray, *others: object
    ) -> None:
        nonlocal compared
        compared += len(members) * len(asking)
        look(self, asked, members, asking, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(Lists, "_look", counted)
    rows, cosines = Lists(unit).search(unit, 5, least=0.5, own=np.arange(3_000))
    assert compared <= 3_000 * 8 * 200
    assert np.allclose(cosines[:2_000], 1, atol=1e-5)
    assert (rows[:2_000] < 2_000).all()
    assert (rows[-1] == -1).all()


def test_mapped_features_are_not_copied_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.evaluation.neighbours.EXACT", 1_000)
    monkeypatch.setattr("regraft.evaluation.neighbours.CHUNK", 1 << 21)
    features = np.memmap(tmp_path / "features", dtype=np.float32, mode="w+", shape=(20_000, 512))
    features[:] = np.random.default_rng(0).normal(size=512)
    features[::2, :300] *= -1
    parts = (features[:15_000], features[15_000:])
    tracemalloc.start()
    try:
        for centre in (True, False):
            assert compact(parts, centre)(parts).shape == (20_000, 128)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 0.75 * features.nbytes  # a quarter of it is what comes of them
