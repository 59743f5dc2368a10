"""The verb predict: items in, answers out, as many as there are."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft import streams
from regraft.cli import completion, options
from regraft.cli.shown import tell_note
from regraft.errors import RegraftError, UsageError
from regraft.runtime import cache_folder
from regraft.scale import Cluster, crew_of

if TYPE_CHECKING:
    from regraft.data.kind import Kind
    from regraft.model import Model
    from regraft.prediction import Answering, Prediction

FEW = 64  # items up to which a model that is ready without PyTorch answers them
TOLD = 2.0  # seconds after which progress is shown, and what was done is told at the end
ENDINGS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


def predict(
    run: Annotated[
        Path, typer.Argument(help="a finished run, or a model folder", autocompletion=completion.run_names)
    ],
    files: Annotated[
        list[str],
        typer.Argument(
            help="files, folders, patterns, tables with a column `path`, or - for names on standard input"
        ),
    ],
    output: Annotated[
        str | None, typer.Option("--format", help="table, csv, jsonl or parquet; else by --out's ending")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="a file to write to, in place of standard output; with --format parquet also a folder of parts"
        ),
    ] = None,
    top: Annotated[int | None, typer.Option(help="how many of the most probable classes are given")] = None,
    precision: Annotated[
        float | None, typer.Option(help="say `not sure` unless so many answers are promised right: 0.95")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with an --out that was cut off")] = False,
    overwrite: Annotated[bool, typer.Option(help="write --out anew")] = False,
    engine: Annotated[
        str,
        typer.Option(
            help="auto, torch-float32, torch-bfloat16, openvino-float32, openvino-bfloat16; on CUDA also "
            "torch-bfloat16-folded, torch-bfloat16-compiled"
        ),
    ] = "auto",
    device: options.Device = "auto",
    workers: options.Workers = None,
    address: options.Address = None,
    quiet: options.Quiet = False,
) -> None:
    """Answer items, in the order given. Exit code 1 if any, or a folder of them, could not be read."""
    from regraft.data import Passed, inputs
    from regraft.modalities import modality_of
    from regraft.ready import described, make_ready
    from regraft.tasks import task_of
    from regraft.written import remaining, sheet

    form = _form(output, out)
    if resume and out is None:
        raise UsageError("--resume goes on with a file: name it with --out FILE.")
    folder, about = described(run)
    if not quiet:
        tell_note(run, about)
    kind = modality_of(about["preprocess"]["modality"])
    passed = Passed(noun=kind.noun)
    names = inputs(files, sys.stdin, kind, passed)
    stream = streams.for_programs() if form != "table" else sys.stdout
    target = sheet(form, out, stream, task_of(about["task"], about["classes"]), top)
    if out is not None:
        _require_free(out, form, resume, overwrite)
        names = remaining(names, target.written(), out) if resume else names
    first = list(islice(names, FEW))
    if not first:  # all were answered by the call that is gone on with
        return target.close()
    cluster, failed = Cluster.asked(workers, address), False
    few = len(first) < FEW and cluster is None
    answering, model = _model(folder, few, engine, device)
    with contextlib.ExitStack() as stack:
        rows = answering.predict_each(chain(first, names), top, precision)
        if cluster is not None and model is not None:
            rows = _shared(cluster, folder, model, first, names, (top, precision), quiet, stack)
        progress = stack.enter_context(Progress(kind.noun, functools.partial(_count, files, kind), quiet))
        for row in rows:
            failed |= row.error is not None
            target.add([row])
            progress.step()
        target.close()
    with contextlib.suppress(OSError):  # told when the command ends
        sys.stdout.flush()
    if said := passed.in_words():
        print(f"passed over: {said}", file=sys.stderr)
    if model is not None and not quiet and not (few and engine == "auto"):
        agreed = model.agreement(first)
        if agreed is not None:
            print(f"engine {agreed.in_words()}", file=sys.stderr)
    if model is not None and few and engine == "auto" and model.device.type == "cpu":
        make_ready(model, folder, cache_folder())  # for the next call, after the answers of this one
    if failed or passed.unreadable:
        raise typer.Exit(1)


def _shared(
    cluster: Cluster,
    folder: Path,
    model: Model,
    first: list[Any],
    names: Iterator[Any],
    reading: tuple[int | None, float | None],
    quiet: bool,
    stack: contextlib.ExitStack,
) -> Iterator[Prediction]:
    """The predictions of all items by the workers of a cluster, which `stack` ends."""
    from regraft.scale.answering import Answers, answered

    def note(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr)

    engine = model.fastest(first) if model.engine == "auto" else model.engine
    answers = Answers.of(folder, model, engine, *reading)
    crew = stack.enter_context(crew_of(cluster, note, gpus=model.device.type == "cuda"))
    assert crew is not None
    return answered(crew, answers, chain(first, names))


def _form(named: str | None, out: Path | None) -> str:
    """The format: as named, or as the file's ending says. Raises UsageError for one that there is not."""
    form = named or (ENDINGS.get(out.suffix.lower(), "csv") if out else "table")
    if form not in ("table", "csv", "jsonl", "parquet"):
        raise UsageError(f"--format {form!r} is none of table, csv, jsonl, parquet.")
    return form


