"""Which example goes where: given splits are obeyed, missing ones come from a hash, so that they are
stable.

u = hash(seed, group or content) in [0, 1): test if u is below its share, then val, else train. Each stratum
(of classes: each class; the task says what is to be as frequent everywhere) is divided so in expectation.
Identical content and members of one group move together, by the lowest u among them. A stratum left below
its floor in test or val gets its lowest-u whole groups out of train; one left out of train gets its
highest-u one back.

Without floors, adding data never moves an example out of test (the lowest u of a group can only fall). A
floor without memory cannot keep that promise (any single example would have to stay promoted for ever), nor
can the rule for few examples; so an earlier run's assignment, given as `known`, is kept: then it always
holds, and only new examples move.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from regraft.data.blocks import blocks_of
from regraft.errors import DataError
from regraft.evaluation import folds_of

ORDER = {"test": 0, "val": 1, "train": 2}
FEWEST_FOR_TEST = 10  # examples a stratum below which no test set is cut


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
    strata: ArrayLike,
    groups: Sequence[str | None],
    given: Sequence[str | None],
    *,
    seed: int = 0,
    shares: Shares = DEFAULT_SHARES,
    known: Mapping[str, str] | None = None,
    identities: Sequence[str] | None = None,
) -> list[str]:
    """The split of every one of N examples. Each of the (N,) `strata` is divided by the same shares. Where
    `identities` are given, examples that share one (that show the same) move together as copies do.

    Test is cut from train only where no test split is given and its share is not 0, val only where no val
    split is given. With fewer than 10 examples a stratum and no given test, nothing is cut: such data are
    cross-validated. With fewer than 10 training examples a stratum beside a given test, no val is cut.
    """
    stated, strata = {split for split in given if split}, np.asarray(strata)
    free = [i for i, split in enumerate(given) if split in (None, "train")]
    enough = len(free) >= FEWEST_FOR_TEST * len(np.unique(strata))
    earlier = {known.get(ids[i]) for i in free} if known else set()
    cut_test = "test" not in stated and shares.test > 0 and (enough or "test" in earlier)
    cut_val = "val" not in stated and (enough or "val" in earlier)
    result = [split or "train" for split in given]
    if not (cut_test or cut_val or known):
        return result
    shown = ids if identities is None else identities
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
    _promote(blocks, new[~kept[new]], split, strata[free], wanted)
    names = list(ORDER)
    for i, number in zip(free, split[blocks].tolist(), strict=True):
        result[i] = names[number]
    return result


def fold_splits(
    ids: Sequence[str],
    strata: ArrayLike,
    groups: Sequence[str | None],
    folds: int,
    seed: int = 0,
    val_share: float = 0.15,
    identities: Sequence[str] | None = None,
    called: Callable[[int], str] = "stratum {}".format,
) -> list[list[str]]:
    """For each fold the split of every one of N examples: test once each, the rest train and val. Each of
    the (N,) `strata` is as frequent in every fold; `called` gives what an error calls one.

    What shares content, an identity or a group stays together. Raises DataError where a stratum would be
    missing from training.
    """
    shown = ids if identities is None else identities
    blocks, kinds, divided = blocks_of(ids, groups, shown), np.asarray(strata), []
    names, coded = np.unique(kinds, return_inverse=True)
    apart = np.bincount(np.unique(np.stack([coded, blocks], axis=1), axis=0)[:, 0])
    few = [
        f"{called(name)} has {count} that can be apart"
        for name, count in zip(names.tolist(), apart, strict=True)
        if count < folds
    ]
    if few:
        raise DataError(f"--folds {folds} needs {folds} examples (or groups) of each:", few)
    untrained: set[int] = set()
    for _, held in folds_of(coded, folds, seed, blocks):
        given: list[str | None] = [None] * len(ids)
        for i in held:
            given[i] = "test"
        splits = assign_splits(
            ids, kinds, groups, given, seed=seed, shares=Shares(val=val_share), identities=identities
        )
        divided.append(splits)
        left = kinds[[split == "train" for split in splits]]
        untrained |= set(names.tolist()) - set(left.tolist())
    if untrained:
        raise DataError(
            f"--folds {folds} leaves nothing to train on:", [called(name) for name in sorted(untrained)]
        )
    return divided


def val_apart(
    ids: Sequence[str], strata: ArrayLike, splits: Sequence[str], blocks: Sequence[int], seed: int
) -> list[str]:
    """The splits, but that no block (N,) lies in train and in val: each such block goes to one of the two
    as a whole.

    It goes to val with the probability that val has among train and val, by a hash of the seed and its
    lowest id, so that the same data give the same answer. Test stays as it is, whatever its strata are
    called, and each other one of the (N,) strata keeps a training example.
    """
    kinds = np.asarray(strata).tolist()
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
    training = Counter(kind for kind, split in zip(kinds, splits, strict=True) if split == "train")
    for members in parted.values():
        leaving = Counter(kinds[i] for i in members if splits[i] == "train")
        to_val = unit(seed, f"block:{min(ids[i] for i in members)}") < share
        to_val = to_val and all(training[kind] > count for kind, count in leaving.items())
        for i in members:
            training[kinds[i]] += (not to_val) - (splits[i] == "train")
            result[i] = "val" if to_val else "train"
    return result


def _promote(
    blocks: np.ndarray, by_u: np.ndarray, split: np.ndarray, strata: np.ndarray, shares: Mapping[str, float]
) -> None:
    """At least 1 of each stratum to train, then half its expected number (at least 1) to test and val, while
    1 stays.

    `blocks` (N,) and `strata` (N,) are those of the examples, `split` (B,) the blocks' splits by the number of
    ORDER, which change; `by_u` are the blocks that may move, in the order they do. Of each stratum only
    blocks that hold it are looked at.
    """
    names, coded = np.unique(strata, return_inverse=True)
    kinds = len(names)
    pairs, counts = np.unique(blocks * kinds + coded, return_counts=True)
    # Each block's strata, the block's lines together
    held, inside = (pairs // max(1, kinds), pairs % max(1, kinds))
    lines = np.searchsorted(held, np.arange(len(split) + 1))
    have = np.zeros((len(ORDER), kinds), dtype=np.int64)
    np.add.at(have, (split[held], inside), counts)
    totals = have.sum(axis=0)
    rank = np.full(len(split), -1)
    rank[by_u] = np.arange(len(by_u))
    free = np.flatnonzero(rank[held] >= 0)
    free = free[np.lexsort((rank[held[free]], inside[free]))]
    # A stratum's blocks in their order
    movable = np.split(held[free], np.searchsorted(inside[free], np.arange(1, kinds)))

    def move(block: int, home: int) -> None:
        some = slice(lines[block], lines[block + 1])
        have[split[block], inside[some]] -= counts[some]
        have[home, inside[some]] += counts[some]
        split[block] = home

    train = ORDER["train"]
    for code in range(kinds):
        if not have[train, code] and len(movable[code]):
            move(int(movable[code][-1]), train)
    for name in ("test", "val"):
        for code in range(kinds) if shares[name] else ():
            floor = max(1, int(shares[name] * totals[code] / 2))
            for block in movable[code].tolist():
                if have[ORDER[name], code] >= floor:
                    break
                some = slice(lines[block], lines[block + 1])
                if split[block] == train and (have[train, inside[some]] > counts[some]).all():
                    move(block, ORDER[name])
