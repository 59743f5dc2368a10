"""The verb that puts finished models behind HTTP: serve."""

from __future__ import annotations

from typing import Annotated

import typer

from regraft.cli import completion, options, values
from regraft.errors import UsageError

PACKAGES = ("fastapi", "starlette", "uvicorn", "h11", "prometheus_client", "python_multipart")


def serve(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="finished runs or model folders, or NAME=RUN", autocompletion=completion.run_names
        ),
    ],
    host: Annotated[
        str, typer.Option(help="address to listen at; all but this machine's own want a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="REGRAFT_TOKEN", help="what callers have to know; better in the environment"),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="a host name this server goes by, beside addresses and localhost")
    ] = None,
    max_wait: Annotated[
        str, typer.Option(help="a batch waits so long for items that are being read: 5ms")
    ] = "5ms",
    max_body: Annotated[str, typer.Option(help="largest request: 32MB")] = "32MB",
    max_files: Annotated[int, typer.Option(min=1, help="most items in a request")] = 64,
    max_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="largest item: pixels of a picture, characters of a text, seconds of a sound"
        ),
    ] = None,
    queue: Annotated[
        int, typer.Option(min=1, help="most items that wait; then callers are told to come again")
    ] = 256,
    timeout: Annotated[str, typer.Option(help="longest time for a request: 30s")] = "30s",
    engine: Annotated[
        str, typer.Option(help="torch-float32, openvino-bfloat16, ...; auto: as the run settled on")
    ] = "auto",
    device: options.Device = "auto",
) -> None:
    """Serve finished models over HTTP, with a page to try them in, until Ctrl-C. SIGHUP reads them again."""
    try:
        from regraft.serving import Limits, checked_access, places_of, serve
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in PACKAGES:
            raise
        raise UsageError(f"regraft serve needs {error.name}: pip install 'regraft[serve]'") from None

    from regraft import api

    limits = Limits(
        body=values.in_bytes(max_body, "--max-body"),
        files=max_files,
        queue=queue,
        seconds=values.moment(timeout, "--timeout"),
        wait=values.moment(max_wait, "--max-wait"),
        most=max_size,
    )
    access = checked_access(host, token, allow_host or [])
    serve(
        places_of(runs),
        lambda place, by: api.load(place, by, device),
        host,
        port,
        access,
        limits,
        engine,
        lambda line: print(f"{line}  (Ctrl-C ends it)", flush=True),
    )
