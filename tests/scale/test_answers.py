"""Predictions by workers: those of one process, in the same order, as a file or as a folder of parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import regraft
from regraft.cli import app
from regraft.crew import Crew
from regraft.scale.answering import Answers, answered

pytestmark = pytest.mark.ray


def test_answers_are_those_of_one_process_and_nothing_is_done_twice(
    crew: Crew, fitted: Any, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    files = [str(file) for file in sorted(fitted.data.rglob("*.png"))]
    files = [*files, str(tmp_path / "broken.png"), *files] * 4
    model = regraft.load(fitted.run, engine="torch-float32")
    away = list(answered(crew, Answers.of(fitted.run / "model", model, "torch-float32", 2, None), files))
    home = list(model.predict_each(files, top=2))
    assert [(row.source, row.label, row.error) for row in away] == [
        (row.source, row.label, row.error) for row in home
    ]
    assert [row.probability for row in away] == pytest.approx([row.probability for row in home], abs=1e-5)


def test_a_folder_of_parts_is_gone_on_with(crew: Crew, fitted: Any, tmp_path: Path) -> None:
    crew.rest()  # type: ignore[attr-defined]  # the command begins workers of its own
    names = [str(file) for file in sorted(fitted.data.rglob("*.png"))] * 3
    (tmp_path / "names").write_text("\n".join(names))
    out, model = tmp_path / "out", str(fitted.run)

    def call(*more: str) -> Any:
        called = [
            "predict",
            model,
            "-",
            "--out",
            str(out),
            "--format",
            "parquet",
            "--engine",
            "torch-float32",
        ]
        return CliRunner().invoke(app, [*called, *more], input=(tmp_path / "names").read_text())

    first = call("--workers", "2")
    assert first.exit_code == 0, first.output
    assert "2 workers of 1 thread" in first.stderr
    table = pq.read_table(out)
    assert table["source"].to_pylist() == names
    assert "is there already" in str(call().exception)
    (part,) = out.iterdir()
    pq.write_table(pq.read_table(part).slice(0, 100), part)  # as a kill leaves it: a part that ended before
    again = call("--resume", "--workers", "2")
    assert again.exit_code == 0, again.output
    assert pq.read_table(out).equals(table)
    assert sorted(file.name for file in out.iterdir()) == ["000000.parquet", "000001.parquet"]
