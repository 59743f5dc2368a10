"""The verb that hands a model to other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli import completion, options
from regraft.cli.shown import print_json, progress, tell_note


def export(
    run: Annotated[
        Path, typer.Argument(help="a finished run, or a model folder", autocompletion=completion.run_names)
    ],
    to: Annotated[str, typer.Option(help="onnx, openvino, torch, timm or transformers")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="the folder to write; default RUN/exports/FORMAT, next free")
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(help="int8: smaller, of onnx and openvino; says what it costs")
    ] = None,
    force: Annotated[bool, typer.Option(help="hand an export in int8 over whatever it costs")] = False,
    web: Annotated[
        Path | None,
        typer.Option(help="an unpacked npm package onnxruntime-web, for the page beside an ONNX graph"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="where the run's data are now, or examples to compare a model without its run with"
        ),
    ] = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Export the model for other libraries, proven on up to 200 real examples; refused where it differs."""
    from regraft import api
    from regraft.console import export_table
    from regraft.ready import described

    if not quiet:
        tell_note(run, described(run)[1])
    with progress(quiet or as_json) as screen:
        exported = api.export(
            run, to, out, quantize=quantize, data=data, force=force, web=web, listeners=[screen]
        ).to_dict()
    if as_json:
        print_json(exported)
    else:
        export_table(exported)
