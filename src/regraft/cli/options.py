"""Arguments and options that several verbs have in common, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATA = "folder of class folders, or with train/ and test/, or a table"

Data = Annotated[Path, typer.Argument(help=DATA)]
Out = Annotated[Path | None, typer.Option(help="the run's folder; default runs/<data name>, next free")]
Overwrite = Annotated[bool, typer.Option(help="start anew in --out")]
Backbone = Annotated[str | None, typer.Option(help="packaged:NAME, timm:NAME, path:PLACE, run:FOLDER")]
Size = Annotated[int | None, typer.Option(help="input size in pixels")]
Budget = Annotated[str | None, typer.Option(help="upper bound for the whole run: 10m, 1h30m")]
MaxParams = Annotated[
    str | None, typer.Option(help="most parameters of a backbone that is chosen automatically: 5M, 400k")
]
Splits = Annotated[Path | None, typer.Option(help="an earlier run whose split is kept")]
Fixes = Annotated[Path | None, typer.Option(help="an edited csv of regraft audit --export")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="section.name=value, as in recipe.yaml")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress")]
AsJson = Annotated[bool, typer.Option("--json", help="the result as JSON on standard output")]
