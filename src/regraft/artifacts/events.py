"""What happens in a run, as one JSON object a line of events.jsonl and as calls of listeners."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from regraft.artifacts.files import plain, utf8

Listener = Callable[[dict[str, Any]], None]


class Events:
    """The event log of a run: one JSON object a line in the file `path` (None: no file), and a call of each
    listener. `fields` are part of every event.
    """

    def __init__(self, path: Path | None = None, listeners: tuple[Listener, ...] = (), **fields: Any) -> None:
        self.path, self.listeners, self.fields = path, listeners, fields

    def about(self, **fields: Any) -> Events:
        """A log that writes to the same file and adds these fields to every event."""
        return Events(self.path, self.listeners, **self.fields, **fields)

    def emit(self, kind: str, **fields: Any) -> None:
        """Append one event to the log and tell it to the listeners."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        event = {"time": now, "kind": kind, **plain({**self.fields, **fields})}
        if self.path is not None:
            _append(self.path, json.dumps(event, ensure_ascii=False))
        for listener in self.listeners:
            listener(event)

    def again(self, event: dict[str, Any]) -> None:
        """Tell an event that was told in another process."""
        fields = {name: value for name, value in event.items() if name not in ("time", "kind")}
        if event["kind"] == "tick":
            self.tick(**fields)
        else:
            self.emit(event["kind"], **fields)

    def note(self, text: str) -> None:
        """Append a remark that is worth knowing and is no decision."""
        self.emit("note", text=text)

    def tick(self, **fields: Any) -> None:
        """Tell the listeners, and not the log, of progress: `label`, `done`, `total` and whatever else to
        show.
        """
        for listener in self.listeners:
            listener({"kind": "tick", **self.fields, **fields})


def _append(path: Path, line: str) -> None:
    """Append a line to a file, whole or not at all. A line that an earlier kill tore is ended first."""
    try:
        with open(path, "a+b", buffering=0) as handle:
            size = handle.seek(0, os.SEEK_END)
            handle.seek(max(0, size - 1))
            whole = handle.read(1) in (b"", b"\n")
            data = utf8(f"{'' if whole else chr(10)}{line}\n")
            try:
                if handle.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                handle.truncate(size)
                raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a log. A line that a kill has torn is passed over."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        with contextlib.suppress(ValueError):
            events.append(json.loads(line))
    return events
