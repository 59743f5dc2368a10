"""Which examples belong together, and that train and val never share such a block."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.data import Examples, Named
from regraft.data.audit import Near
from regraft.data.blocks import blocks_of
from regraft.data.examples import SCHEMA
from regraft.data.splits import val_apart
from regraft.steps.audit import apart


def table(splits: list[str], blocks: list[int], labels: list[str]) -> Examples:
    count = len(splits)
    ids = [f"{i:032x}" for i in range(count)]
    columns = {name: [None] * count for name in SCHEMA.names}
    columns |= {
        "id": ids,
        "source": [f"{i}.png" for i in range(count)],
        "label": labels,
        "split": splits,
        "block": blocks,
    }
    columns |= {"identity": ids}
    task = Named("single", tuple(sorted(set(labels))))
    return Examples(pa.table(columns, schema=SCHEMA), task, Path("/nowhere"), "image")


def test_what_is_linked_through_others_is_one_block() -> None:
    ids, groups = ["a", "b", "c", "a", "e", "f"], [None, "g", "g", None, "h", None]
    assert blocks_of(ids, groups).tolist() == [0, 1, 1, 0, 2, 3]
    assert blocks_of(ids, groups, pairs=[(3, 2), (5, 4)]).tolist() == [0, 0, 0, 0, 1, 1]
    assert blocks_of(["g", "b"], ["b", "g"]).tolist() == [0, 1]  # the same word in two columns links nothing
    assert blocks_of([]).tolist() == []


@given(
    st.lists(
        st.tuples(st.sampled_from(("train", "val", "test")), st.integers(0, 8), st.sampled_from("xy")),
        min_size=1,
    )
)
@settings(max_examples=100, deadline=None)
def test_no_block_lies_in_train_and_val(rows: list[tuple[str, int, str]]) -> None:
    splits, blocks, labels = ([row[k] for row in rows] for k in range(3))
    ids = [f"{i:04d}" for i in range(len(rows))]
    found = val_apart(ids, labels, splits, blocks, 0)
    assert [split == "test" for split in found] == [split == "test" for split in splits]
    home: dict[int, set[str]] = {}
    for split, block in zip(found, blocks, strict=True):
        home.setdefault(block, set()).add(split)
    assert not any({"train", "val"} <= places for places in home.values())
    before, after = (
        Counter(label for label, split in zip(labels, s, strict=True) if split == "train")
        for s in (splits, found)
    )
    assert all(after[label] for label in before)  # no class loses its last training example
    assert found == val_apart(ids, labels, found, blocks, 0)  # nothing moves twice


def test_val_keeps_its_share_where_long_films_are_cut() -> None:
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(200), 20).tolist()
    splits = rng.choice(["train", "val"], 4000, p=[0.8, 0.2]).tolist()
    found = val_apart([f"{i:05d}" for i in range(4000)], ["x"] * 4000, splits, blocks, 0)
    assert 0.1 < found.count("val") / 4000 < 0.3


def test_near_duplicates_follow_their_examples() -> None:
    rng = np.random.default_rng(1)
    splits = rng.choice(["train", "val", "test"], 60, p=[0.6, 0.2, 0.2]).tolist()
    examples = table(splits, list(range(60)), rng.choice(["ant", "bee"], 60).tolist())
    sources = examples.inputs().sources + examples.audit_view("a test", lambda *_, **__: None).sources
    # Train and val, train, test
    pairs = [(0, examples.counts()["train"], 0.95), (2, 3, 0.9), (1, len(sources) - 1, 0.9)]
    found = apart(examples, Near(tuple(pairs)), True, 0)
    assert found.moved == 1
    after = (
        found.examples.inputs().sources + found.examples.audit_view("a test", lambda *_, **__: None).sources
    )
    named = [{sources[i], sources[j]} for i, j, _ in pairs]
    assert sorted(sorted({after[i], after[j]}) for i, j, _ in found.near.pairs) == sorted(map(sorted, named))
    assert [sources[i] for i in found.order] == list(found.examples.inputs().sources)
    train, val = found.examples.part("train"), found.examples.part("val")
    assert not set(train.blocks) & set(val.blocks)
    home = dict(
        zip(train.sources + val.sources, np.concatenate([train.blocks, val.blocks]).tolist(), strict=True)
    )
    assert home[sources[2]] == home[sources[3]]
    assert apart(examples, Near(tuple(pairs)), False, 0).moved == 0  # a val set of the user's stays as it is
