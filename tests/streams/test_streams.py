"""Text leaves the process whatever its streams are: another encoding, closed, full, or read by nobody any
more.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from commands import start

MODEL = """
import os, sys
from regraft import ready
from regraft.model import Prediction

class Model:
    modality = "image"
    classes = ("красный", "\N{GREEN APPLE}")

    def predict_each(self, items, top, precision):
        for item in items:
            yield Prediction(str(item), "красный", 0.75, {"красный": 0.75, "\N{GREEN APPLE}": 0.25})

ready.described = lambda run: (run, {"preprocess": {"modality": "image"}, "task": "single", "classes": Model.classes})
ready.Ready.of = lambda folder, cache: Model()
"""
LATIN = "sys.stdout.reconfigure(encoding='cp1252', errors='strict')\n"  # a pipe on Windows
CLOSED = "sys.stdout.close(); os.close(1); sys.stdout = None\n"  # what Python makes of >&-
NAMES = ["a.png", "ключ.png", os.fsdecode(b"caf\xe9.png")]


def predict(form: str, first: str = "", stdin: bytes | None = None) -> tuple[int, str, str]:
    """The exit code, the output and the errors of `regraft predict` with a model that needs no weights."""
    names = NAMES if stdin is None else ["-"]
    started = start("predict", "run", *names, "--format", form, first=MODEL + first)
    out, err = started.communicate()
    assert "Traceback" not in err, err
    return started.wait(), out, err


@pytest.mark.parametrize("first", ["", LATIN])
def test_names_and_classes_in_every_format_and_encoding(first: str) -> None:
    code, out, err = predict("jsonl", first)
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [row["source"] for row in rows] == NAMES  # even bytes that are no text
    assert rows[0]["probabilities"]["\N{GREEN APPLE}"] == 0.25
    code, out, _ = predict("csv", first)
    table = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [row["source"] for row in table] == ["a.png", "ключ.png", "caf\\udce9.png"]
    assert {row["label"] for row in table} == {"красный"}
    code, out, _ = predict("table", first)
    assert code == 0
    assert out.splitlines()[1].split()[0] == ("ключ.png" if not first else "\\u043a\\u043b\\u044e\\u0447.png")


def test_csv_has_one_line_end_a_row_where_the_stream_makes_two_characters_of_it() -> None:
    _, out, _ = predict("csv", "sys.stdout.reconfigure(newline='\\r\\n')\n")
    # Read with universal newlines: a doubled \r would be a line of its own
    assert out.count("\n") == 1 + len(NAMES)


@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
def test_closed_output_is_what_nobody_wanted_to_see(form: str) -> None:
    assert predict(form, CLOSED)[0] == 0
    assert predict(form, "os.close(0); sys.stdin = None; os.close(2); sys.stderr = None\n")[0] == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_output_to_what_is_full_is_one_line_and_errors_to_it_are_none() -> None:
    code, _, err = predict("csv", "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n")
    assert (code, err) == (1, "regraft: standard output: No space left on device\n")
    told = (
        "Model.predict_each = lambda *a, f=Model.predict_each: "
        "(print('progress', file=sys.stderr, flush=True), f(*a))[1]\n"
    )
    code, out, _ = predict("csv", "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)\n" + told)
    assert (code, len(out.splitlines())) == (0, 1 + len(NAMES))


def test_a_pipe_that_is_read_no_more_ends_quietly() -> None:
    code, _, err = predict(
        "csv",
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        "sys.stdout = open(1, 'w', closefd=False)\n",
    )
    assert (code, err) == (1, "")


def test_names_on_standard_input_may_be_any_bytes(tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.write_bytes(b"caf\xe9.png\n")
    first = f"os.dup2(os.open({str(names)!r}, os.O_RDONLY), 0)\n"
    code, out, _ = predict("jsonl", first, stdin=b"")
    assert (code, json.loads(out)["source"]) == (0, os.fsdecode(b"caf\xe9.png"))


def test_python_m_regraft() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "regraft", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
    )
    assert result.returncode == 0
    assert "predict" in result.stdout