def _require_free(out: Path, form: str, resume: bool, overwrite: bool) -> None:
    """Raises UsageError where something is there that was not to be gone on with, or that is of another kind."""
    folder = form == "parquet" and not out.suffix
    if out.is_dir() and not folder:
        raise UsageError(f"{out} is a folder; --out names a file, and a folder only with --format parquet.")
    if folder and out.is_file():
        raise UsageError(f"{out} is a file. Name a folder for the parts, or a file that ends in .parquet.")
    parts = out if folder else out.with_name(f"{out.name}.parts")
    written = sorted(parts.glob("[0-9]*.parquet"))
    if not resume and not overwrite and (out.is_file() or written):
        raise UsageError(
            f"{out} is there already, whole or in part. Go on with it by --resume, or write it anew by --overwrite."
        )
    if overwrite and not resume:
        if not folder:
            out.unlink(missing_ok=True)
        for part in written:
            part.unlink()
    out.parent.mkdir(parents=True, exist_ok=True)


def _model(folder: Path, few: bool, engine: str, device: str) -> tuple[Answering, Model | None]:
    """What answers: for a few items a model that is ready without PyTorch, where there is one; else the
    model, given once more.
    """
    from regraft.ready import Ready

    if few and engine in ("auto", "openvino-float32") and device in ("auto", "cpu"):
        ready = Ready.of(folder, cache_folder())
        if ready is not None:
            return ready, None
    from regraft import api

    model = api.load(folder, engine, device)
    return model, model


def _count(files: list[str], kind: Kind) -> int | None:
    """How many items there are in all; None where that shows only as they come."""
    from regraft.data import Passed, inputs

    if "-" in files:
        return None
    with contextlib.suppress(RegraftError):
        return sum(1 for _ in inputs(files, (), kind, Passed()))
    return None


class Progress:
    """A bar with the time left on standard error, once the work has gone on for some time; at its end one
    line that says what was done.
    """

    def __init__(self, noun: str, count: Callable[[], int | None], quiet: bool) -> None:
        self.noun, self.count, self.quiet, self.done = noun, count, quiet, 0
        self.began = time.monotonic()
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.monotonic() - self.began
        if self.bar is not None:
            self.bar.stop()
        if not self.quiet and seconds > TOLD and self.done:
            nouns = self.noun if self.done == 1 else f"{self.noun}s"
            said = f"{self.done:,} {nouns} in {seconds:.0f} s, {self.done / seconds:.0f} a second"
            print(said, file=sys.stderr)

    def step(self) -> None:
        """One more is answered."""
        self.done += 1
        if self.quiet or time.monotonic() - self.began < TOLD:
            return
        if self.bar is None:
            self._begin()
        self.bar.update(self.task, completed=self.done)

    def _begin(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True, highlight=False)
        columns = (TextColumn("  predicting"), BarColumn(24), MofNCompleteColumn(), TextColumn("left"))
        self.bar = Progress(
            *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
        )
        self.bar.start()
        self.task = self.bar.add_task("", total=None)

        def tell() -> None:
            self.bar.update(self.task, total=self.count())

        threading.Thread(target=tell, daemon=True).start()
