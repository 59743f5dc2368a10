"""The tour of the README, command by command as it stands there, on a small run in place of photographs."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import time
import urllib.request
from pathlib import Path

import pytest

from commands import call, start
from conftest import Fitted

README = Path(__file__).resolve().parents[2] / "README.md"


def commands() -> dict[str, list[str]]:
    """The words of each command of the tour, by its verb."""
    section = (
        README.read_text(encoding="utf-8").partition("## A tour of five commands")[2].partition("\n## ")[0]
    )
    words = [
        shlex.split(line, comments=True) for line in re.findall(r"^    regraft (.+)$", section, re.MULTILINE)
    ]
    first: dict[str, list[str]] = {}  # what comes after the five shows more of one of them
    for verb, *rest in words:
        first.setdefault(verb, [verb, *rest])
    return first


@pytest.fixture
def here(fitted: Fitted, tmp_path: Path) -> Path:
    """A folder with `photos/` and the finished run of it."""
    shutil.copytree(fitted.data, tmp_path / "photos")
    shutil.copytree(fitted.run, tmp_path / "runs" / "photos")
    return tmp_path


def test_the_five_commands(here: Path) -> None:
    tour = commands()
    assert list(tour) == ["fit", "report", "predict", "serve", "export"]
    planned = call(*tour["fit"], "--dry-run", cwd=here)  # a run itself takes minutes
    assert planned.returncode == 0, planned.stderr
    assert "write runs/photos-2" in planned.stdout
    said = call(*tour["report"], cwd=here)
    assert (said.returncode, said.stdout.strip()) == (0, "runs/photos/report.html"), said.stderr
    answers = call(*tour["predict"], cwd=here)
    assert answers.returncode == 0, answers.stderr
    lines = [line for line in answers.stdout.splitlines() if line.startswith("photos/")]
    assert len(lines) == 90
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'regraft[export]'")
    exported = call(*tour["export"], cwd=here)
    assert exported.returncode == 0, exported.stderr
    assert list((here / "runs" / "photos" / "exports" / "onnx").glob("*.onnx"))


def test_the_server_answers_and_ends_with_ctrl_c(here: Path) -> None:
    pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'regraft[serve]'")
    process = start(*commands()["serve"], "--port", 0, cwd=here)
    place = Path(process.files[1].name)
    try:
        for _ in range(600):
            if found := re.search(r"http://127\.0\.0\.1:\d+", place.read_text()):
                break
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        assert found
        with urllib.request.urlopen(f"{found[0]}/models", timeout=30) as answer:
            assert b'"photos"' in answer.read()
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait() in (0, 1, 130)
