"""The verbs around finished runs: compare, evaluate, report, runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli import completion, options, values
from regraft.cli.shown import print_json, progress
from regraft.errors import UsageError


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="finished runs that share their test set; the first is compared with",
            autocompletion=completion.run_names,
        ),
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
    run: Annotated[Path, typer.Argument(help="a finished run", autocompletion=completion.run_names)],
    data: Annotated[
        list[str] | None, typer.Argument(help="labelled examples, all of them a test set; else the run's own")
    ] = None,
    moved: Annotated[
        str | None, typer.Option("--data", help="where the run's own data are now, if they were moved")
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
        found = api.evaluate(
            run, values.place(data) or None, reason, device=device, listeners=[screen], moved=moved
        ).to_dict()
    if as_json:
        print_json(found)
        return
    evaluation_table(found)
    if found["file"]:
        print(f"kept in   {found['file']}")


def report(
    run: Annotated[Path, typer.Argument(help="a run's folder", autocompletion=completion.run_names)],
) -> None:
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
