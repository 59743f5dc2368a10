"""A caller of the server, over a plain socket, and one of the application without any."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Said:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """Asks a server on this machine, a connection a request."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **how: Any
    ) -> Said:
        """One request; `body` may be bytes, or an iterator that is sent in chunks without a length."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {}, **how)
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Said(answer.status, named, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Said:
        """A GET."""
        return self.ask("GET", path, headers=headers)

    def files(self, *files: tuple[str, bytes], query: str = "", kind: str = "image/png") -> Said:
        """A form with these files, (name, content) each."""
        body, headers = form(files, kind)
        return self.ask("POST", f"/predict{query}", body, headers)

    def json(self, body: Any, query: str = "") -> Said:
        """A body in JSON; bytes are sent as they are."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", f"/predict{query}", sent, {"Content-Type": "application/json"})

    def raw(self, *pieces: bytes, seconds: float = 60) -> bytes:
        """All that comes back for these bytes until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as wire:
            for piece in pieces:
                wire.sendall(piece)
            got = b""
            while more := wire.recv(65536):
                got += more
        return got


def form(
    files: Sequence[tuple[str, bytes]], kind: str = "image/png", field: str = "file"
) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a form with these files."""
    edge, parts = b"a-boundary-of-tests", []
    for name, content in files:
        about = f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        about += f"Content-Type: {kind}\r\n\r\n"
        parts.append(b"--" + edge + b"\r\n" + about.encode() + content + b"\r\n")
    body = b"".join(parts) + b"--" + edge + b"--\r\n"
    return body, {"Content-Type": f"multipart/form-data; boundary={edge.decode()}"}


async def asked(
    app: Any, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> Said:
    """What an ASGI application answers."""
    name, _, query = path.partition("?")
    sent = {"host": "127.0.0.1", **{name.lower(): value for name, value in (headers or {}).items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": name,
        "raw_path": name.encode(),
        "query_string": query.encode(),
        "headers": [(key.encode(), value.encode()) for key, value in sent.items()],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "root_path": "",
        "state": {},
    }
    messages: list[dict[str, Any]] = []

    async def bodies() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "http.request", "body": body, "more_body": False}
        while True:
            yield {"type": "http.disconnect"}

    coming = bodies()

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    await app(scope, lambda: anext(coming), send)
    start = messages[0]
    named = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Said(start["status"], named, b"".join(one.get("body", b"") for one in messages[1:]))
