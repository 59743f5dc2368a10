"""Which example goes where: given splits are obeyed, missing ones come from a hash, so that they are
stable.

u = hash(seed, group or content) in [0, 1): test if u is below its share, then val, else train. Each class
is stratified in expectation. Identical content and members of one group move together, by the lowest u
among them. A class left below its floor in test or val gets its lowest-u whole groups out of train; one
left out of train gets its highest-u one back.

Without floors, adding data never moves an example out of test (the lowest u of a group can only fall). A
floor without memory cannot keep that promise (any single example would have to stay promoted for ever), nor
can the rule for few examples; so an earlier run's assignment, given as `known`, is kept: then it always
holds, and only new examples move.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from regraft.data.blocks import blocks_of
from regraft.errors import DataError
from regraft.evaluation import folds_of

ORDER = {"test": 0, "val": 1, "train": 2}
FEWEST_FOR_TEST = 10  # examples a class below which no test set is cut


def unit(seed: int, key: str) -> float:
    """A stable number in [0, 1) for a key."""
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / float(1 << 56)


class Shares(NamedTuple):
    """The shares of the examples that are held out for test and for val."""

    test: float = 0.2
    val: float = 0.15


DEFAULT_SHARES = Shares()


def assign_splits(
    ids: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str | None],
    given: Sequence[str | None],
    *,
    seed: int = 0,
    shares: Shares = DEFAULT_SHARES,
    known: Mapping[str, str] | None = None,
    pixels: Sequence[str] | None = None,
) -> list[str]:
    """The split of every example. Where `pixels` are given, those that share them move together as copies
    do.

    Test is cut from train only where no test split is given and its share is not 0, val only where no val
    split is given. With fewer than 10 examples a class and no given test, nothing is cut: such data are
    cross-validated. With fewer than 10 training examples a class beside a given test, no val is cut.
    """
    stated = {split for split in given if split}
    classes = len(set(labels))
    free = [i for i, split in enumerate(given) if split in (None, "train")]
    enough = len(free) >= FEWEST_FOR_TEST * classes
    earlier = {known.get(ids[i]) for i in free} if known else set()
    cut_test = "test" not in stated and shares.test > 0 and (enough or "test" in earlier)
    cut_val = "val" not in stated and (enough or "val" in earlier)
    result = [split or "train" for split in given]
    if not (cut_test or cut_val or known):
        return result
    shown = ids if pixels is None else pixels
    blocks = blocks_of([ids[i] for i in free], [groups[i] for i in free], [shown[i] for i in free])
    keys = (f"content:{ids[i]}" if groups[i] is None else f"group:{groups[i]}" for i in free)
    low = np.ones(int(blocks.max(initial=-1)) + 1)
    np.minimum.at(low, blocks, [unit(seed, key) for key in keys])
    wanted = {
        "test": shares.test if cut_test and enough else 0.0,
        "val": shares.val if cut_val and enough else 0.0,
    }
    split = np.digitize(low, [wanted["test"], wanted["test"] + wanted["val"]])  # a number by ORDER
    earliest = np.full(len(low), len(ORDER))
    for i, block in zip(free, blocks.tolist(), strict=True) if known else ():
        before = known[ids[i]] if known and ids[i] in known else None
        if before == "val" and not cut_val:
            before = "train"  # it was chosen by, and may be learnt from; but never is it a test
        if before == "train" or (before == "test" and cut_test) or (before == "val" and cut_val):
            earliest[block] = min(earliest[block], ORDER[before])
    kept = earliest < len(ORDER)
    split[kept] = earliest[kept]
    new = np.argsort(low, kind="stable")
    _promote(blocks, new[~kept[new]], split, [labels[i] for i in free], wanted)
    names = list(ORDER)
    for i, number in zip(free, split[blocks].tolist(), strict=True):
        result[i] = names[number]
    return result


def fold_splits(
    ids: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str | None],
    folds: int,
    seed: int = 0,
    val_share: float = 0.15,
    pixels: Sequence[str] | None = None,
) -> list[list[str]]:
    """For each fold the split of every example: test once each, the rest train and val. Classes are
    stratified.

    What shares content, `pixels` or a group stays together. Raises DataError where a class would be missing
    from training.
    """
    shown, cuts, faults = ids if pixels is None else pixels, [], set()
    blocks = blocks_of(ids, groups, shown)
    number = {label: k for k, label in enumerate(sorted(set(labels)))}
    coded = np.array([number[label] for label in labels])
    apart = np.bincount(np.unique(np.stack([coded, blocks], axis=1), axis=0)[:, 0])
    few = [
        f"class {label!r} has {apart[k]} that can be apart" for label, k in number.items() if apart[k] < folds
    ]
    if few:
        raise DataError(f"--folds {folds} needs {folds} examples (or groups) of each class:", few)
    for _, held in folds_of(coded, folds, seed, blocks):
        given: list[str | None] = [None] * len(ids)
        for i in held:
            given[i] = "test"
        splits = assign_splits(
            ids, labels, groups, given, seed=seed, shares=Shares(val=val_share), pixels=pixels
        )
        cuts.append(splits)
        left = {label for label, split in zip(labels, splits, strict=True) if split == "train"}
        faults |= set(labels) - left
    if faults:
        raise DataError(
            f"--folds {folds} leaves nothing to train on:", [f"class {label!r}" for label in sorted(faults)]
        )
    return cuts


def val_apart(
    ids: Sequence[str], labels: Sequence[str], splits: Sequence[str], blocks: Sequence[int], seed: int
) -> list[str]:
    """The splits, but that no block (N,) lies in train and in val: each such block goes to one of the two
    as a whole.

    It goes to val with the probability that val has among train and val, by a hash of the seed and its
    lowest id, so that the same data give the same answer. Test stays as it is, and each class keeps a
    training example.
    """
    result, parted = list(splits), defaultdict[int, list[int]](list)
    home: dict[int, set[str]] = defaultdict(set)
    for block, split in zip(blocks, splits, strict=True):
        if split != "test":
            home[block].add(split)
    for i, (block, split) in enumerate(zip(blocks, splits, strict=True)):
        if split != "test" and len(home[block]) > 1:
            parted[block].append(i)
    counts = Counter(splits)
    share = counts["val"] / max(1, counts["val"] + counts["train"])
    training = Counter(label for label, split in zip(labels, splits, strict=True) if split == "train")
    for members in parted.values():
        leaving = Counter(labels[i] for i in members if splits[i] == "train")
        to_val = unit(seed, f"block:{min(ids[i] for i in members)}") < share
        to_val = to_val and all(training[label] > count for label, count in leaving.items())
        for i in members:
            training[labels[i]] += (not to_val) - (splits[i] == "train")
            result[i] = "val" if to_val else "train"
    return result


def _promote(
    blocks: np.ndarray,
    by_u: np.ndarray,
    split: np.ndarray,
    labels: Sequence[str],
    shares: Mapping[str, float],
) -> None:
    """At least 1 of each class to train, then half its expected number (at least 1) to test and val, while
    1 stays.

    `blocks` (N,) and `labels` are those of the examples, `split` (B,) the blocks' splits by the number of
    ORDER, which change; `by_u` are the blocks that may move, in the order they do. Of each class only
    blocks that hold it are looked at.
    """
    number = {label: code for code, label in enumerate(sorted(set(labels)))}
    classes = len(number)
    coded = np.array([number[label] for label in labels], dtype=np.int64)
    pairs, counts = np.unique(blocks * classes + coded, return_counts=True)
    # Each block's classes, the block's lines together
    held, inside = (pairs // max(1, classes), pairs % max(1, classes))
    lines = np.searchsorted(held, np.arange(len(split) + 1))
    have = np.zeros((len(ORDER), classes), dtype=np.int64)
    np.add.at(have, (split[held], inside), counts)
    totals = have.sum(axis=0)
    rank = np.full(len(split), -1)
    rank[by_u] = np.arange(len(by_u))
    free = np.flatnonzero(rank[held] >= 0)
    free = free[np.lexsort((rank[held[free]], inside[free]))]
    # A class's blocks in their order
    movable = np.split(held[free], np.searchsorted(inside[free], np.arange(1, classes)))

    def move(block: int, home: int) -> None:
        some = slice(lines[block], lines[block + 1])
        have[split[block], inside[some]] -= counts[some]
        have[home, inside[some]] += counts[some]
        split[block] = home

    train = ORDER["train"]
    for code in range(classes):
        if not have[train, code] and len(movable[code]):
            move(int(movable[code][-1]), train)
    for name in ("test", "val"):
        for code in range(classes) if shares[name] else ():
            floor = max(1, int(shares[name] * totals[code] / 2))
            for block in movable[code].tolist():
                if have[ORDER[name], code] >= floor:
                    break
                some = slice(lines[block], lines[block + 1])
                if split[block] == train and (have[train, inside[some]] > counts[some]).all():
                    move(block, ORDER[name])
