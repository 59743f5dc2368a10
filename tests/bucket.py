"""A stand-in for an S3 store on loopback, which the real client talks to: objects, ranges of them, and lists."""

from __future__ import annotations

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

CHANGED = "2026-01-02T03:04:05.000Z"
CHANGED_HEADER = "Fri, 02 Jan 2026 03:04:05 GMT"


class Bucket(ThreadingHTTPServer):
    """The server of one bucket, `bucket`; keys in `closed` may not be read. `asked` counts requests by method and
    key ("" for lists).
    """

    daemon_threads = True

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects, self.closed = objects, set[str]()
        self.asked: Counter[tuple[str, str]] = Counter()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """End."""
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Bucket

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        asked = urlsplit(self.path)
        name, _, key = unquote(asked.path).lstrip("/").partition("/")
        self.server.asked[self.command, key] += 1
        if name != "bucket":
            self._fault(404, "NoSuchBucket")
        elif not key:
            self._list({key: values[0] for key, values in parse_qs(asked.query).items()})
        elif key in self.server.closed:
            self._fault(403, "AccessDenied")
        elif key not in self.server.objects:
            self._fault(404, "NoSuchKey")
        else:
            self._object(self.server.objects[key])

    def _object(self, content: bytes) -> None:
        status, span = 200, self.headers.get("Range")
        headers = {"Last-Modified": CHANGED_HEADER, "ETag": '"e"', "Accept-Ranges": "bytes"}
        if span:
            low, _, high = span.removeprefix("bytes=").partition("-")
            first, last = int(low), min(int(high or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            status, content = 206, content[first : last + 1]
        self._send(status, content, headers)

    def _list(self, query: dict[str, str]) -> None:
        prefix, mark = query.get("prefix", ""), query.get("delimiter", "")
        found: dict[str, bool] = {}
        for key in sorted(key for key in self.server.objects if key.startswith(prefix)):
            rest = key[len(prefix) :]
            folder = bool(mark) and mark in rest
            found[prefix + rest.partition(mark)[0] + mark if folder else key] = folder
        parts = [
            f"<CommonPrefixes><Prefix>{escape(key)}</Prefix></CommonPrefixes>"
            if folder
            else f"<Contents><Key>{escape(key)}</Key><Size>{len(self.server.objects[key])}</Size>"
            f"<LastModified>{CHANGED}</LastModified><ETag>&quot;e&quot;</ETag></Contents>"
            for key, folder in found.items()
        ]
        body = f"<IsTruncated>false</IsTruncated><KeyCount>{len(found)}</KeyCount>{''.join(parts)}"
        self._send(
            200, f"<ListBucketResult>{body}</ListBucketResult>".encode(), {"Content-Type": "application/xml"}
        )

    def _fault(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
        self._send(status, body.encode(), {"Content-Type": "application/xml"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
