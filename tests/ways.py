"""Ways to ask a finished model beside Python: the program beside an export, the server, and what a hub was sent."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import regraft
from commands import start
from regraft.prediction import Prediction
from standin import StandIn


def by_program(folder: Path, files: list[str]) -> list[dict[str, object]]:
    """What the program beside an export says."""
    words = [sys.executable, str(folder / "predict.py"), *files]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def by_server(run: Path, files: list[str], cwd: Path) -> list[dict[str, object]]:
    """What `regraft serve` says, asked about a few files at a time."""
    server = start("serve", f"model={run}", "--port", "0", cwd=cwd)
    try:
        while "http://" not in (said := Path(server.files[1].name).read_text()) or not said.endswith("\n"):
            assert server.poll() is None, server.communicate()
            time.sleep(0.05)
        address = "http://" + said.partition("http://")[2].split()[0].rstrip("/") + "/predict"
        lines: list[dict[str, object]] = []
        for begin in range(0, len(files), 5):
            items = [
                {"data": base64.b64encode(Path(file).read_bytes()).decode(), "name": file}
                for file in files[begin : begin + 5]
            ]
            body = json.dumps({"items": items}).encode()
            request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request) as answer:
                lines += json.loads(answer.read())["predictions"]
        return lines
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate()


def by_hub(run: Path, files: list[str], hub: StandIn, place: Path) -> list[Prediction]:
    """What the model says that a hub holds after the run was pushed to it."""
    regraft.push(run, "me/model")
    place.mkdir()
    for name, content in hub.repositories["me/model"].files.items():
        (place / name).write_bytes(content)
    return regraft.load(place).predict(files)
