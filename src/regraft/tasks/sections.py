"""What a task has shown of its results: plain data. Page, card and console each know how to show every
kind.

A task picks the kinds that suit it and needs no other; `Grid` takes whatever else there is to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Promises:
    """Confidences from which on answers are right as often as was wanted: rows of metrics.json
    `thresholds`.
    """

    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Reliability:
    """How often the model is right by how sure it is: `calibration` of metrics.json."""

    calibration: Mapping[str, Any]


@dataclass(frozen=True)
class PerClass:
    """Precision, recall and F1 of each class, or whatever the `noun` says: rows of metrics.json `per_class`."""

    rows: Sequence[Mapping[str, Any]]
    noun: str = "class"


@dataclass(frozen=True)
class Confusion:
    """What was taken for what: (K, K) counts, rows what it is, columns what the model said."""

    classes: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Together:
    """Which of K labels go together: (K, K) counts of examples that have both, and that are said to have both; on
    the diagonal those of the label itself.
    """

    classes: Sequence[str]
    held: Sequence[Sequence[int]]
    said: Sequence[Sequence[int]]

    def grid(self) -> Grid:
        """The same as a table of texts."""
        rows = [
            (name, *(f"{one} ({other})" for one, other in zip(held, said, strict=True)))
            for name, held, said in zip(self.classes, self.held, self.said, strict=True)
        ]
        return Grid(
            "Which labels go together",
            ("", *self.classes),
            rows,
            "Examples that have both labels, and in brackets those that the model says have both; on the diagonal "
            "those of the label itself.",
        )


@dataclass(frozen=True)
class Grid:
    """Any table: a title, the heads of its columns, rows of texts, and a sentence below it."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Scatter:
    """A number as it is and as it was told: (what it is, what was told) of some examples."""

    name: str
    points: Sequence[Sequence[float]]


Section = Promises | Reliability | PerClass | Confusion | Together | Grid | Scatter
