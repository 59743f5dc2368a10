"""A stand-in for the Hugging Face hub on loopback, which the real client talks to: files with their hashes
and ranges, repositories made, commits of regular and of large files. It can also fail as hubs do.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".parquet")


@dataclass
class Repository:
    """The files of one repository. `fault` is what goes wrong with it: "cut" ends the answer in the middle,
    "wrong" changes bytes, "slow" sends one byte at a time, "silent" answers nothing, and a number is the
    status of every answer.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    fault: str | int = ""


class StandIn(ThreadingHTTPServer):
    """The server; `asked` counts requests by method and path, `sent` all bytes that were sent to it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.received: list[bytes] = []
        self.tokens: set[str | None] = set()
        self.closing = threading.Event()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle_error(self, *_: Any) -> None:
        """Nothing: a client that goes away is what some tests are about."""

    def close(self) -> None:
        """Let every answer go and end."""
        self.closing.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def parse_request(self) -> bool:
        """No request on a connection that was kept open is answered once the server is closed."""
        if self.server.closing.is_set():
            self.close_connection = True
            return False
        return super().parse_request()

    def log_message(self, *_: Any) -> None:
        """Nothing: the client's own errors tell."""

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def _note(self) -> None:
        self.path = self.path.partition("?")[0]
        self.server.asked[f"{self.command} {self.path}"] += 1
        self.server.tokens.add(self.headers.get("Authorization"))

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        self._answer(json.dumps(value).encode(), status, **{"Content-Type": "application/json", **headers})

    def _answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _get(self) -> None:
        self._note()
        if self.path == "/api/whoami-v2":
            return self._json({"type": "user", "name": "me", "orgs": []})
        if self.path.startswith("/api/models/"):
            return self._about(self.path.removeprefix("/api/models/").partition("/revision/")[0])
        repo, marked, rest = self.path.removeprefix("/").partition("/resolve/")
        if not marked:
            return self._json({"error": "not here"}, 404)
        return self._file(repo, rest.partition("/")[2])

    def _missing(self, code: str) -> None:
        self._json({"error": code}, 404, **{"X-Error-Code": code, "X-Error-Message": code})

    def _about(self, repo: str) -> None:
        known = self.server.repositories.get(repo)
        if known is None:
            return self._missing("RepoNotFound")
        listed = [{"rfilename": name} for name in known.files]
        return self._json(
            {"id": repo, "sha": COMMIT, "private": known.private, "siblings": listed, "tags": []}
        )

    def _file(self, repo: str, name: str) -> None:
        known = self.server.repositories.get(repo)
        if known is None:
            return self._missing("RepoNotFound")
        if isinstance(known.fault, int):
            code = {"X-Error-Code": "GatedRepo"} if known.fault == 403 else {}
            return self._json({"error": "no"}, known.fault, **code)
        if known.fault == "silent":
            self.server.closing.wait(60)
            self.close_connection = True
            return None
        if name not in known.files:
            self._json({"error": "no"}, 404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return None
        content = known.files[name]
        digest = (
            hashlib.sha256(content).hexdigest() if name.endswith(LARGE) else hashlib.sha1(content).hexdigest()
        )
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if name.endswith(LARGE):
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        start, status = 0, 200
        if (asked := self.headers.get("Range")) and asked.startswith("bytes="):
            start, status = int(asked.removeprefix("bytes=").partition("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if known.fault == "wrong":
            content = content[:-8] + bytes(8 * [7])
        return self._send(content[start:], status, headers, str(known.fault))

    def _send(self, body: bytes, status: int, headers: dict[str, str], fault: str) -> None:
        if fault not in ("cut", "slow") or self.command == "HEAD":
            return self._answer(body, status, **headers)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        if fault == "cut":
            if status == 200:  # the second time not even a byte more
                self.wfile.write(body[: len(body) // 2])
            return None
        for place in range(len(body)):
            if self.server.closing.is_set():
                return None
            self.wfile.write(body[place : place + 1])
            self.wfile.flush()
            time.sleep(0.1)
        return None

    def do_PUT(self) -> None:
        self._note()
        body = self._body()
        self.server.large[self.path.rpartition("/")[2]] = body
        self._answer(b"")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while length := int(self.rfile.readline().strip(), 16):
                parts.append(self.rfile.read(length))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.received.append(body)
        return body

    def do_POST(self) -> None:
        self._note()
        body, path = self._body(), self.path
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if "/preupload/" in path:
            files = [
                {
                    "path": item["path"],
                    "uploadMode": "lfs" if item["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for item in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if path.endswith("/info/lfs/objects/batch"):
            return self._batch(json.loads(body)["objects"])
        if "/commit/" in path:
            repo = path.removeprefix("/api/models/").partition("/commit/")[0]
            return self._commit(repo, [json.loads(line) for line in body.splitlines()])
        return self._json({"error": "not here"}, 404)

    def _create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if repo.startswith("others/"):
            return self._json({"error": "not yours"}, 403)
        private = asked.get("private") or asked.get("visibility") == "private"
        self.server.repositories[repo] = Repository(private=bool(private))
        return self._json({"url": f"{self.server.address}/{repo}", "name": repo})

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        answer = [
            {**item, "actions": {"upload": {"href": f"{self.server.address}/large/{item['oid']}"}}}
            for item in objects
        ]
        self._json({"transfer": "basic", "objects": answer})

    def _commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        known = self.server.repositories[repo]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                known.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                known.files[value["path"]] = self.server.large[value["oid"]]
        self._json({"commitUrl": f"{self.server.address}/{repo}/commit/{COMMIT}", "commitOid": COMMIT})
