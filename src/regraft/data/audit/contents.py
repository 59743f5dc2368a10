"""What files and labels tell once there are splits: counts, groups, odd pictures. Each check is a function in
CHECKS.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from regraft.data.audit.files import Fact
from regraft.data.audit.findings import Finding, Kept, Severity, several, without
from regraft.data.audit.metadata import Told, told_by_borders, told_by_colours, told_by_files
from regraft.data.blocks import blocks_of
from regraft.data.levels import levels_of
from regraft.data.rows import Row
from regraft.data.splits import FEW

UNEQUAL = 10.0  # times the smallest class that the largest has
SMALL = 0.25  # of the usual short side: what is below is tiny for its set
LONG = 3.0  # times longer, or shorter, for its height than is usual
DARK = 64  # of 255: 16-bit colours of which no place is brighter use a quarter of their range
RARE = 0.05  # share up to which grey pictures among coloured ones are odd


@dataclass(frozen=True)
class Files:
    """All examples that are left, split: a row, its file's facts and its split each. Rows of test come
    without their labels.

    `tested` are the classes that occur in test.
    """

    classes: tuple[str, ...]
    rows: list[Row]
    facts: list[Fact]
    splits: list[str]
    kept: Kept
    tested: frozenset[str]

    def sources(self, kind: str, which: np.ndarray) -> tuple[str, ...]:
        """The sources at (N,) truths, without those of which this kind is not to be told."""
        return tuple(without(self.kept, kind, (self.rows[i].source for i in np.flatnonzero(which))))


def missing_classes(files: Files) -> Iterator[Finding]:
    """Classes without an example in val or test, or with few to train on."""
    counts = Counter(zip((row.label for row in files.rows), files.splits, strict=True))
    for split in ("val", "test"):
        if split in files.splits:
            there = files.tested if split == "test" else {label for label, home in counts if home == split}
            missing = [label for label in files.classes if label not in there]
            if missing:
                text = f"{several(len(missing), 'class', 'has', 'have')} no example in {split}: {', '.join(missing[:10])}"
                yield Finding(f"class missing in {split}", "warning", text)
    few = [label for label in files.classes if counts[(label, "train")] < FEW]
    if few:
        text = f"{several(len(few), 'class', 'has', 'have')} fewer than {FEW} training examples: {', '.join(few[:10])}"
        yield Finding("few examples", "warning", text)


def imbalance(files: Files) -> Iterator[Finding]:
    """Training classes of very different sizes."""
    counts = Counter(
        row.label for row, split in zip(files.rows, files.splits, strict=True) if split == "train"
    )
    (large, most), (small, least) = counts.most_common()[0], counts.most_common()[-1]
    if most >= UNEQUAL * least:
        text = f"class {large!r} has {most / least:.0f} times the training examples of {small!r} ({most} and {least})"
        yield Finding("imbalance", "warning", text)


def groups_across(files: Files) -> Iterator[Finding]:
    """Given splits are obeyed even where a group straddles them; the report says so."""
    home: dict[str, set[str]] = defaultdict(set)
    for row, split in zip(files.rows, files.splits, strict=True):
        if row.group is not None:
            home[row.group].add(split)
    astride = sorted(group for group, found in home.items() if len(found) > 1)
    if astride:
        some = ", ".join(astride[:10]) + (" ..." if len(astride) > 10 else "")
        text = f"{several(len(astride), 'group', 'has', 'have')} examples in more than one of the given splits: {some}"
        members = np.array([row.group is not None and len(home[row.group]) > 1 for row in files.rows])
        yield Finding("groups across splits", "warning", text, files.sources("groups across splits", members))


def odd_pictures(files: Files) -> Iterator[Finding]:
    """Tiny for their set, of odd shape, of one plain colour, or grey among coloured ones."""
    looks = [fact.look for fact in files.facts]
    width, height = (
        np.array([getattr(look, name) for look in looks], dtype=float) for name in ("width", "height")
    )
    short, shape = np.minimum(width, height), np.log(width / height)
    grey = np.array([look.mode in ("1", "L", "LA") or look.deep is not None for look in looks])
    usual = float(np.median(short))
    for kind, which, text in (
        ("tiny pictures", short < SMALL * usual, f"tiny beside the others, whose short side is {usual:.0f}"),
        (
            "odd shapes",
            np.abs(shape - np.median(shape)) > np.log(LONG),
            "far longer or higher than the others",
        ),
        ("plain pictures", np.array([look.plain for look in looks]), "of one plain colour"),
        ("grey pictures", grey & (grey.mean() <= RARE), "grey where nearly all are coloured"),
    ):
        if sources := files.sources(kind, which):
            severity: Severity = "warning" if kind == "plain pictures" else "info"
            yield Finding(kind, severity, f"{several(len(sources), 'picture', 'is', 'are')} {text}", sources)


def deep_pictures(files: Files) -> Iterator[Finding]:
    """How pictures with more than 8 bits are scaled, by train and val; and colours of which only 8 bits can
    be read.
    """
    known = [fact.look for fact, split in zip(files.facts, files.splits, strict=True) if split != "test"]
    levels = levels_of(look.deep for look in known if look.deep is not None)
    kinds = ("whole", levels.whole, "more than 8 bits"), ("real", levels.real, "floating point values")
    for kind, (black, white), noun in kinds:
        some = [look.deep for look in known if look.deep is not None and look.deep.kind == kind]
        if some:
            cut = sum(deep.top > white or deep.low < black for deep in some)
            beyond = f"; {cut:,} of them go beyond and are cut off there" if cut else ""
            text = f"{several(len(some), 'picture', 'has', 'have')} {noun}: from {black:g} to {white:g} is from black to white"
            yield Finding("deep pictures", "info", f"{text}, for all of them and at prediction{beyond}")
    halved = [look for look in known if look.mode.endswith(";16")]
    if halved:
        dark = max(max(look.small) for look in halved) < DARK
        text = f"of {several(len(halved), 'colour picture')} with 16 bits a channel the upper 8 are read"
        text += ", and these are nearly black: stretch them to the full 16 bits" if dark else ""
        yield Finding("16-bit colours", "warning" if dark else "info", text)


def leaks(files: Files) -> Iterator[Finding]:
    """Labels of train and val that something beside the subject tells."""
    known = [i for i, split in enumerate(files.splits) if split != "test"]
    index = {label: k for k, label in enumerate(files.classes)}
    labels = np.array([index[files.rows[i].label] for i in known])
    facts = [files.facts[i] for i in known]
    blocks = blocks_of(
        [fact.id for fact in facts], [files.rows[i].group for i in known], [fact.pixels for fact in facts]
    )

    def finding(kind: str, severity: str, told: Told | None, text: str) -> Iterator[Finding]:
        if told is not None:
            yield Finding(kind, severity, f"{text} {told.in_words()}")  # type: ignore[arg-type]

    files_told, borders, mere = (
        by(facts, labels, blocks) for by in (told_by_files, told_by_borders, told_by_colours)
    )
    yield from finding("files tell the label", "warning", files_told, "the file alone, not opened,")
    yield from finding("borders tell the label", "warning", borders, "the colour of the border alone")
    yield from finding("colours tell the label", "info", mere, "mean colour and contrast alone")


CHECKS: tuple[Callable[[Files], Iterator[Finding]], ...] = (
    groups_across,
    missing_classes,
    imbalance,
    odd_pictures,
    deep_pictures,
    leaks,
)
