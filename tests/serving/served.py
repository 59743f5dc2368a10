"""One server for the tests that only ask, and items to ask about."""

from __future__ import annotations

import contextlib
import io
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from asking import Caller
from PIL import Image

from commands import Started, start
from conftest import Fitted

LIMITS = (
    "--max-body",
    "1MB",
    "--max-files",
    "5",
    "--queue",
    "64",
    "--timeout",
    "5s",
    "--max-size",
    "1000000",
)


class Running:
    """A server of its own process, and a caller of it."""

    def __init__(self, *words: object, cwd: Path) -> None:
        self.process: Started = start("serve", *words, "--port", "0", cwd=cwd)
        self.caller = Caller(self._port())

    def _port(self) -> int:
        while (code := self.process.poll()) is None:
            said = Path(self.process.files[1].name).read_text()
            if "http://" in said and said.endswith("\n"):
                return int(said.partition("http://")[2].partition("/")[0].rpartition(":")[2])
            time.sleep(0.02)
        raise AssertionError(f"the server ended with {code}: {self.process.communicate()}")

    @property
    def complaints(self) -> str:
        """What it wrote to standard error so far."""
        return Path(self.process.files[2].name).read_text()

    def hang_up(self) -> None:
        """Have it read its models again."""
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> tuple[int, str]:
        """End it as a scheduler does: its exit code, and what it complained of."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        complaints = self.process.communicate()[1]
        return self.process.wait(), complaints


@contextlib.contextmanager
def running(*words: object, cwd: Path) -> Iterator[Running]:
    """A server while `with` lasts; it ends with 0 and without a traceback."""
    server = Running(*words, cwd=cwd)
    try:
        yield server
    finally:
        code, complaints = server.stop()
    assert (code, "Traceback" in complaints) == (0, False), complaints


@pytest.fixture(scope="session")
def server(fitted: Fitted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of the colours under the name colours, with small limits."""
    place = tmp_path_factory.mktemp("served")
    with running(f"colours={fitted.run}", *LIMITS, cwd=place) as one:
        yield one


@pytest.fixture
def caller(server: Running) -> Caller:
    """Who asks it."""
    return server.caller


@pytest.fixture(scope="session")
def red() -> bytes:
    """A red picture as a PNG."""
    return png(np.full((48, 48, 3), (220, 40, 40), np.uint8))


def png(pixels: np.ndarray, kind: str = "PNG", **how: object) -> bytes:
    """(H, W, 3) uint8 pixels as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **how)
    return buffer.getvalue()
