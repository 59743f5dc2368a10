"""What features tell of the data: near-duplicates, likely wrong labels, outliers, classes that hardly
differ.

Labels, and features for all but near-duplicates, are those of train and val; of test only the inputs are
looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from regraft.data.audit.duplicates import Pair, groups, near_duplicates
from regraft.data.audit.findings import Finding, Kept, several, without
from regraft.data.audit.leaks import mean_recall
from regraft.data.kind import Likeness
from regraft.data.part import Part
from regraft.evaluation.neighbours import compact

ACROSS, WITHIN, OTHERWISE = (
    "near-duplicates across splits",
    "near-duplicates",
    "near-duplicates with different labels",
)
WRONG, FAR, ALIKE = "likely wrong labels", "outliers", "classes that hardly differ"
WRONG_NUMBERS = "likely wrong numbers"
SHORT = "audit cut short"
FEATURE_KINDS = frozenset((ACROSS, WITHIN, OTHERWISE, WRONG, WRONG_NUMBERS, FAR, ALIKE, SHORT))
LONELY = 5  # neighbours whose mean distance says how far out an example is
SPREADS = 3.0  # robust standard deviations of the log distance above the median
NEIGHBOUR_SAMPLE = 10_000  # examples that neighbours are looked for in
TELLING = 0.75  # balanced accuracy between two classes that its upper bound must reach


@dataclass(frozen=True)
class Near:
    """Near-duplicates: pairs (i, j, similarity) of positions in train, val and then test, i < j.

    `left` candidates were not looked at; `cut` says what was not searched where the time was up.
    """

    pairs: tuple[Pair, ...] = ()
    left: int = 0
    cut: str = ""

    def moved(self, place: np.ndarray) -> Near:
        """The same pairs where the example at each position has moved to its `place` (N,)."""
        pairs = [(min(place[i], place[j]), max(place[i], place[j]), s) for i, j, s in self.pairs]
        return Near(tuple(sorted((int(i), int(j), s) for i, j, s in pairs)), self.left, self.cut)


@dataclass(frozen=True)
class Seen:
    """What the checks look at. `inputs` are train and val, N in all, with their splits, (N,) labels and (N,
    D) features; `said` gives what labels are called, `differ` which of (N,) labels contradict others.

    `probabilities` (M, K) are out-of-fold predictions of the rows `rows`, of which `suspects` are what the task
    does not believe; `features` may be None, and so may `probabilities`, which only classes that shut each
    other out have. `near` are the near-duplicates that were found among `inputs` and `test`. `stop` says when
    time is out.
    """

    classes: tuple[str, ...]
    inputs: Part
    splits: tuple[str, ...]
    labels: np.ndarray
    features: np.ndarray | None
    rows: np.ndarray
    probabilities: np.ndarray | None
    test: Part | None
    near: Near
    kept: Kept = frozenset()
    tick: Callable[..., None] = lambda **_: None
    stop: Callable[[], bool] = lambda: False
    said: Callable[[np.ndarray], list[str]] = lambda labels: [str(label) for label in labels]
    differ: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda labels, others: labels != others
    suspects: Sequence[Suspected] = ()
    answer: str = "label"  # what an example is given

    def named(self, row: int) -> str:
        """What the label of a row is called."""
        return self.said(self.labels[row : row + 1])[0]


class Suspected(Protocol):
    """A label that predictions speak against; `row` is a position in `Seen.rows`."""

    @property
    def row(self) -> int:
        """Its position."""

    @property
    def suggested(self) -> str:
        """The label that is rather to be expected."""

    @property
    def note(self) -> str:
        """Why."""


def audit_features(seen: Seen) -> list[Finding]:
    """All that the checks find; where time runs out, what was not looked for is a finding too."""
    findings: list[Finding] = []
    for number, check in enumerate(CHECKS):
        if seen.stop():
            left = ", ".join(name for _, name in CHECKS[number:])
            return [*findings, Finding(SHORT, "info", f"time ran out before these were looked for: {left}")]
        findings += check[0](seen)
    return findings


def find_near(
    inputs: Part,
    test: Part | None,
    features: tuple[np.ndarray | None, np.ndarray | None],
    likeness: Likeness | None,
    tick: Callable[..., None],
    stop: Callable[[], bool] = lambda: False,
) -> Near:
    """Items that show the same: of images, resized, re-encoded, cropped a little, mirrored or lit
    otherwise.

    Candidates come from the `features` of `inputs`, train and val, and of `test`, where these are given,
    else from the vectors of `likeness` alone. Of items that are too small to tell none is a near-duplicate:
    two threes of eight by eight pixels are alike and no copies. Without a `likeness` nothing is found.
    """
    if likeness is None:
        return Near()
    own, ahead = features
    every, joined = inputs, None if own is None else [own]
    if test is not None and len(test) and (own is None or ahead is not None):
        every = inputs.then(test)
        if joined is not None and ahead is not None:
            joined.append(ahead)
    tellable = likeness.tellable(every.facts)
    if not tellable.any():
        return Near()
    cut: list[str] = []
    pairs, left = near_duplicates(every, joined, likeness, tick, stop, cut.append)
    told = tuple((i, j, s) for i, j, s in pairs if tellable[i] and tellable[j])
    return Near(told, left, cut[0] if cut else "")


def duplicates(seen: Seen) -> Iterator[Finding]:
    """What is to be told of near-duplicates: those across splits, within one, and with different labels."""
    every = seen.inputs if seen.test is None else seen.inputs.then(seen.test)
    pairs, left = seen.near.pairs, seen.near.left
    if seen.near.cut:
        yield Finding(SHORT, "info", seen.near.cut)
    splits = (*seen.splits, *["test"] * (len(every) - len(seen.inputs)))
    sources, known = every.sources, len(seen.inputs)
    across = [(sources[i], sources[j], s) for i, j, s in pairs if splits[i] != splits[j]]
    within = [(sources[i], sources[j], s) for i, j, s in pairs if splits[i] == splits[j]]
    inside = [pair for pair in pairs if pair[1] < known]
    first, second = (np.array([int(pair[end]) for pair in inside], dtype=np.int64) for end in (0, 1))
    differs = seen.differ(seen.labels[first], seen.labels[second])
    differ = [pair for pair, other in zip(inside, differs, strict=True) if other]
    tested = {sources[j] for i, j, _ in pairs if i < known <= j}
    more = f" ({left} further candidates were not looked at)" if left else ""
    if pairs_left := _still(across, ACROSS, seen.kept):
        text = f"{several(len(pairs_left), 'pair')} of near-duplicates across splits"
        if hit := {name for a, b, _ in pairs_left for name in (a, b)} & tested:
            text += f": {several(len(hit), 'test example', 'has', 'have')} one in train or val"
        yield _paired(
            ACROSS,
            "warning",
            text + more,
            pairs_left,
            dict(zip(sources, (f"in {split}" for split in splits), strict=True)),
        )
    if pairs_left := _still(within, WITHIN, seen.kept):
        text = (
            f"{several(len(pairs_left), 'pair')} of near-duplicates within a split, "
            f"in {several(groups(pairs_left), 'group')}"
        )
        yield _paired(WITHIN, "info", text + more, pairs_left)
    names = {sources[r]: f"labelled {seen.named(r)}" for i, j, _ in differ for r in (i, j)}
    if pairs_left := _still([(sources[i], sources[j], s) for i, j, s in differ], OTHERWISE, seen.kept):
        text = f"{several(len(pairs_left), 'pair')} of near-duplicates with different labels"
        yield _paired(OTHERWISE, "warning", text, pairs_left, names)


def _still(pairs: list[tuple[str, str, float]], kind: str, kept: Kept) -> list[tuple[str, str, float]]:
    return [pair for pair in pairs if len(without(kept, kind, pair[:2])) == 2]


def _paired(
    kind: str,
    severity: Any,
    text: str,
    pairs: list[tuple[str, str, float]],
    notes: Mapping[str, str] = MappingProxyType({}),
) -> Finding:
    """The closest pair first; each example with what is noted of it and the one it is most like."""
    pairs = sorted(pairs, key=lambda pair: -pair[2])
    other = {a: b for one in reversed(pairs) for a, b in (one[:2], one[1::-1])}
    said = {
        name: ", ".join(filter(None, (notes.get(name, ""), f"like {like}"))) for name, like in other.items()
    }
    return Finding(
        kind,
        severity,
        text,
        tuple(dict.fromkeys(name for pair in pairs for name in pair[:2])),
        said,
        tuple(pairs),
    )


def wrong_labels(seen: Seen) -> Iterator[Finding]:
    """Labels or numbers that out-of-fold predictions speak against, the surest first."""
    kind = WRONG_NUMBERS if seen.answer == "number" else WRONG
    sources, rows = seen.inputs.sources, seen.rows
    suggested = {sources[rows[one.row]]: one.suggested for one in seen.suspects}
    notes = {sources[rows[one.row]]: one.note for one in seen.suspects}
    if left := without(seen.kept, kind, suggested):
        text = (
            f"{several(len(left), seen.answer, 'is', 'are')} likely wrong, "
            "by predictions of models that had not seen them"
        )
        yield Finding(kind, "warning", text, tuple(left), notes, (), suggested)


def outliers(seen: Seen) -> Iterator[Finding]:
    """Examples far from all others: not of the subject, perhaps."""
    import torch

    if seen.features is None or len(seen.features) < 10 * LONELY:
        return
    unit = compact(seen.features, centre=False)(seen.features)
    base = np.sort(np.random.default_rng(0).permutation(len(unit))[:NEIGHBOUR_SAMPLE])
    place = np.full(len(unit), -1)
    place[base] = np.arange(len(base))
    distance, others = np.empty(len(unit)), unit[base].T
    for start in range(0, len(unit), 1_000):
        close = unit[start : start + 1_000] @ others
        own = place[start : start + 1_000]
        close[np.flatnonzero(own >= 0), own[own >= 0]] = -2
        nearest = torch.from_numpy(close).topk(LONELY, dim=1, sorted=False).values.numpy()
        distance[start : start + 1_000] = 1 - nearest.mean(axis=1)
        seen.tick(label="looking for outliers", done=min(start + 1_000, len(unit)), total=len(unit))
        if start + 1_000 < len(unit) and seen.stop():
            yield Finding(SHORT, "info", "time ran out while outliers were looked for: none are told")
            return
    logs = np.log(np.maximum(distance, 1e-6))
    middle = np.median(logs)
    spread = 1.4826 * np.median(np.abs(logs - middle))
    far = np.flatnonzero(logs > middle + SPREADS * max(float(spread), 1e-6))
    if left := without(seen.kept, FAR, (seen.inputs.sources[i] for i in far[np.argsort(-logs[far])])):
        yield Finding(
            FAR, "info", f"{several(len(left), 'example', 'is', 'are')} unlike all others", tuple(left)
        )


def alike_classes(seen: Seen) -> Iterator[Finding]:
    """Pairs of classes that out-of-fold predictions hardly tell apart."""
    if seen.probabilities is None:
        return
    labels, shares = seen.labels[seen.rows], seen.probabilities
    members = [np.flatnonzero(labels == k) for k in range(len(seen.classes))]
    support = np.array([len(rows) for rows in members])
    # (K, K)
    mean = np.array([shares[rows].mean(axis=0) if len(rows) else np.zeros(len(members)) for rows in members])
    first, second = np.triu_indices(len(members), 1)
    mixed = mean[first, second] + mean[second, first]
    confused = np.argsort(-mixed, kind="stable")[: int((mixed > 0.2).sum())]  # at most ten for each class
    said = []
    for a, b in zip(first[confused].tolist(), second[confused].tolist(), strict=True):
        if support[a] and support[b]:
            hits = [int((shares[members[x], x] > shares[members[x], y]).sum()) for x, y in ((a, b), (b, a))]
            value, _, high = mean_recall(np.array(hits), support[[a, b]])
            if high < TELLING:
                said.append(f"{seen.classes[a]} and {seen.classes[b]} ({value:.0%}, at most {high:.0%})")
    if said:
        text = (
            f"{several(len(said), 'pair')} of classes hardly told apart, "
            f"by chance 50% right: {'; '.join(said[:10])}"
        )
        yield Finding(ALIKE, "warning", text)


CHECKS: tuple[tuple[Callable[[Seen], Iterator[Finding]], str], ...] = (
    (duplicates, WITHIN),
    (wrong_labels, WRONG),
    (outliers, FAR),
    (alike_classes, ALIKE),
)
