"""The seven steps on texts: a table, a tiny encoder of random weights, every file of a run. Of long texts it sees
windows.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import regraft
import texts
from commands import call
from regraft.errors import UsageError
from regraft.model import Model
from regraft.ready import Ready, make_ready

FAULTS = [
    ("", "weather"),
    ("   ", "kitchen"),
    ("RAIN   storm and the cold wind of today", "weather"),
    ("rain storm AND the cold wind of today", "kitchen"),
    ("the rain and the snow, write to jane@example.org <br> today", "weather"),
    ("\U0001f600 عربي وَكَثِير <script>alert(1)</script>", "traffic"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> regraft.Run:
    place = tmp_path_factory.mktemp("texts")
    encoder = texts.tiny_encoder(place / "bert")
    table = texts.write_table(place / "data" / "all.csv", [*texts.labelled(40), *FAULTS])
    recipe = {
        "obtain": {"backbone": f"path:{encoder}"},
        "base": {"size": 12, "long": "windows"},
        "finetune": {"epochs": 2, "folds": 0},
        "run": {"engine": "torch-float32"},
    }
    return regraft.fit(table, place / "run", recipe=recipe)


def test_all_seven_steps_are_walked(run: regraft.Run) -> None:
    state = json.loads((run.path / "run.json").read_text())
    assert (state["state"], state["data"]["modality"]) == ("finished", "text")
    assert run.model.backbone.preprocess.windows > 1  # type: ignore[attr-defined]
    assert run.metrics["test"]["accuracy"].value > 0.5
    assert {"words alone", "nearest neighbours"} <= run.metrics["baselines"].keys()
    assert run.metrics["baselines"]["words alone"]["accuracy"]["value"] > 0.8
    # A network of random weights knows less than the words do
    settled = yaml.safe_load((run.path / "recipe.yaml").read_text())
    assert settled["head"]["beside"] is True
    assert settled["base"]["pooling"] in ("mean", "cls")
    assert {"the network without words beside it"} <= run.metrics["baselines"].keys()
    without = run.metrics["baselines"]["the network without words beside it"]["log_loss"]["value"]
    assert run.metrics["test"]["log_loss"].value < without
    assert state["data"]["quarantined"][0]["reason"] == "it is empty"
    findings = {finding["kind"] for finding in json.loads((run.path / "audit.json").read_text())["findings"]}
    assert {"quarantined", "e-mail addresses", "markup"} <= findings
    assert findings & {"contradicting labels", "contradicting labels in test"}


def test_the_model_folder_loads_anywhere_and_answers_alike(run: regraft.Run, tmp_path: Path) -> None:
    moved = tmp_path / "model"
    shutil.copytree(run.path / "model", moved)
    assert (moved / "tokenizer.json").is_file()
    assert "tokenizer" not in json.loads((moved / "config.json").read_text())["pretrained_cfg"]
    items = [text for text, _ in texts.labelled(8, seed=5)]
    ours, theirs = run.model.predict(items), regraft.load(moved).predict([item.encode() for item in items])
    assert [answer.probabilities for answer in ours] == [answer.probabilities for answer in theirs]
    assert regraft.load(moved).predict([""])[0].error == "it is empty"
    alone = [run.model.predict(items[row])[0] for row in (0, 5)]
    for answer, row in zip(alone, (0, 5), strict=True):
        np.testing.assert_allclose(answer.probability, ours[row].probability, atol=1e-5)


def test_words_are_kept_with_the_model_and_counted_by_every_way_to_an_answer(
    run: regraft.Run, tmp_path: Path
) -> None:
    items = [text for text, _ in texts.labelled(4, seed=6)]
    model = Model.load(run.path)
    expected = np.stack(list(model.outputs(items)))
    bare = replace(model, beside=None)
    assert np.abs(np.stack(list(bare.outputs(items))) - expected).max() > 0.01
    if make_ready(model, run.path, tmp_path):  # where OpenVINO is there
        ready = Ready.of(run.path, tmp_path)
        assert ready is not None
        np.testing.assert_allclose([row.outputs for row in ready.rows(items)], expected, atol=1e-3)
    folder = tmp_path / "model"
    shutil.copytree(run.path / "model", folder)
    (folder / "beside.safetensors").unlink()
    with pytest.raises(UsageError, match=r"beside\.safetensors"):
        Model.load(folder)


def test_odd_texts_get_an_answer_or_a_reason(run: regraft.Run) -> None:
    odd = [
        "a\ud800b",
        "\0",
        "x" * 1_000_000,
        "word " * 200_000,
        "\u202eright to left",
        "👩‍👩‍👧",
        b"\xff\xfe",
        b"\x80abc",
    ]
    for answer in run.model.predict(odd):
        assert (answer.label is None) == (answer.error is not None)


def test_the_report_shows_texts_escaped_and_in_their_own_direction(run: regraft.Run) -> None:
    page = (run.path / "report.html").read_text()
    assert "<script>alert" not in page
    assert 'class="text" dir="auto"' in page
    assert "centre square" not in page
    assert "Which words mattered" in page
    assert '<figure class="plot" role="group" aria-label="Lengths of the texts">' in page
    assert "tokens (estimated)" in page
    assert "a.jpg" not in page + (run.path / "model" / "README.md").read_text()


def test_the_command_predicts_files_and_lines(run: regraft.Run, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text(texts.sentence("kitchen", 77))
    done = call("predict", run.path, tmp_path / "one.txt", "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["label"] in texts.SAYINGS
    assert answer["source"].endswith("one.txt")
    table = texts.write_table(tmp_path / "asked.csv", texts.labelled(2, seed=3))
    rows = call("predict", run.path, table, "--format", "jsonl").stdout.splitlines()
    assert [json.loads(row)["source"] for row in rows][:2] == [f"{table}#text:2", f"{table}#text:3"]
    lines = call("predict", run.path, "-", "--format", "jsonl", stdin="rain and snow\nbread and butter\n")
    assert [json.loads(line)["source"] for line in lines.stdout.splitlines()] == [
        "rain and snow",
        "bread and butter",
    ]


def test_an_exported_graph_answers_alike_by_its_own_program(run: regraft.Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs the exporter: pip install 'regraft[export]'")
    done = regraft.export(run.path, out=tmp_path / "graph")
    assert (done.path / "tokenizer.json").read_bytes() == (run.path / "model" / "tokenizer.json").read_bytes()
    (tmp_path / "one.txt").write_text(texts.sentence("kitchen", 77, 4))
    (tmp_path / "long.txt").write_text(texts.sentence("traffic", 78, 200))
    files = [tmp_path / "one.txt", tmp_path / "long.txt"]
    words = [sys.executable, str(done.path / "predict.py"), *map(str, files)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    for line, expected in zip(said, run.model.predict(files), strict=True):
        answer = json.loads(line)
        assert answer["label"] == expected.label
        assert answer["probability"] == pytest.approx(expected.probability, abs=1e-5)


def test_a_run_on_top_of_a_run_keeps_its_tokenizer(run: regraft.Run, tmp_path: Path) -> None:
    table = texts.write_table(tmp_path / "more.csv", texts.labelled(12, seed=9))
    recipe = {
        "obtain": {"backbone": f"run:{run.path}"},
        "finetune": {"epochs": 0},
        "run": {"engine": "torch-float32"},
    }
    second = regraft.fit(table, tmp_path / "second", recipe=recipe)
    assert (second.path / "model" / "tokenizer.json").read_bytes() == (
        run.path / "model" / "tokenizer.json"
    ).read_bytes()
