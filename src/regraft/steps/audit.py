"""The audit's second phase, on features: what it is given in a run, and alone. It removes nothing and
chooses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from regraft.backbones import obtain_weights
from regraft.data import Examples
from regraft.data.audit import ACROSS, Finding, Kept, Near, Seen, audit_features, find_near, write_fixes
from regraft.data.part import Part
from regraft.inference import feature_key
from regraft.steps.base import base
from regraft.steps.context import Context
from regraft.steps.engine import choose_engine
from regraft.steps.evaluate import Verdict
from regraft.steps.train import Heads, train_head
from regraft.tasks import Task, task_of_examples
from regraft.training import Layers

FEWEST_LEFT = 10  # test examples that must be left for a score without near-duplicates


@dataclass(frozen=True)
class Audit:
    """What was found in the data called `name`, files first; the `counts` of the splits; the sources of
    test, `sealed`.
    """

    name: str
    counts: dict[str, int]
    findings: tuple[Finding, ...]
    sealed: frozenset[str]

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What `--strict` does not let pass."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "name": self.name,
            "counts": self.counts,
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def export(self, path: str | Path) -> int:
        """Write a csv to be edited and given back to `fit` as `fixes`; gives the number of its lines."""
        return write_fixes(Path(path), self.findings, self.sealed)


def audit(
    examples: Examples,
    known: Part,
    heads: Heads,
    test: Part | None,
    near: Near,
    kept: Kept,
    task: Task,
    context: Context,
) -> list[Finding]:
    """What features of train and val (`known`, in this order), a head's out-of-fold predictions and
    near-duplicates tell.
    """
    return audit_features(_seen(examples, known, heads, test, near, kept, task, context))


def audit_alone(
    examples: Examples, kept: Kept, context: Context, with_features: bool
) -> tuple[list[Finding], Part]:
    """What the audit finds outside a run, with the usual backbone of the modality and a linear probe; and the
    inputs of test.

    Without features near-duplicates are found by their facts only.
    """
    test, tick = (
        examples.audit_view("near-duplicates of train and val", context.events.emit),
        context.events.tick,
    )
    likeness = context.modality.likeness(examples.facts())
    task = task_of_examples(examples)
    if not with_features:
        near = find_near(examples.inputs(), test, (None, None), likeness, tick, context.out_of_time)
        return audit_features(_seen(examples, None, None, test, near, kept, task, context)), test
    quiet, both = context.trial(), examples.part("train").then(examples.part("val"))
    obtained = obtain_weights("auto", quiet.recipe.run.offline, context.modality.name)
    backbone = base(obtained, examples.facts(), quiet)
    engine = choose_engine(backbone, both.items, len(both) + len(test), quiet)

    def features(part: Part) -> np.ndarray:
        return context.store.features(
            part.ids,
            part.items,
            feature_key(engine),
            backbone.preprocess,
            engine,
            tick,
            f"features of {part.name}",
        )[0]

    values = features(both)
    near = find_near(
        examples.inputs(),
        test,
        (values, features(test) if len(test) else None),
        likeness,
        tick,
        context.out_of_time,
    )
    joined = examples.joined([pair[:2] for pair in near.pairs])
    both = joined.part("train").then(joined.part("val"))
    known = replace(both, values=values)
    heads = train_head((Layers("linear"),), known, len(known), task, quiet)
    return audit(joined, known, heads, test, near, kept, task, context), test


@dataclass(frozen=True)
class Apart:
    """Examples whose blocks hold near-duplicates too, their features in the new order of train and val, and
    how many moved.
    """

    examples: Examples
    near: Near
    order: np.ndarray  # (N,) the former position of each example of train and val
    moved: int


def apart(examples: Examples, near: Near, recut: bool, seed: int) -> Apart:
    """Make one block of near-duplicates, and where `recut` let none of them lie in train and in val.

    A model that has learnt from one picture of a pair is judged too kindly by the other.
    """
    joined = examples.joined([pair[:2] for pair in near.pairs])
    settled = joined.val_apart(seed) if recut else joined
    place = np.argsort(examples.order())  # from the row of the table to the former position
    former = place[settled.order()]
    moved = int((settled.splits() != examples.splits()).sum())
    return Apart(
        settled, near.moved(np.argsort(former)), former[: len(former) - settled.counts()["test"]], moved
    )


def _seen(
    examples: Examples,
    known: Part | None,
    heads: Heads | None,
    test: Part | None,
    near: Near,
    kept: Kept,
    task: Task,
    context: Context,
) -> Seen:
    both, counts = examples.part("train").then(examples.part("val")), examples.counts()
    splits = ("train",) * counts["train"] + ("val",) * counts["val"]
    logits = None if heads is None else heads.oof_logits
    rows = np.zeros(0, dtype=np.int64) if heads is None else heads.oof_rows
    exclusive = logits is not None and both.labels.ndim == 1
    return Seen(
        examples.task.classes,
        examples.inputs(),
        splits,
        both.labels,
        None if known is None else known.values,
        rows,
        task.probabilities(logits) if logits is not None and exclusive else None,
        test,
        near,
        kept,
        context.events.tick,
        context.out_of_time,
        lambda labels: [task.shown(label) for label in task.said(labels)],
        task.differ,
        [] if logits is None else task.suspects(both.labels[rows], logits),
        task.spoken.answer,
    )


def nearly_known(findings: Iterable[Finding], test: Part | None) -> frozenset[str]:
    """The sources of test examples that have a near-duplicate in train or val."""
    names = {
        name for finding in findings if finding.kind == ACROSS for pair in finding.pairs for name in pair[:2]
    }
    return frozenset(names & set(test.sources)) if test is not None else frozenset()


def without_near_duplicates(
    task: Task, verdict: Verdict, sources: tuple[str, ...], known: frozenset[str]
) -> dict[str, Any]:
    """`test_without_near_duplicates` of metrics.json: the scores of the N examples that are left, by their
    (N,) `sources`; nothing where all are left.
    """
    left = np.array([source not in known for source in sources], dtype=bool)
    out = int((~left).sum())
    if not out:
        return {}
    if left.sum() < FEWEST_LEFT:
        why = f"{int(left.sum())} test examples have no near-duplicate in train or val, too few to score"
        return {"test_without_near_duplicates": {"left_out": out, "metrics": {}, "why": why}}
    clusters = None if verdict.clusters is None else verdict.clusters[left]
    rest = Verdict(verdict.targets[left], verdict.outputs[left], clusters)
    return {"test_without_near_duplicates": {"left_out": out, "metrics": rest.estimates(task)}}
