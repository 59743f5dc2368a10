"""A whole run on sounds with a small encoder: fitted, saved, loaded, asked, shown and gone on from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import regraft
from regraft.artifacts import read_json
from sounds import draw, hiss, tiny_encoder, tone, write


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A reference to a small encoder of random weights, in the layout of a model folder."""
    return f"path:{tiny_encoder(tmp_path_factory.mktemp('encoder'))}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, encoder: str) -> regraft.Run:
    place = tmp_path_factory.mktemp("audio")
    data = draw(place / "data", 14)
    recipe = {"obtain": {"backbone": encoder}, "finetune": {"epochs": 1, "folds": 0}}
    return regraft.fit(data, place / "run", recipe=recipe, cache=None)


def test_the_seven_steps_are_walked_on_sounds(run: regraft.Run) -> None:
    state = run.state
    assert state["state"] == "finished"
    assert state["missing"] == {}
    assert state["data"]["modality"] == "audio"
    assert (
        "depths joined" in state["steps"]["base"]["decided"]
        or "features" in state["steps"]["base"]["decided"]
    )
    assert run.metrics["test"]["accuracy"].value > 0.6
    assert (run.path / "first_batch.png").is_file()


def test_it_is_asked_of_files_bytes_and_arrays_of_any_rate(run: regraft.Run, tmp_path: Path) -> None:
    place = write(tmp_path / "a.wav", tone(1_200, 0.4, 44_100), 44_100)
    model = regraft.load(run.path)
    by_file, by_bytes, by_array, broken = model.predict([place, place.read_bytes(), tone(1_200, 0.4), b"no"])
    assert by_file.probabilities == pytest.approx(by_bytes.probabilities, abs=1e-6)
    assert by_array.label == by_file.label
    assert "no sound" in str(broken.error)
    assert sum(by_file.probabilities.values()) == pytest.approx(1, abs=1e-5)
    alone = model.predict([hiss(0.3)])[0].probabilities
    beside = model.predict([hiss(0.3), hiss(0.5, seed=3)])[0].probabilities
    assert alone == pytest.approx(beside, abs=1e-5)


def test_its_report_plays_clips_and_shows_where_it_listened(run: regraft.Run) -> None:
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "data:audio/ogg;base64," in page
    assert 'class="spectrum"' in page
    assert (
        "Where it looked" not in page
    )  # of sounds it is where it listened, where there are mistakes to show
    assert 'aria-label="Lengths of the sounds"' in page
    assert "a.jpg" not in page + (run.path / "model" / "README.md").read_text()
    assert len(page) < 8_000_000
    galleries = {one["name"]: one for one in read_json(run.path / "gallery.json")["galleries"]}
    shown = [item for one in galleries.values() for item in one["items"]]
    assert all(item.get("sound") or item.get("map") for item in shown)
    look = run.model.explain(next(iter((run.path.parent / "data" / "high").glob("*.wav"))))
    assert look is not None
    assert look.picture.startswith("data:image/png")


def test_a_further_run_begins_with_its_encoder(run: regraft.Run, tmp_path: Path) -> None:
    obtained = regraft.backbone(f"run:{run.path}")
    clips = [tone(300, 0.4), hiss(0.2)]
    assert regraft.extract(obtained, clips, cache=None).shape == (2, obtained.width)
    assert np.isfinite(regraft.extract(obtained, clips, cache=None)).all()


def test_its_graph_takes_waveforms_and_its_program_needs_no_regraft(run: regraft.Run, tmp_path: Path) -> None:
    exported = regraft.export(run.path, "onnx", tmp_path / "onnx")
    assert exported.proof is not None
    assert exported.proof.files.agreement == 1
    assert exported.proof.same.largest < 1e-4
    clips = [
        write(tmp_path / "a.wav", tone(1_200, 0.4, 44_100), 44_100),
        write(tmp_path / "b.flac", hiss(2.0, 8_000), 8_000),
    ]
    (tmp_path / "c.wav").write_bytes(b"no sound")
    done = subprocess.run(
        [sys.executable, tmp_path / "onnx" / "predict.py", *clips, tmp_path / "c.wav"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    *said, broken = map(json.loads, done.stdout.splitlines())
    assert broken["error"]
    for line, ours in zip(said, run.model.predict(clips), strict=True):
        assert line["label"] == ours.label
        assert line["probability"] == pytest.approx(ours.probability, abs=1e-4)
