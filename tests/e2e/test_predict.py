"""`regraft predict` as it is typed: whatever names the items, however the answers are written, and after a kill."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import regraft
from commands import call, start
from conftest import Fitted
from regraft.artifacts import read_json, read_parquet, write_json
from regraft.ready import Ready, make_ready

SLOWLY = """
import time
from regraft.written import Lines
add = Lines.add
Lines.add = lambda self, rows: (time.sleep(0.003), add(self, rows))
"""

LOADED = """
import sys
from regraft.cli import main
try:
    main()
finally:
    print(*{"torch", "timm", "sklearn", "scipy.stats"} & sys.modules.keys(), file=sys.stderr)
"""


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def promising(fitted: Fitted, tmp_path: Path) -> Path:
    """The model of the fixture, as if it had been promised that answers above 0.999 are right."""
    place = tmp_path / "promising"
    shutil.copytree(fitted.run / "model", place)
    write_json(place / "regraft.json", read_json(place / "regraft.json") | {"thresholds": {"0.95": 0.999}})
    return place


def test_folders_patterns_tables_and_lines_name_items_in_their_order(fitted: Fitted, tmp_path: Path) -> None:
    data = fitted.data
    red, blue = sorted(str(file) for file in (data / "red").iterdir()), data / "blue" / "3.png"
    table = tmp_path / "table.csv"
    table.write_text(f"id;path\n1;{os.path.relpath(blue, tmp_path)}\n2;gone.png\n", encoding="utf-8")
    rows = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"filename": [str(blue), None], "x": [1, 2]}), rows)
    words = [blue, str(data / "r*" / "1*.png"), table, "-", rows, str(data / "**" / "29.png"), "no*.png"]
    done = call("predict", fitted.run, *words, "--format", "jsonl", stdin=f"{red[0]}\n\n{data / 'red'}\n")
    found = lines(done.stdout)
    given = [
        str(blue),
        *(name for name in red if "/1" in name),
        str(tmp_path / os.path.relpath(blue, tmp_path)),
    ]
    given += [str(tmp_path / "gone.png"), red[0], *red, str(tmp_path / str(blue)), str(tmp_path)]
    given += [*sorted(str(data / name / "29.png") for name in ("red", "green", "blue")), "no*.png"]
    assert [row["source"] for row in found] == given
    assert [row["source"] for row in found if row["error"]] == [
        *(str(tmp_path / "gone.png"), str(tmp_path), "no*.png")
    ]
    assert done.returncode == 1
    other = tmp_path / "other.csv"
    other.write_text("number,label\n1,2\n", encoding="utf-8")
    done = call("predict", fitted.run, blue, other)
    assert (done.returncode, done.stdout) == (2, "")
    assert "has no column `path` that names the images to predict; it has number, label" in done.stderr


def test_a_file_of_answers_in_every_format_and_its_ending(fitted: Fitted, tmp_path: Path) -> None:
    files = [fitted.data / "red" / "1.png", fitted.data / "blue" / "2.png"]
    for form in ("csv", "jsonl", "parquet"):
        out = tmp_path / "new" / f"answers.{form}"
        done = call("predict", fitted.run, *files, "--out", out, "--top", 2)
        assert (done.returncode, done.stdout) == (0, "")
        again = call("predict", fitted.run, *files, "--out", out)
        assert again.returncode == 2
        assert "--resume, or write it anew by --overwrite" in again.stderr
        assert call("predict", fitted.run, *files, "--out", out, "--overwrite", "--top", 2).returncode == 0
    folder = tmp_path / "new"
    of_csv = list(csv.DictReader(io.StringIO((folder / "answers.csv").read_text())))
    of_lines = lines((folder / "answers.jsonl").read_text())
    of_parquet = read_parquet(folder / "answers.parquet").to_pylist()
    for one, two, three in zip(of_csv, of_lines, of_parquet, strict=True):
        assert one["label"] == two["label"] == three["label"]
        assert (
            list(two["probabilities"])
            == [one["label_1"], one["label_2"]]
            == [three["label_1"], three["label_2"]]
        )
        assert float(one["familiarity"]) == pytest.approx(two["familiarity"], abs=1e-5)
    assert call("predict", fitted.run, *files, "--format", "parquet").returncode == 2
    assert call("predict", fitted.run, *files, "--resume").returncode == 2
    assert call("predict", fitted.run, *files, "--top", 0).returncode == 2
    done = call("predict", fitted.run, files[0], "--top", 3)
    assert done.stdout.split()[:2] == [str(files[0]), "red"]
    assert {"green", "blue"} <= set(done.stdout.replace(",", "").split())


def test_killed_in_the_middle_it_is_gone_on_with_and_no_line_is_lost_or_there_twice(
    fitted: Fitted, tmp_path: Path
) -> None:
    files, out = sorted(str(file) for file in fitted.data.rglob("*.png")) * 3, tmp_path / "answers.jsonl"
    words = ["predict", fitted.run, "-", "--out", out, "--engine", "torch-float32"]
    started = start(*words, stdin="\n".join(files), first=SLOWLY)
    while started.poll() is None and (not out.exists() or out.read_bytes().count(b"\n") < 40):
        time.sleep(0.01)
    started.kill()
    started.wait()
    kept = out.read_bytes()
    assert 40 <= kept.count(b"\n") < len(files)
    with open(out, "ab") as file:  # as a kill in the middle of a line would leave it
        file.write(b'{"source": "half of')
    done = call(*words, "--resume", stdin="\n".join(files))
    assert done.returncode == 0, done.stderr
    assert [row["source"] for row in lines(out.read_text())] == files
    assert out.read_bytes().startswith(kept[: kept.rindex(b"\n")])
    # Done already: nothing is added; another list is not the one that was begun
    whole = out.read_bytes()
    assert call(*words, "--resume", stdin="\n".join(files)).returncode == 0
    assert out.read_bytes() == whole
    refused = call(*words, "--resume", stdin="\n".join(files[1:]))
    assert refused.returncode == 2
    assert "was made of another list" in refused.stderr
    assert out.read_bytes() == whole


def test_below_a_promised_precision_it_is_not_sure(promising: Path, fitted: Fitted, tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    Image.fromarray(np.full((48, 48, 3), 128, np.uint8)).save(grey)
    red = fitted.data / "red" / "1.png"
    for engine in ("torch-float32", "auto"):
        words = ["predict", promising, red, grey, "--precision", 0.95, "--engine", engine]
        found = lines(call(*words, "--format", "jsonl").stdout)
        assert [row["sure"] for row in found] == [row["probability"] >= 0.999 for row in found]
        assert "not sure" in call(*words).stdout.splitlines()[1]
    refused = call("predict", promising, red, "--precision", 0.99)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "cannot promise that 99% of its answers are right: it promises 0.95 at most" in refused.stderr


def test_of_a_few_items_neither_pytorch_nor_timm_is_loaded_once_the_graph_is_there(
    fitted: Fitted, tmp_path: Path, own_cache: Path
) -> None:
    files = [
        fitted.data / "red" / "1.png",
        fitted.data / "blue" / "broken.png",
        fitted.data / "blue" / "2.png",
    ]
    first = lines(call("predict", fitted.run, *files, "--format", "jsonl").stdout)
    if Ready.of(fitted.run, own_cache) is None:
        pytest.skip("OpenVINO is not installed: no graph is kept")
    words = [sys.executable, "-c", LOADED, "predict", str(fitted.run), *map(str, files), "--format", "jsonl"]
    again = subprocess.run(words, capture_output=True, text=True)
    assert (again.returncode, again.stderr.strip()) == (1, "")
    for one, two in zip(first, lines(again.stdout), strict=True):
        assert (one["source"], one["label"], one["error"]) == (two["source"], two["label"], two["error"])
        for name, share in one["probabilities"].items():
            assert two["probabilities"][name] == pytest.approx(share, abs=1e-4)
        assert two["familiarity"] == pytest.approx(one["familiarity"], abs=0.1)
    # Another temperature, another backbone: another graph. One that is torn is none
    shutil.copytree(fitted.run / "model", tmp_path / "other")
    write_json(
        tmp_path / "other" / "regraft.json", read_json(tmp_path / "other" / "regraft.json") | {"name": "x"}
    )
    assert Ready.of(tmp_path / "other", own_cache) is None
    for graph in (own_cache / "openvino").glob("*.xml"):
        torn = graph.read_bytes()[:100]
        graph.unlink()  # it is a link, and other tests have the file
        graph.write_bytes(torn)
    assert Ready.of(fitted.run, own_cache) is None
    model = regraft.load(fitted.run)
    assert make_ready(model, fitted.run, own_cache)
    assert not make_ready(model, fitted.run, None)


def test_many_items_go_by_the_engine_that_agrees_and_how_far_is_told(fitted: Fitted) -> None:
    files = sorted(fitted.data.rglob("*.png"))
    model = regraft.load(fitted.run)
    agreed = model.agreement(files)
    if agreed is None:
        pytest.skip("float32 PyTorch is the fastest here: there is nothing to compare")
    assert (agreed.items, agreed.same) == (32, 32)
    exact = regraft.load(fitted.run, engine="torch-float32").predict(files)
    for ours, theirs in zip(model.predict(files), exact, strict=True):
        assert ours.label == theirs.label
        assert ours.probability == pytest.approx(theirs.probability, abs=max(0.01, 4 * agreed.largest))
    assert model.agreement(files) == agreed  # remembered
    other = regraft.load(fitted.run)
    for value in other.head.parameters():
        value.data.zero_()
    compared = other.agreement(files)
    assert compared is not None
    assert compared.largest == 0 < agreed.largest, "another head on the same backbone is compared on its own"
    with pytest.raises(
        regraft.errors.UsageError, match="'fast' does not run on cpu; these do: auto, torch-float32"
    ):
        regraft.load(fitted.run, engine="fast")


def test_a_stream_of_any_length_takes_no_more_memory(fitted: Fitted) -> None:
    model = regraft.load(fitted.run, engine="torch-float32")
    picture = np.full((40, 40, 3), 90, np.uint8)
    peaks = []
    for count in (200, 200, 1000):
        tracemalloc.start()
        for _ in model.predict_each(picture for _ in range(count)):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 300_000  # the answers alone would be a megabyte
