"""What stands before the application: who is answered, the headers of every answer, and what is counted."""

from __future__ import annotations

import time
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from regraft.serving.bodies import Incoming
from regraft.serving.limits import Access, Refused
from regraft.serving.metrics import Meter
from regraft.serving.schemas import OPEN

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=(), payment=(), usb=()",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Guard:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, access: Access, meter: Meter, paths: frozenset[str]) -> None:
        self.app, self.access, self.meter, self.paths = app, access, meter, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, path = time.monotonic(), scope["path"]
        label = path if path in self.paths else "other"

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                self.meter.requests.labels(label, str(message["status"])).inc()
                self.meter.seconds.labels(label).observe(time.monotonic() - began)
            await send(message)

        refused = self.access.refusal(dict(scope["headers"]), path in OPEN)
        if refused is not None:
            if not await Incoming(receive).drained():
                refused.headers["Connection"] = "close"
            await answer_to(refused)(scope, receive, sending)
            return
        await self.app(scope, receive, sending)


def answer_to(refused: Refused, more: dict[str, Any] | None = None) -> JSONResponse:
    """A refusal as it is sent."""
    return JSONResponse(
        {"error": refused.reason, **(more or {})}, status_code=refused.status, headers=refused.headers
    )
