"""Commands as they are typed, each in a process of its own, forked from one that has imported torch and
timm already.

To import them costs a fresh interpreter three seconds, which is more than most commands take. A fork is a
process all the same: it has its own working folder, environment, signals and end. Where the system cannot
fork it is a fresh interpreter, and tests of what a fresh interpreter does start one themselves.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import IO


def call(
    *words: object, stdin: str | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """`regraft WORDS`, when it has ended. Whatever it was given, a user sees no traceback."""
    started = start(*words, stdin=stdin, cwd=cwd)
    out, err = started.communicate()
    assert "Traceback" not in out + err, err
    return subprocess.CompletedProcess(started.words, started.wait(), out, err)


def start(*words: object, stdin: str | None = None, cwd: Path | None = None, first: str = "") -> Started:
    """`regraft WORDS`, begun, after the Python code `first`; without words that code is all there is."""
    return Started([str(word) for word in words], stdin, cwd, first)


class Started:
    """A process at work, with what `subprocess.Popen` offers."""

    def __init__(self, words: list[str], stdin: str | None, cwd: Path | None, first: str) -> None:
        self.words, self.files = (
            words,
            [tempfile.NamedTemporaryFile("w+", encoding="utf-8") for _ in range(3)],  # noqa: SIM115
        )
        self.files[0].write(stdin or "")
        self.files[0].flush()
        names = [file.name for file in self.files]
        given = (words, names, str(cwd or Path.cwd()), dict(os.environ), first)
        self.process = _context().Process(target=_work, args=given, daemon=True)  # type: ignore[attr-defined]
        self.process.start()

    @property
    def returncode(self) -> int | None:
        """None while it runs; -N where the signal N ended it."""
        return self.process.exitcode  # type: ignore[no-any-return]

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def wait(self) -> int:
        """The exit status, when it has ended."""
        self.process.join()
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """End it at once, wherever it is."""
        self.process.kill()

    def send_signal(self, number: int) -> None:
        """As the terminal or a scheduler does."""
        os.kill(self.process.pid, number)

    def communicate(self) -> tuple[str, str]:
        """What it wrote to its output and its errors, when it has ended."""
        self.wait()
        out, err = (Path(file.name).read_text(encoding="utf-8") for file in self.files[1:])
        return out, err


@functools.cache
def _context() -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context, before = multiprocessing.get_context("forkserver"), os.environ.get("PYTHONPATH")
    context.set_forkserver_preload(["preloaded"])
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # where it finds that module, and regraft
    forkserver.ensure_running()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before
    return context


def _work(words: list[str], names: list[str], cwd: str, environment: dict[str, str], first: str) -> None:
    """What the process does."""
    sys.stdin, sys.stdout, sys.stderr = (
        _standard(*given) for given in zip(range(3), names, "rww", strict=True)
    )
    # A shell has what it runs in the background ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["regraft", *words]
    exec(first, {})
    if words:
        from regraft.cli import main

        main()


def _standard(number: int, name: str, mode: str) -> IO[str]:
    """The system's standard input, output or errors led to a file, and Python's own object for it."""
    with open(name, mode) as file:
        os.dup2(file.fileno(), number)
    return open(number, mode, encoding="utf-8", buffering=1 if number == 2 else -1, closefd=False)
