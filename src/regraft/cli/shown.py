"""What verbs have in common of what they show: progress while they work, and how they end."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from regraft import streams
from regraft.errors import RegraftError

if TYPE_CHECKING:
    from regraft.console import Screen


@contextlib.contextmanager
def progress(quiet: bool) -> Iterator[Screen]:
    """A listener that shows progress on standard error until the block ends."""
    from regraft.console import Screen

    screen = Screen(quiet)
    try:
        yield screen
    finally:
        screen.close()


@contextlib.contextmanager
def progress_of_run(quiet: bool) -> Iterator[Screen]:
    """The progress of a run. Where it is stopped, or the disk is full, a message says how to go on."""
    with progress(quiet) as screen:
        try:
            yield screen
        except KeyboardInterrupt:
            screen.close()
            print(f"\nStopped. {screen.how_to_go_on()}", file=sys.stderr)
            raise typer.Exit(1) from None
        except OSError as error:
            if not screen.out:
                raise
            raise RegraftError(f"{in_words(error)}. {screen.command()}") from error


def in_words(error: OSError) -> str:
    """What the system said was wrong, and with which file."""
    named = isinstance(error.filename, (str, bytes, os.PathLike))
    place = f": {os.fsdecode(error.filename)}" if named else ""
    return f"{error.strerror or error}{place}"


def tell_note(run: Path, about: dict[str, Any]) -> None:
    """Say on standard error what to know of a run's model before it is used; `about` is what its regraft.json
    holds.
    """
    if note := about.get("note"):
        print(f"{run}: {note}.", file=sys.stderr)


def print_json(value: Any) -> None:
    """Write a result as JSON on standard output, for another program to read."""
    from regraft.artifacts import to_json

    print(to_json(value), file=streams.for_programs())
