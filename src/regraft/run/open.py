"""Before a run begins: its folder is reserved, its data are read, audited and split."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.artifacts import Events, RunFolder, claim_free, next_free
from regraft.crew import Crew
from regraft.data import (
    Audited,
    Examples,
    Finding,
    Part,
    Source,
    audit_files,
    make_examples,
    read_fixes,
    several,
)
from regraft.data.alike import Known, Met, inputs_of, meet
from regraft.data.audit import LISTED, fatal
from regraft.data.kind import Kind
from regraft.data.lineage import Seen, assigned, seen_by
from regraft.data.splits import ORDER
from regraft.errors import DataError, UsageError
from regraft.modalities import modality_of
from regraft.recipe import Recipe
from regraft.run.asked import check_against
from regraft.tasks import task_for

LISTED_SEEN = 10  # test examples that an error names
RUNS = Path("runs")  # where runs go unless --out says otherwise
PAST = "what earlier runs have seen"  # why test inputs are looked at
NO_TEST = "no test set was set apart, as asked: how good the model is on new examples will not be known"


@contextlib.contextmanager
def reserved(out: str | Path | None, name: str, overwrite: bool) -> Iterator[RunFolder]:
    """The folder of a new run, by default `runs/NAME` with the next free number, for this process alone.

    Raises UsageError where it may not be written. If the work inside fails before it has written anything,
    nothing is left of a folder that was not there before.
    """
    with (
        _claimed(out, name) as (place, made),
        RunFolder(place).reserved(lambda folder: check(folder, overwrite), made) as folder,
    ):
        yield folder


@contextlib.contextmanager
def reserved_for_several(out: str | Path | None, name: str) -> Iterator[RunFolder]:
    """Reserve a folder that will hold several runs and is none itself, and release it in the end."""

    def no_run(folder: RunFolder) -> None:
        if folder.is_run():
            raise UsageError(
                f"{folder.path} holds a run, and cannot hold several. Choose another folder with --out."
            )

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
    """The folder that a run would go to, for a plan. Nothing is made, and an earlier run may stand there."""
    folder = RunFolder(Path(out) if out is not None else next_free(RUNS, name))
    check(folder, overwrite=True)
    return folder.path


def check(folder: RunFolder, overwrite: bool) -> None:
    """Raise UsageError unless the folder is new, empty, or holds a run that may be overwritten, or one that
    never began.
    """
    place = folder.path
    if not place.exists() or (overwrite and folder.is_run()):
        return
    if folder.is_run():
        raise UsageError(
            f"{place} holds a run already. Use --resume to go on with it, --overwrite to start anew."
        )
    if not place.is_dir() or (
        any(item.name != ".lock" for item in place.iterdir()) and not folder.is_left_over()
    ):
        raise UsageError(f"{place} is there and holds no run. Choose another folder with --out.")


def looked_at(
    source: Source,
    settings: Recipe,
    splits: str | Path | None,
    ears: Events,
    fixes: str | Path | None = None,
    crew: Crew | None = None,
) -> Looked:
    """`examples_of`, but test examples that the backbone saw are a DataError, and so is what `--strict`
    does not let pass.
    """
    looked = examples_of(source, settings, splits, ears, fixes, crew)
    if looked.past is not None:
        _unseen(looked, source, settings, bool(splits), ears)
    if settings.data.strict and (faults := fatal(looked.findings)):
        raise DataError(
            f"{source.root} has what --strict does not let pass:",
            faults,
            "`regraft audit` tells the sources.",
        )
    return looked


@dataclass(frozen=True)
class Looked:
    """Audited and split examples, what run.json tells of them, and all findings.

    `past` is what the backbone has seen, None where it comes from no run; `met` tells which run saw an
    item, by content id; `logged` what was read of test, (kind, fields) of events, before there was a run
    to keep them.
    """

    examples: Examples
    about: dict[str, Any]
    findings: list[Finding]
    past: Seen | None
    met: dict[str, str]
    logged: list[tuple[str, dict[str, Any]]]


def examples_of(
    source: Source,
    settings: Recipe,
    splits: str | Path | None,
    ears: Events,
    fixes: str | Path | None = None,
    crew: Crew | None = None,
) -> Looked:
    """The audited and split examples of a source, whose files are looked at by a `crew` where there is one.
    Raises DataError, UsageError.
    """
    task = task_for(settings.data.task, (row.label for row in source.rows), source.labels, source.root)
    check_against(settings, task, modality_of(source.kind.name))
    source.task = task
    earlier = assigned(Path(splits)) if splits else None
    untested = _untested(source, settings, splits, earlier)
    corrections, past = read_fixes(Path(fixes), source) if fixes else None, seen_by(settings.obtain.backbone)
    audited = audit_files(source, ears.tick, crew)
    new = inputs_of(audited, source) if past is not None or earlier is not None else None
    already = past.meet(new, source.kind, ears.tick) if past is not None and new is not None else None
    known = None
    if earlier is not None and new is not None:
        known = _kept(new, source.kind, earlier, past, already, ears)
    logged: list[tuple[str, dict[str, Any]]] = []
    examples = make_examples(
        source,
        audited,
        seed=settings.data.seed,
        test_share=0.0 if untested else settings.data.test_share,
        val_share=settings.data.val_share,
        known=known,
        fixes=corrections,
        log=_noting(logged, ears),
    )
    no_test = untested and not settings.data.folds
    if no_test:
        audited.findings.append(Finding("no test set", "warning", NO_TEST))
    met: dict[str, str] = {}
    more: dict[str, Any] = {"fixes": corrections.to_dict()} if corrections else {}
    if past is not None and new is not None and already is not None:
        seen, runs = already.rows.tolist(), past.table["run"].to_pylist()
        met = {
            identity: past.runs[runs[row]] for identity, row in zip(new.ids, seen, strict=True) if row >= 0
        }
        findings, ancestors = _of_the_past(examples, past, met, new, already, settings.obtain.backbone)
        audited.findings += findings
        more |= ancestors
    about = {**_about(source, audited), "no_test": no_test, **more}
    return Looked(examples, about, audited.findings, past, met, logged)


def _untested(source: Source, settings: Recipe, splits: str | Path | None, earlier: Known | None) -> bool:
    """True when no test set is cut, as `--no-test` and `--folds` ask for.

    Raises UsageError where the data, or the `earlier` assignment of `--splits`, come with one.
    """
    if settings.data.test_share and not settings.data.folds:
        return False
    asked = "--folds" if settings.data.folds else "--no-test"
    if any(row.split == "test" for row in source.rows):
        raise UsageError(f"{asked}: {source.root} comes with a test set. Leave {asked} out, or the test set.")
    if earlier is not None and "test" in earlier.splits:
        raise UsageError(
            f"{asked}: {splits} has a test set, and --splits would keep it. Leave one of the two out."
        )
    return True


def _about(source: Source, audited: Audited) -> dict[str, Any]:
    """What run.json tells of a source and of what the audit of its files found."""
    aside = [{"source": q.source, "split": q.split, "reason": q.reason} for q in audited.quarantined]
    return {
        "source": str(source.root),
        "given": source.given,
        "modality": source.kind.name,
        "val_given": any(row.split == "val" for row in source.rows),
        "quarantined": aside,
        "findings": [finding.to_dict(LISTED) for finding in audited.findings],
    }


def _noting(logged: list[tuple[str, dict[str, Any]]], ears: Events) -> Callable[..., None]:
    """Emits events to `ears`, and keeps them for the log of the run."""

    def log(kind: str, **fields: Any) -> None:
        logged.append((kind, fields))
        ears.emit(kind, **fields)

    return log


def _kept(
    new: Part, kind: Kind, earlier: Known, past: Seen | None, already: Met | None, ears: Events
) -> dict[str, str]:
    """{content id: split} that is kept: by `--splits`, and of what only the backbone has seen, never test.

    Items are known by content and by what they show, so that one saved anew keeps its split too.
    """
    splits: dict[str, str] = {}
    if past is not None and already is not None:
        seen = past.table["split"].to_pylist()
        splits = {
            identity: seen[row]
            for identity, row in zip(new.ids, already.rows.tolist(), strict=True)
            if row >= 0
        }
    rows = meet(new, earlier, kind, ears.tick).rows.tolist()
    mine: dict[str, str] = {}
    for identity, row in zip(new.ids, rows, strict=True):
        if row >= 0 and (identity not in mine or ORDER[earlier.splits[row]] < ORDER[mine[identity]]):
            mine[identity] = earlier.splits[row]
    return {**splits, **mine}


def _of_the_past(
    examples: Examples, past: Seen, met: dict[str, str], new: Part, already: Met, backbone: str
) -> tuple[list[Finding], dict[str, Any]]:
    """What is to be said of train and val that the backbone has seen, and `seen_by_ancestors` of run.json."""
    findings, counts = [], {}
    hit: list[str] = []
    for split in ("train", "val"):
        part = examples.part(split)
        sources = [source for source, identity in zip(part.sources, part.ids, strict=True) if identity in met]
        counts[split], hit = len(sources), [*hit, *sources]
    if hit:
        text = (
            f"{several(len(hit), 'example')} of train or val ({counts['train']:,} "
            f"and {counts['val']:,}) {backbone} has seen before: "
            "predictions of them are no evidence, and no precision is promised from them"
        )
        findings.append(Finding("seen by the backbone", "warning", text, tuple(hit)))
    if past.unknown:
        text = f"{'; '.join(past.unknown)}: test examples may be among it, and no precision is promised"
        findings.append(Finding("unknown past of the backbone", "warning", text))
    if unsure := int(already.unsure.sum()):
        sources_ = tuple(source for source, which in zip(new.sources, already.unsure, strict=True) if which)
        text = (
            f"{several(unsure, 'example', 'looks', 'look')} like what {backbone} has seen, "
            "whose files are gone or changed: they could not be compared"
        )
        findings.append(Finding("perhaps seen by the backbone", "warning", text, sources_))
    runs = list(dict.fromkeys(met.values()))
    return findings, {"seen_by_ancestors": {**counts, "runs": runs, "unknown": list(past.unknown)}}


def _unseen(looked: Looked, source: Source, settings: Recipe, kept: bool, ears: Events) -> None:
    """Raise DataError where test examples, or with folds any, have been seen by the backbone."""
    backbone, folds = settings.obtain.backbone, settings.data.folds
    test = looked.examples.audit_view(PAST, _noting(looked.logged, ears))
    if folds:
        test = looked.examples.inputs()
    hit = [
        f"{name} (seen by {looked.met[identity]})"
        for name, identity in zip(test.sources, test.ids, strict=True)
        if identity in looked.met
    ]
    if not hit:
        return
    place = shlex.quote(backbone.partition(":")[2])
    if folds:
        advice = (
            f"--folds tests each example once. Use --splits {place} instead, "
            "which keeps a test set, or another backbone."
        )
    elif any(row.split == "test" for row in source.rows):
        advice = (
            "They are in the test set that the data come with: take them out of it, or use another backbone."
        )
    elif kept:
        advice = (
            "A group holds them together with test examples of the earlier run: "
            "leave them out, or use another backbone."
        )
    else:
        advice = f"Keep the split of the run with --splits {place}, or use another backbone."
    more = [f"and {len(hit) - LISTED_SEEN:,} more"] if len(hit) > LISTED_SEEN else []
    raise DataError(
        f"{len(hit):,} of {len(test):,} test examples would flatter the model, "
        f"as {backbone} learnt from or was chosen by them:",
        [*hit[:LISTED_SEEN], *more],
        advice,
    )
