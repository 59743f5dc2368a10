"""The verbs around finished runs: predict, compare, evaluate, report, runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft import streams
from regraft.cli import options
from regraft.cli.shown import print_json, progress
from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.data import Passed
    from regraft.model import Prediction


def predict(
    run: Annotated[Path, typer.Argument(help="a finished run, or a model folder")],
    files: Annotated[list[str], typer.Argument(help="files, folders, or - for names on standard input")],
    output: Annotated[str, typer.Option("--format", help="table, csv or jsonl")] = "table",
    device: options.Device = "auto",
) -> None:
    """Predict the class of images, in the order given. Exit code 1 if any, or a folder of them, could not
    be read.
    """
    if output not in ("table", "csv", "jsonl"):
        raise UsageError(f"--format {output!r} is none of table, csv, jsonl.")

    from regraft import api
    from regraft.data import Passed
    from regraft.modalities import modality_of
    from regraft.runtime import pick_device

    model = api.load(run)
    modality = modality_of(model.modality)
    passed = Passed(noun=modality.noun)
    if output != "table":
        streams.for_programs()
    failed = False
    for number, row in enumerate(
        model.predict_each(_inputs(files, modality.endings, passed), pick_device(device))
    ):
        failed |= row.error is not None
        _write_row(row, output, model.classes, heading=number == 0)
    if said := passed.in_words():
        print(f"passed over: {said}", file=sys.stderr)
    if failed or passed.unreadable:
        raise typer.Exit(1)


def _write_row(row: Prediction, output: str, classes: tuple[str, ...], heading: bool) -> None:
    import csv
    import json

    if output == "jsonl":
        print(json.dumps(row.to_dict(), ensure_ascii=False))
    elif output == "csv":
        # The stream makes of it what lines end with here
        writer = csv.writer(sys.stdout, lineterminator="\n")
        if heading:
            writer.writerow(["source", "label", "probability", *classes, "error"])
        shares = [f"{row.probabilities[name]:.6f}" if row.probabilities else "" for name in classes]
        chance = "" if row.probability is None else f"{row.probability:.6f}"
        writer.writerow([row.source, row.label or "", chance, *shares, row.error or ""])
    elif row.label is None:
        print(f"{row.source}  cannot be read: {row.error}")
    else:
        print(f"{row.source}  {row.label:24} {row.probability:.3f}")


def _inputs(files: list[str], endings: frozenset[str], passed: Passed) -> Iterator[Any]:
    """The items to predict, as they are found; `passed` hears of what is passed over. Raises DataError
    where there are none.
    """
    from itertools import chain

    from regraft.data import inputs

    lines = (line.rstrip("\r\n") for line in sys.stdin if line.strip())
    yield from inputs(
        chain.from_iterable(lines if name == "-" else (name,) for name in files), endings, passed
    )


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="finished runs that share their test set; the first is compared with")
    ],
    out: Annotated[
        Path | None, typer.Option(help="a page (.html) or the picture alone (.svg) to write")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare finished runs on the same test examples, paired."""
    from regraft import api
    from regraft.console import comparison_table

    if out is not None and out.suffix.lower() not in (".html", ".svg"):
        raise UsageError(f"--out {out} is neither .html nor .svg.")
    found = api.compare(*runs).to_dict()
    if as_json:
        print_json(found)
    else:
        comparison_table(found)
    if out is not None:
        from regraft.report import write_comparison

        write_comparison(found, out)
        if not as_json:
            print(f"picture   {out}")


def evaluate(
    run: Annotated[Path, typer.Argument(help="a finished run")],
    data: Annotated[
        Path | None, typer.Argument(help="labelled examples, all of them a test set; else the run's own")
    ] = None,
    moved: Annotated[
        Path | None, typer.Option("--data", help="where the run's own data are now, if they were moved")
    ] = None,
    reason: Annotated[str, typer.Option(help="why, for the record")] = "",
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate a finished run's model again: on its own test set, or on DATA. Every reading of test is
    recorded.
    """
    from regraft import api
    from regraft.console import evaluation_table

    with progress(quiet or as_json) as screen:
        found = api.evaluate(run, data, reason, device=device, listeners=[screen], moved=moved).to_dict()
    if as_json:
        print_json(found)
        return
    evaluation_table(found)
    if found["file"]:
        print(f"kept in   {found['file']}")


def report(run: Annotated[Path, typer.Argument(help="a run's folder")]) -> None:
    """Write a run's report.html again, from its files."""
    from regraft import api

    print(api.Run(run).write_report())


def runs(
    folder: Annotated[Path, typer.Argument(help="where to look")] = Path("runs"),
    as_json: options.AsJson = False,
) -> None:
    """List the runs below FOLDER with their headline, the newest first."""
    from regraft.console import runs_table
    from regraft.run.listed import list_runs

    found = [run.to_dict() for run in list_runs(folder)]
    if as_json:
        print_json(found)
    elif found:
        runs_table(found)
    else:
        print(f"There are no runs below {folder}.")
