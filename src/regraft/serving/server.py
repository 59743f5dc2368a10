"""The process: a socket, the signals, and connections that are not waited for endlessly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from regraft.errors import UsageError
from regraft.serving.app import application
from regraft.serving.limits import Access, Limits
from regraft.serving.metrics import Meter
from regraft.serving.shelf import Load, Shelf

HEAD = 32 << 10  # bytes of a request's headers


def serve(
    places: dict[str, Path],
    load: Load,
    host: str = "127.0.0.1",
    port: int = 8000,
    access: Access | None = None,
    limits: Limits | None = None,
    engine: str = "auto",
    said: Callable[[str], None] = print,
) -> None:
    """Serve the models in these folders, by name, until SIGTERM or Ctrl-C; then what was begun is ended.
    SIGHUP reads them again.

    `load` is given a folder and the name of an engine: the one named here, or else what the run settled on.
    `said` hears where, once requests are taken. Raises UsageError where a folder holds no model, or the
    address cannot be had.
    """
    limits, meter = limits or Limits(), Meter()
    with bound(host, port) as listening:
        shelf = Shelf(places, load, limits, meter, engine)
        app = application(shelf, limits, access or Access(), meter)
        config = uvicorn.Config(
            app,
            http=type("Patient", (Patient,), {"head_seconds": limits.head_seconds}),
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=limits.connections,
            h11_max_incomplete_event_size=HEAD,
            timeout_graceful_shutdown=int(2 * limits.seconds) + 1,
        )
        names = ", ".join(places)
        server = Server(config, shelf, lambda: said(f"serving {names} at {address_of(listening)}"))
        asyncio.run(server.serve(sockets=[listening]))


@contextlib.contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket bound to the address. Raises UsageError where it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"--host {host} is no address of this machine: {error.strerror or error}.") from None
    with listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
        except OSError as error:
            raise UsageError(
                f"{host}:{port} cannot be listened at: {error.strerror}. "
                "Another --port, or 0 for any that is free?"
            ) from None
        yield listening


def address_of(listening: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


class Server(uvicorn.Server):  # type: ignore[misc]
    """Ends cleanly on the first SIGTERM or Ctrl-C, at once on the second; reads models again on SIGHUP."""

    def __init__(self, config: uvicorn.Config, shelf: Shelf, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self.should_exit: bool = False
        self.shelf, self.listening = shelf, listening
        self.reloads: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Inside, signals are heard by the event loop."""
        loop = asyncio.get_running_loop()
        heard = [(signal.SIGINT, self._stop), (signal.SIGTERM, self._stop)]
        if hasattr(signal, "SIGHUP"):
            heard.append((signal.SIGHUP, self._reload))
        before = {number: signal.getsignal(number) for number, _ in heard}
        for number, reaction in heard:
            try:
                loop.add_signal_handler(number, reaction)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_, reaction=reaction: loop.call_soon_threadsafe(reaction))
        try:
            yield
        finally:
            for number, _ in heard:
                with contextlib.suppress(NotImplementedError):
                    loop.remove_signal_handler(number)
                signal.signal(number, before[number])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so."""
        await super().startup(sockets)
        self.listening()

    def _stop(self) -> None:
        if self.should_exit:
            self.force_exit = True
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is broken off would be told
        else:
            print("stopping: what was begun is ended", file=sys.stderr)
        self.should_exit = True

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self.shelf.reload())
        self.reloads.add(task)
        task.add_done_callback(self.reloads.discard)


class Patient(H11Protocol):  # type: ignore[misc]
    """A connection whose headers do not come within `head_seconds` is closed."""

    head_seconds = 10.0

    def connection_made(self, transport: Any) -> None:
        """A caller is there."""
        super().connection_made(transport)
        self.late: asyncio.TimerHandle | None = None
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Something came."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone."""
        super().connection_lost(exc)
        self._forget()

    def _watch(self) -> None:
        """The clock runs from the first byte of a request's headers to the last."""
        waiting = self.cycle is None or self.cycle.response_complete
        if not waiting:
            self._forget()
        elif self.late is None:
            self.late = self.loop.call_later(self.head_seconds, self.transport.close)

    def _forget(self) -> None:
        if self.late is not None:
            self.late.cancel()
            self.late = None
