"""The verbs around finished runs: one function each, no logic of its own. Heavy imports happen inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft import streams
from regraft.errors import UsageError


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="finished runs that share their test set; the first is compared with")
    ],
    out: Annotated[
        Path | None, typer.Option(help="a page (.html) or the picture alone (.svg) to write")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the result as JSON on standard output")] = False,
) -> None:
    """Compare finished runs on the same test examples, paired."""
    from regraft import api
    from regraft.artifacts import to_json
    from regraft.console import comparison_table

    if out is not None and out.suffix.lower() not in (".html", ".svg"):
        raise UsageError(f"--out {out} is neither .html nor .svg.")
    found = api.compare(*runs).to_dict()
    if as_json:
        print(to_json(found), file=streams.for_programs())
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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the result as JSON on standard output")] = False,
) -> None:
    """Evaluate a finished run's model again: on its own test set, or on DATA. Every reading of test is
    recorded.
    """
    from regraft import api
    from regraft.artifacts import to_json
    from regraft.console import Screen, evaluation_table

    screen = Screen(quiet or as_json)
    try:
        found = api.evaluate(run, data, reason, device=device, listeners=[screen], moved=moved).to_dict()
    finally:
        screen.close()
    if as_json:
        print(to_json(found), file=streams.for_programs())
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
    as_json: Annotated[bool, typer.Option("--json", help="the list as JSON on standard output")] = False,
) -> None:
    """List the runs below FOLDER with their headline, the newest first."""
    from regraft.artifacts import to_json
    from regraft.console import runs_table
    from regraft.run.listed import list_runs

    found = [run.to_dict() for run in list_runs(folder)]
    if as_json:
        print(to_json(found), file=streams.for_programs())
    elif found:
        runs_table(found)
    else:
        print(f"There are no runs below {folder}.")
