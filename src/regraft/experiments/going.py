"""A run is walked: from its first step, from where it stopped, or, where it is finished, no further."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from regraft.artifacts import Events, Listener, RunFolder, read_json, write_json, write_text
from regraft.data import Examples
from regraft.data.addresses import require_here
from regraft.data.audit import LATER
from regraft.data.examples import SPLITS
from regraft.data.lineage import Seen
from regraft.errors import ChangedError, RegraftError, UsageError
from regraft.modalities import modality_of
from regraft.recipe import Recipe, read_recipe
from regraft.run.asked import asked
from regraft.run.handle import Run
from regraft.run.open import Looked
from regraft.run.session import Session
from regraft.runtime import closed_hub
from regraft.tasks import chosen_by, counted, task_of, task_of_examples


def begin(folder: RunFolder, name: str, looked: Looked, session: Session, until: str = "evaluate") -> Run:
    """A new run of what was read and audited, in a folder that is reserved for it."""
    folder.clear()
    for kind, fields in looked.logged:
        Events(folder.events).emit(kind, **fields)
    looked.examples.save(folder.examples)
    Seen.of(looked.examples, folder.path, looked.past).save(folder.seen)
    write_json(folder.audit, {"findings": [finding.to_dict() for finding in looked.findings]})
    return go(folder, looked.examples, session, {"name": name, **looked.about}, until)


def go(
    folder: RunFolder, examples: Examples, session: Session, about: dict[str, Any], until: str = "evaluate"
) -> Run:
    """Walk the seven steps in a folder that is locked; however the walk ends, run.json says so.

    `about` is what run.json tells of the data. Raises ChangedError that names all files that are not as
    they were.
    """
    events = Events(folder.events, session.listeners)

    from regraft.run.record import Record
    from regraft.run.walk import walk
    from regraft.steps.context import Context
    from regraft.steps.decisions import Decisions

    recipe = session.recipe
    decisions = Decisions(folder.read_state()["steps"])
    share, modality = 1 / (1 + recipe.data.folds), modality_of(examples.modality)
    context = Context.begin(
        recipe, session.cache, events, modality, decisions, session.crew, started=session.started, share=share
    )
    if session.crew is not None:
        count, threads = session.crew.workers, session.crew.threads
        several = f"{count} worker{'s' * (count > 1)} of {threads} thread{'s' * (threads > 1)}"
        events.note(f"passes and trials are shared: {several}")
    task = task_of_examples(examples)
    metric = chosen_by(task, recipe.run.metric)
    context.settle("run.metric", metric.name, "the task's headline, or as asked")
    context.settle("data.task", task.kind, "by what the labels are, or as asked")
    record = Record(folder, examples, about, context)
    record.state["data"]["settings"] = task.settings()
    try:
        with closed_hub(recipe.run.offline):
            if recipe.data.folds:
                record.metrics.update(_folds(folder, examples, session, about))
            events.emit(
                "begin",
                out=str(folder.path),
                counts=examples.counts(),
                classes=len(examples.task.classes),
                apart=counted(task.noun, len(examples.task.classes)),
                findings=about["findings"],
                name=about["name"],
            )
            walk(examples, task, metric, about, record, context, until)
    except BaseException as error:
        record.broken_off(error, tested=bool(examples.counts()["test"]))
        if isinstance(error, ChangedError):
            raise error.of_run(str(folder.whole), examples.changed()) from None
        raise
    return Run(folder.path)


def _folds(folder: RunFolder, examples: Examples, session: Session, about: dict[str, Any]) -> dict[str, Any]:
    """The metrics of `data.folds` walks below the run's folder. A walk that is finished is not done again.

    Each may take an equal part of what the budget leaves to those that are still to come, the last model's
    walk among them. Their events carry `fold`.
    """
    from regraft.experiments.folds import cross_validated

    recipe, count = session.recipe, session.recipe.data.folds

    def walk(number: int, divided: Examples) -> Path:
        def pass_on(event: dict[str, Any]) -> None:
            whole = {"out": str(folder.path)} if event["kind"] == "begin" else {}
            for hear in session.listeners:
                hear({**event, "fold": number, **whole})

        fold, began = RunFolder(folder.folds / str(number)), time.monotonic()
        own = replace(session, listeners=(pass_on,), started=began)
        if fold.is_run() and _holds(fold, divided):
            return resume(fold.path, own, data=str(examples.root)).path
        due = _due(session, began, count + 2 - number)
        settings = {"data": {"folds": 0}, "run": {"budget_seconds": due}}
        own = replace(own, recipe=Recipe.build(recipe.model_dump(), settings))
        fold.lock()
        try:
            fold.clear()
            divided.save(fold.examples)
            before = Seen.load(folder.seen).ancestors() if folder.seen.is_file() else None
            Seen.of(divided, fold.path, before).save(fold.seen)
            named = {**about, "name": f"{about['name']}, fold {number} of {count}", "findings": []}
            return go(fold, divided, own, named).path
        finally:
            fold.release()

    return cross_validated(examples, count, recipe.data.seed, recipe.data.val_share, walk)


def _holds(fold: RunFolder, examples: Examples) -> bool:
    """True where the run in a folder is one of these examples."""
    return fold.examples.is_file() and Examples.load(fold.examples).fingerprint == examples.fingerprint


def _due(session: Session, now: float, walks: int) -> float | None:
    """The seconds for each of the `walks` that are still to come; None without a budget."""
    budget = session.recipe.run.budget_seconds
    return None if budget is None else max(budget - (now - session.started), 0.01 * budget) / walks


def resume(
    out: str | Path, session: Session, track: Sequence[str] = (), data: str | Path | None = None
) -> Run:
    """Go on with the run in `out` by its own recipe: its table and its decisions stay, features come from
    the store.

    `data` says where its data are now. A finished run is not trained and its test set not read anew: see
    `complete`. Raises UsageError where there is no run, where files changed, and where a finished run has
    lost what only training makes, and where an offline run would reach the network.
    """
    folder = RunFolder(Path(out))
    if not folder.is_run():
        raise UsageError(f"{out} holds no run that was begun. Leave out --resume.")
    folder.lock()
    try:
        state = folder.read_state()
        if state["state"] == "finished" and data is None:
            return complete(folder, session.listeners)
        if not folder.examples.is_file():
            raise UsageError(
                f"{folder.examples} is gone, and with it which examples the run has. "
                "Start anew with --overwrite."
            )
        settings, examples = asked(read_recipe(folder.recipe)), Examples.load(folder.examples, task_of)
        if settings.run.offline:
            require_here(
                [str(examples.root if data is None else data), *examples.table["source"].to_pylist()]
            )
        examples = same_data(examples, data, session.events)
        if data is not None:
            examples.save(folder.examples)
        if state["state"] == "finished":
            return complete(folder, session.listeners)
        about = {k: v for k, v in state["data"].items() if k not in ("classes", "counts", "class_counts")}
        if data is not None:  # they were moved: where the table is now nobody has said
            about["source"] = about["given"] = str(examples.root)
        about["findings"] = [
            finding for finding in about["findings"] if finding["kind"] not in LATER
        ]  # come anew
        session = replace(session, recipe=settings)
        with session.tracked(track) as heard:
            return go(folder, examples, heard, about)
    finally:
        folder.release()


def same_data(
    examples: Examples,
    data: str | Path | None,
    ears: Events,
    splits: Sequence[str] = SPLITS,
    what: str = "file",
) -> Examples:
    """The examples where their files are now: where they were, or below `data`.

    Files are judged by their content. Raises UsageError where some of these splits are gone or have another
    content.
    """
    if data is not None:
        examples = examples.moved_to(data)
    changed = examples.changed(splits, ears.tick)
    if changed:
        named = ", ".join(changed[:3]) + (" ..." if len(changed) > 3 else "")
        where = f"They were looked for in {examples.root}"
        raise UsageError(
            f"{counted(what, len(changed))} changed or went since the run began ({named}). {where}: "
            "put them back as they were, or say with --data FOLDER where the data are now. "
            "Files are known by their content, not by their time."
        )
    return examples


# What can go wrong with the report's pictures, without which a run is finished all the same.
PICTURES_FAIL = (OSError, ValueError, KeyError, RuntimeError, RegraftError)


def complete(folder: RunFolder, listeners: Sequence[Listener]) -> Run:
    """A finished run as it is. What can be made from its files and is missing is made: the report, its
    pictures, the model card.

    Nothing is trained, and the test set is not read. Raises UsageError that names what is missing and only
    training can make.
    """
    run, events = Run(folder.path), Events(folder.events, tuple(listeners))
    counts = run.state["data"].get("counts") or {}
    needed = [
        folder.examples,
        folder.metrics,
        folder.model / "regraft.json",
        folder.model / "model.safetensors",
    ]
    needed += [folder.predictions] if counts.get("val") or counts.get("test") else []
    gone = [str(file.relative_to(folder.path)) for file in needed if not file.is_file()]
    if gone:
        raise UsageError(
            f"{folder.path} is finished, and {', '.join(gone)} {'is' if len(gone) == 1 else 'are'} gone. "
            "A finished run is not trained anew by --resume: "
            "put back what is missing, or start anew with --overwrite."
        )
    from regraft.report import model_card, write_gallery, write_report

    missing = dict(run.state.get("missing") or {})
    pictures = folder.gallery.is_file() and RunFolder.PICTURES not in missing
    if not pictures or not folder.report.is_file():
        for what in (RunFolder.REPORT, RunFolder.PICTURES):
            missing.pop(what, None)
        if not pictures:
            try:
                write_gallery(folder.path, run.model)
            except PICTURES_FAIL as error:
                missing[RunFolder.PICTURES] = str(error)
                events.emit("note", text=f"the report has no photographs: {error}")
        run.state["missing"] = missing
        write_json(folder.state, run.state)  # before the report, which tells what is missing
        write_report(folder.path)
    if not (folder.model / "README.md").is_file():
        write_text(folder.model / "README.md", model_card(run.state, read_json(folder.metrics)))
    for place in folder.path.glob("checkpoint*.safetensors"):  # of a run that was killed after its last word
        place.unlink(missing_ok=True)
    return run
