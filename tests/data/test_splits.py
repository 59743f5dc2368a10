"""Splits are stable: adding data never moves an example out of test."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.data import assign_splits

ROWS = st.lists(
    st.tuples(st.integers(0, 300), st.sampled_from("ab"), st.one_of(st.none(), st.integers(0, 40))),
    min_size=20,
    max_size=120,
)


def _split(rows, known=None):
    ids = [f"{i:032x}" for i, _, _ in rows]
    groups = [None if g is None else str(g) for _, _, g in rows]
    return ids, assign_splits(ids, [c for _, c, _ in rows], groups, [None] * len(rows), known=known)


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS)
def test_added_data_leave_test_in_test(first, more) -> None:
    ids, before = _split(first)
    known = dict(zip(ids, before, strict=True))
    ids_after, after = _split(first + more, known)
    for identity, split in zip(ids_after, after, strict=True):
        if known.get(identity) == "test":
            assert split == "test"


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_content_and_groups_stay_together(rows) -> None:
    ids, splits = _split(rows)
    for key in (ids, [g for _, _, g in rows]):
        seen: dict = {}
        for name, split in zip(key, splits, strict=True):
            if name is not None:
                assert seen.setdefault(name, split) == split


def test_shares_and_given_splits_are_obeyed() -> None:
    ids = [f"{i:032x}" for i in range(4000)]
    labels = ["ab"[i % 2] for i in range(4000)]
    splits = assign_splits(ids, labels, [None] * 4000, [None] * 4000)
    assert 0.17 < splits.count("test") / 4000 < 0.23
    given = ["test" if i < 400 else "train" for i in range(4000)]
    cut = assign_splits(ids, labels, [None] * 4000, given)
    assert cut[:400] == ["test"] * 400
    assert set(cut[400:]) == {"train", "val"}
    given = ["val" if i < 400 else "train" for i in range(4000)]
    cut = assign_splits(ids, labels, [None] * 4000, given)
    assert cut[:400] == ["val"] * 400
    assert set(cut[400:]) == {"train", "test"}


def test_few_examples_are_not_cut() -> None:
    assert set(assign_splits(["a", "b", "c", "d"], ["x", "x", "y", "y"], [None] * 4, [None] * 4)) == {"train"}
