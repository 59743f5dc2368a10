"""What docs/predict.md tells of Python runs from top to bottom."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from conftest import Fitted

PAGE = Path(__file__).resolve().parents[2] / "docs" / "predict.md"


def test_the_page_runs(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(fitted.run, tmp_path / "runs" / "photos")
    shutil.copytree(fitted.data, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    exec("\n".join(blocks), {})
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == [str(Path("photos/red/0.png")), "red"]
    assert second.split()[1] == "blue"
    assert last.startswith("90 files,")
