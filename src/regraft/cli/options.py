"""Arguments and options that several verbs have in common, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli import completion

DATA = "folder of class folders, or with train/ and test/, a table, tar shards, or an address of these (s3://...)"

Data = Annotated[list[str], typer.Argument(help=DATA)]
Out = Annotated[Path | None, typer.Option(help="the run's folder; default runs/<data name>, next free")]
Overwrite = Annotated[bool, typer.Option(help="start anew in --out")]
Backbone = Annotated[
    str | None,
    typer.Option(
        help="packaged:NAME, timm:NAME, transformers:OWNER/NAME, path:PLACE or run:RUN; auto (the default) ranks "
        "those at hand, if more than one is",
        autocompletion=completion.backbones,
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        help="a picture's side in pixels, a text's most tokens, a sound's frames of 10 ms; else by the data"
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        help="upper bound for the whole run: 90s, 10m, 1h30m; only test is always predicted in full"
    ),
]
MaxParams = Annotated[
    str | None, typer.Option(help="most parameters of a backbone that is chosen automatically: 5M, 400k")
]
Network = Annotated[
    bool | None,
    typer.Option(
        "--network/--no-network", help="fetch and compare stronger models that fit the machine and the budget"
    ),
]
AcceptLicence = Annotated[
    list[str] | None,
    typer.Option(
        help="of --network: take models under this licence, which is not free for every use",
        autocompletion=completion.licences,
    ),
]
Splits = Annotated[
    Path | None,
    typer.Option(
        help="an earlier run: examples that it knew stay in the split they were in",
        autocompletion=completion.run_names,
    ),
]
Fixes = Annotated[Path | None, typer.Option(help="corrections: an edited csv of regraft audit --export")]
Task = Annotated[
    str | None,
    typer.Option(
        help="single: each example is of one class; multi: it has any number of labels; regression: numbers; auto "
        "(the default): by what the labels are",
        autocompletion=completion.tasks,
    ),
]
Labels = Annotated[
    str | None, typer.Option(help="columns of a table with 0 or 1 for each label, empty where unknown: a,b,c")
]
Targets = Annotated[
    str | None, typer.Option(help="columns of a table with numbers to be told, empty where unknown: a,b")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="section.name=value, as in recipe.yaml", autocompletion=completion.settings),
]
Offline = Annotated[
    bool, typer.Option("--offline", help="never touch the network, even for a model that was named")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps", autocompletion=completion.devices)]
Workers = Annotated[
    str | None,
    typer.Option(
        help="processes that share passes over the examples, by Ray: a number, or auto for as many as use the whole cluster"
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="the Ray cluster of --workers: auto, or ray://HOST:PORT; else one on this machine alone"
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress")]
AsJson = Annotated[bool, typer.Option("--json", help="the result as JSON on standard output")]
