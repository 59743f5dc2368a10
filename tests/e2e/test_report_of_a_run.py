"""A run's own report has its photographs; a run does not fail for the lack of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import regraft
from regraft.artifacts import read_events
from regraft.report import write_gallery


def test_a_run_writes_its_photographs(fitted: Any, tmp_path: Path) -> None:
    run = regraft.api.Run(Path(shutil.copytree(fitted.run, tmp_path / "run")))
    gallery = json.loads((run.path / "gallery.json").read_text())
    names = [g["name"] for g in gallery["galleries"]]
    assert names[-1] == "uncertain"
    assert all(item["picture"] for g in gallery["galleries"] for item in g["items"])
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Most uncertain" in page
    (run.path / "gallery.json").unlink()
    write_gallery(run.path)
    again = json.loads((run.path / "gallery.json").read_text())
    assert again["cells"] == gallery["cells"]


def test_a_gallery_that_fails_leaves_the_run_finished(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head_only: dict[str, Any]
) -> None:
    def broken(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("regraft.run.record.write_gallery", broken)
    run = regraft.fit(colours, tmp_path / "run", recipe=head_only)
    assert run.state["state"] == "finished"
    assert "Most uncertain" not in (run.path / "report.html").read_text(encoding="utf-8")
    notes = [event["text"] for event in read_events(run.path / "events.jsonl") if event["kind"] == "note"]
    assert notes[-1] == "without photographs in the report: the disk is full"
