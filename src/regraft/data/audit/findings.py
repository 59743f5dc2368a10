"""What the audit found: a kind, how grave it is, a sentence, the examples it is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["info", "warning"]
# (source, kind) pairs that the user has looked at and wants to hear no more of
Kept = frozenset[tuple[str, str]]
LISTED = 50  # examples that go into run.json and onto the screen; audit.json holds all
# What `fit --strict` refuses to train on: what makes a score better, or labels worse, than they are
STRICT = (
    "near-duplicates across splits",
    "groups across splits",
    "contradicting labels",
    "near-duplicates with different labels",
    "files tell the label",
    "borders tell the label",
)


def several(count: int, noun: str, one: str = "", many: str = "") -> str:
    """ "1 pair is", "3 pairs are": a count with its noun and, where given, the verb for one and for many."""
    said = f"{count:,} {noun}" + ("" if count == 1 else "es" if noun.endswith("s") else "s")
    return " ".join(filter(None, (said, one if count == 1 else many)))


@dataclass(frozen=True)
class Finding:
    """Something about the data worth knowing. `examples` are sources, as in examples.parquet.

    `notes` say more of single ones; `pairs` (source, source, similarity) are those of near-duplicates;
    `suggested` holds the label that likely wrong ones should have.
    """

    kind: str
    severity: Severity
    message: str
    examples: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    pairs: tuple[tuple[str, str, float], ...] = ()
    suggested: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self, most: int | None = None) -> dict[str, Any]:
        """Plain values for JSON, with `most` examples at most; the last three only where there are any."""
        examples = self.examples[:most]
        plain: dict[str, Any] = {
            "kind": self.kind,
            "severity": self.severity,
            "message": self.message,
            "examples": list(examples),
        }
        if self.notes:
            plain["notes"] = {source: self.notes[source] for source in examples if source in self.notes}
        if self.pairs:
            plain["pairs"] = [[a, b, round(similarity, 3)] for a, b, similarity in self.pairs[:most]]
        if self.suggested:
            plain["suggested"] = {
                source: self.suggested[source] for source in examples if source in self.suggested
            }
        return plain


def without(kept: Kept, kind: str, sources: Iterable[str]) -> list[str]:
    """The sources of which this kind of finding is still to be told."""
    return [source for source in sources if (source, kind) not in kept]


def fatal(findings: Iterable[Finding]) -> list[str]:
    """The messages of what `--strict` does not let pass."""
    return [f"{f.kind}: {f.message}" for f in findings if f.kind in STRICT]
