"""What files and labels tell once there are splits: counts and groups. Each check is a function in
CHECKS; those of a modality come behind them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from regraft.data.audit.files import Fact
from regraft.data.audit.findings import Finding, Kept, several, without
from regraft.data.blocks import blocks_of
from regraft.data.examples import Asked
from regraft.data.rows import Row
from regraft.data.splits import FEWEST_FOR_TEST

UNEQUAL = 10.0  # times the smallest class that the largest has


@dataclass(frozen=True)
class Files:
    """All examples that are left, split: a row, its file's facts and its split each. Rows of test come
    without their labels.

    `tested` are the classes that occur in test.
    """

    task: Asked
    rows: list[Row]
    facts: list[Fact]
    splits: list[str]
    kept: Kept
    tested: frozenset[str]

    def labelled(self) -> tuple[list[Fact], np.ndarray, np.ndarray]:
        """The facts of the M examples of train and val, the (M,) numbers of their strata (of classes: their
        classes), and the (M,) numbers of their blocks.
        """
        known = [i for i, split in enumerate(self.splits) if split != "test"]
        strata = self.task.strata(self.task.encode([self.rows[i].label for i in known]))
        facts = [self.facts[i] for i in known]
        groups, ids = [self.rows[i].group for i in known], [fact.id for fact in facts]
        return facts, strata, blocks_of(ids, groups, [fact.identity for fact in facts])

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that the task tells apart."""
        return self.task.classes

    def counts(self) -> Counter[tuple[str, str]]:
        """How many examples name a class and are in a split, by (class, split); of test none are known."""
        return Counter(
            (name, split)
            for row, split in zip(self.rows, self.splits, strict=True)
            if split != "test"
            for name in self.task.named(row.label)
        )

    def sources(self, kind: str, which: np.ndarray) -> tuple[str, ...]:
        """The sources at (N,) truths, without those of which this kind is not to be told."""
        return tuple(without(self.kept, kind, (self.rows[i].source for i in np.flatnonzero(which))))


def missing_classes(files: Files) -> Iterator[Finding]:
    """Classes without an example in val or test, or with few to train on."""
    counts, classes, noun = files.counts(), files.classes, files.task.noun
    for split in ("val", "test"):
        if split in files.splits:
            there = files.tested if split == "test" else {label for label, home in counts if home == split}
            missing = [label for label in classes if label not in there]
            if missing:
                text = (
                    f"{several(len(missing), noun, 'has', 'have')} "
                    f"no example in {split}: {', '.join(missing[:10])}"
                )
                yield Finding(f"{noun} missing in {split}", "warning", text)
    few = [label for label in classes if counts[(label, "train")] < FEWEST_FOR_TEST]
    if few:
        text = f"{several(len(few), noun, 'has', 'have')} fewer than {FEWEST_FOR_TEST} training examples"
        text += f": {', '.join(few[:10])}"
        yield Finding("few examples", "warning", text)


def imbalance(files: Files) -> Iterator[Finding]:
    """Training classes of very different sizes."""
    counts = Counter({name: count for (name, split), count in files.counts().items() if split == "train"})
    if not counts:  # the task tells no classes apart
        return
    (large, most), (small, least) = counts.most_common()[0], counts.most_common()[-1]
    if most >= UNEQUAL * least:
        text = (
            f"{files.task.noun} {large!r} has {most / least:.0f} times the "
            f"training examples of {small!r} ({most} and {least})"
        )
        yield Finding("imbalance", "warning", text)


def groups_across(files: Files) -> Iterator[Finding]:
    """Given splits are obeyed even where a group straddles them; the report says so."""
    home: dict[str, set[str]] = defaultdict(set)
    for row, split in zip(files.rows, files.splits, strict=True):
        if row.group is not None:
            home[row.group].add(split)
    astride = sorted(group for group, homes in home.items() if len(homes) > 1)
    if astride:
        some = ", ".join(astride[:10]) + (" ..." if len(astride) > 10 else "")
        text = (
            f"{several(len(astride), 'group', 'has', 'have')} "
            f"examples in more than one of the given splits: {some}"
        )
        members = np.array([row.group is not None and len(home[row.group]) > 1 for row in files.rows])
        yield Finding("groups across splits", "warning", text, files.sources("groups across splits", members))


CHECKS: tuple[Callable[[Files], Iterator[Finding]], ...] = (groups_across, missing_classes, imbalance)
