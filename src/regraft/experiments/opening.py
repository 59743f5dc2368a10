"""Before a run begins: its folder is reserved, its data are read, audited and split."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regraft.artifacts import Events, RunFolder, claim_free, next_free
from regraft.data import Examples, Finding, Source, audit_files, make_examples, read_assignment, read_fixes
from regraft.data.audit import LISTED, fatal
from regraft.errors import DataError, UsageError
from regraft.modalities import UnreadableImage, inspect_image, pixel_digest
from regraft.recipe import Recipe

RUNS = Path("runs")  # where runs go unless --out says otherwise
NO_TEST = "no test set was set apart, as asked: how good the model is on new examples will not be known"


@contextlib.contextmanager
def reserved(out: str | Path | None, name: str, overwrite: bool) -> Iterator[RunFolder]:
    """The folder of a new run, by default `runs/NAME` with the next free number, for this process alone.

    Raises UsageError where it may not be written. If the work inside fails before it has written anything, nothing is left
    of a folder that was not there before.
    """
    with _claimed(out, name) as (place, made), RunFolder(place).reserved(lambda folder: check(folder, overwrite), made) as folder:
        yield folder


@contextlib.contextmanager
def reserved_for_several(out: str | Path | None, name: str) -> Iterator[RunFolder]:
    """The same for a folder that will hold several runs and is none itself."""

    def no_run(folder: RunFolder) -> None:
        if folder.is_run():
            raise UsageError(f"{folder.path} holds a run, and cannot hold several. Choose another folder with --out.")

    with _claimed(out, name) as (place, made), RunFolder(place).reserved(no_run, made) as folder:
        yield folder


@contextlib.contextmanager
def _claimed(out: str | Path | None, name: str) -> Iterator[tuple[Path, bool]]:
    """The folder to use, and whether it was made here; `runs` goes again if it was made for nothing."""
    if out is not None:
        yield Path(out), False
        return
    there = RUNS.exists()
    try:
        yield claim_free(RUNS, name), True
    finally:
        if not there:
            with contextlib.suppress(OSError):
                RUNS.rmdir()


def place_of(out: str | Path | None, name: str) -> Path:
    """Where a run would go, for a plan: nothing is made, and an earlier run may stand there."""
    folder = RunFolder(Path(out) if out is not None else next_free(RUNS, name))
    check(folder, overwrite=True)
    return folder.path


def check(folder: RunFolder, overwrite: bool) -> None:
    """Raise UsageError unless the folder is new, empty, or holds a run that may be overwritten."""
    place = folder.path
    if not place.exists() or (overwrite and folder.is_run()):
        return
    if folder.is_run():
        raise UsageError(f"{place} holds a run already. Use --resume to go on with it, --overwrite to start anew.")
    if not place.is_dir() or any(item.name != ".lock" for item in place.iterdir()):
        raise UsageError(f"{place} is there and holds no run. Choose another folder with --out.")


def looked_at(
    source: Source, settings: Recipe, splits: str | Path | None, ears: Events, fixes: str | Path | None = None
) -> tuple[Examples, dict[str, Any]]:
    """`examples_of`, but that what `--strict` does not let pass is a DataError."""
    examples, about = examples_of(source, settings, splits, ears, fixes)
    if settings.data.strict and (faults := fatal(about["audited"])):
        raise DataError(f"{source.root} has what --strict does not let pass:", faults, "`regraft audit` tells the sources.")
    return examples, about


def examples_of(
    source: Source, settings: Recipe, splits: str | Path | None, ears: Events, fixes: str | Path | None = None
) -> tuple[Examples, dict[str, Any]]:
    """The audited and split examples of a source, what the audit found for run.json, and all of it as `audited`.

    Raises DataError, UsageError.
    """
    if settings.data.folds == 1:
        raise UsageError("--folds 1 leaves nothing to train on; 5 are usual.")
    untested = not settings.data.test_share or bool(settings.data.folds)
    asked = "--folds" if settings.data.folds else "--no-test"
    if untested and any(row.split == "test" for row in source.rows):
        raise UsageError(f"{asked}: {source.root} comes with a test set. Leave {asked} out, or the test set.")
    known = read_assignment(Path(splits)) if splits else None
    if untested and known and "test" in known.values():
        raise UsageError(f"{asked}: {splits} has a test set, and --splits would keep it. Leave one of the two out.")
    corrections = read_fixes(Path(fixes), source) if fixes else None
    audited = audit_files(source, inspect_image, pixel_digest, UnreadableImage, ears.tick)
    examples = make_examples(
        source, audited, seed=settings.data.seed, test_share=0.0 if untested else settings.data.test_share,
        val_share=settings.data.val_share, known=known, fixes=corrections,
    )  # fmt: skip
    if untested and not settings.data.folds:
        audited.findings.append(Finding("no test set", "warning", NO_TEST))
    return examples, {
        "source": str(source.root), "modality": "image", "no_test": untested and not settings.data.folds,
        "val_given": any(row.split == "val" for row in source.rows),
        "quarantined": [{"source": q.source, "split": q.split, "reason": q.reason} for q in audited.quarantined],
        "findings": [finding.to_dict(LISTED) for finding in audited.findings],
        "audited": audited.findings, **({"fixes": corrections.to_dict()} if corrections else {}),
    }  # fmt: skip
