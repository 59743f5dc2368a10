"""Cross-validation of the whole walk: every choice is made anew inside each fold, so nothing leaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regraft.artifacts import RunFolder, read_json, read_parquet
from regraft.data import Examples, fold_splits
from regraft.steps.evaluate import Verdict, evaluate_folds
from regraft.tasks import task_of


def cross_validated(
    examples: Examples, folds: int, seed: int, val_share: float, walk: Callable[[int, Examples], Path]
) -> dict[str, Any]:
    """Metrics of the predictions of all examples, each by the walk of the fold that had it as test.

    `walk` takes a fold's number and its examples, walks the seven steps on them and gives the run's folder.
    Raises DataError where a class has too few examples.
    """
    table = examples.table
    ids, labels, groups, identities = (
        table[name].to_pylist() for name in ("id", "label", "group", "identity")
    )
    task = task_of(examples.task.kind, examples.task.classes)
    targets = task.encode(labels)
    task, strata, runs = task.fitted(targets), task.strata(targets), []  # errors in deviations of all targets
    divisions = fold_splits(ids, strata, groups, folds, seed, val_share, identities, task.stratum)
    for number, splits in enumerate(divisions, start=1):
        divided = table.set_column(
            table.schema.get_field_index("split"), "split", pa.array(splits, pa.string())
        )
        runs.append(walk(number, Examples(divided, examples.task, examples.root, examples.modality)))
    everything = examples.part("train").then(examples.part("val"))
    answers: dict[
        str, tuple[int, np.ndarray]
    ] = {}  # by content, which lies in one fold however often it is listed
    calibrations = []
    for number, run in enumerate(runs):
        answered = read_parquet(run / "predictions.parquet")
        answered = answered.filter(pc.equal(answered["split"], "test"))
        outputs = task.outputs_in(answered)
        answers |= dict(zip(answered["id"].to_pylist(), ((number, row) for row in outputs), strict=True))
        calibrations.append(task.calibration(read_json(RunFolder(run).model / "regraft.json")))
    found = [answers[identity] for identity in everything.ids]
    task = task.decided_each(calibrations, np.array([number for number, _ in found]))
    verdict = Verdict(everything.labels, np.stack([row for _, row in found]), everything.clusters())
    return evaluate_folds(task, verdict, len(runs))
