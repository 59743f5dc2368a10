"""The command line: one function a verb, no logic of its own. Heavy imports happen inside the verbs."""

from __future__ import annotations

import contextlib
import sys

import typer

from regraft import streams
from regraft.cli import data, export, machine, predict, publishing, runs, serve, training
from regraft.cli.shown import in_words
from regraft.errors import RegraftError

VERBS = (  # in the order of `regraft --help`
    training.fit,
    training.explore,
    training.demo,
    predict.predict,
    serve.serve,
    export.export,
    data.rank,
    data.audit,
    machine.models,
    machine.cache,
    runs.compare,
    runs.evaluate,
    runs.report,
    runs.runs,
    publishing.push,
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Transfer learning as a finished tool: from labelled images, texts or sounds to a tested model.",
)
for verb in VERBS:
    app.command()(verb)


def main() -> None:
    """Entry point: errors of ours as one clear message and their exit code, never a traceback."""
    import signal

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    streams.ready()
    with contextlib.suppress(ValueError, AttributeError):  # not in the main thread, or no such signal here
        # A scheduler's polite end is a Ctrl-C: the best so far is kept
        signal.signal(signal.SIGTERM, interrupt)
    code, said = _call()
    try:
        streams.flush()
    except OSError as error:  # also where this is what ended the verb
        code, said = (
            code or 1,
            "" if isinstance(error, BrokenPipeError) else f"standard output: {error.strerror}",
        )
    if said:
        print(f"regraft: {said}", file=sys.stderr)
    sys.exit(code)


def _call() -> tuple[int, str]:
    """Call the verb that the command line names; its exit code, and the message where it failed."""
    try:
        app(prog_name="regraft")  # also under python -m, where completion would be of that
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None), ""
    except RegraftError as error:
        return error.exit_code, str(error)
    except KeyboardInterrupt:
        return 1, "stopped"
    except BrokenPipeError:
        return 1, ""
    except OSError as error:
        return 1, in_words(error)
    return 0, ""
