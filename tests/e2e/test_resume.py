"""A run killed at any moment goes on, and ends with the same bits; two processes never share a folder."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import regraft
from commands import Started, call, start
from regraft.artifacts import RunFolder, read_events
from regraft.errors import ChangedError, UsageError
from regraft.recipe import read_recipe


def _words(colours: Path, backbone: str, *settings: str) -> list[str]:
    """`fit` with settings, so that one step takes hundredths of a second."""
    usual = (
        f"obtain.backbone={backbone}",
        "base.size=32",
        "run.engine=torch-float32",
        "run.threads=1",
        "finetune.folds=0",
    )
    return ["fit", str(colours), *(word for setting in (*usual, *settings) for word in ("--set", setting))]


def _wait_for(out: Path, kind: str, process: Started, **fields: object) -> None:
    while process.poll() is None:
        for event in read_events(out / "events.jsonl"):
            if event["kind"] == kind and all(event.get(k) == v for k, v in fields.items()):
                return
        time.sleep(0.02)
    pytest.fail(f"the run ended before {kind}: {process.communicate()[1]}")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_killed_run_ends_with_the_same_bits(colours: Path, tmp_path: Path, tiny: str) -> None:
    words = _words(colours, tiny, "finetune.epochs=2")
    assert call(*words, "--out", tmp_path / "whole").returncode == 0
    expected = (tmp_path / "whole" / "model" / "model.safetensors").read_bytes()
    out = tmp_path / "killed"
    for moment in (("step", {"step": "train"}), ("epoch", {"epoch": 1})):
        process = start(*(["fit", "--resume"] if out.exists() else words), "--out", out)
        _wait_for(out, moment[0], process, **moment[1])
        process.kill()
        process.wait()
        assert not list(out.glob("model/*.tmp"))
    result = call("fit", "--resume", "--out", out)
    assert result.returncode == 0, result.stderr
    assert (out / "model" / "model.safetensors").read_bytes() == expected


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("strategy", ["half", "full"])  # on cached activations, and on images
def test_a_run_killed_at_random_moments_of_fine_tuning_ends_with_the_same_bits(
    colours: Path, tmp_path: Path, strategy: str, tiny: str
) -> None:
    """Every step is saved, the head has dropout, and the kill hits wherever it hits."""
    every_step = (
        "from regraft.training import checkpoint; "
        "checkpoint.Checkpoint.due = lambda self, complete=False: True"
    )
    settings = (
        f"freeze.strategy={strategy}",
        "finetune.epochs=8",
        "finetune.refit=false",
        "head.dropout=0.3",
        "finetune.batch_size=8",
    )
    words = _words(colours, tiny, *settings)
    assert call(*words, "--out", tmp_path / "whole").returncode == 0
    out, rng, kills = tmp_path / "killed", random.Random(0), 0
    for _ in range(4):
        process = start(*(["fit", "--resume"] if out.exists() else words), "--out", out, first=every_step)
        before = _saved(out)
        while process.poll() is None and _saved(out) == before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
    assert kills >= 2
    if process.returncode != 0:
        assert call("fit", "--resume", "--out", out).returncode == 0
    for name in ("model/model.safetensors", "model/regraft.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not (out / "checkpoint.safetensors").exists()


def _saved(out: Path) -> int:
    try:
        return (out / "checkpoint.safetensors").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_keeps_the_best_so_far_and_says_how_to_go_on(colours: Path, tmp_path: Path, tiny: str) -> None:
    out = tmp_path / "run"
    process = start(*_words(colours, tiny, "finetune.epochs=40"), "--out", out)
    _wait_for(out, "epoch", process, epoch=1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 1
    assert "--resume" in said
    assert f"regraft predict {out} FILES" in said
    assert "Traceback" not in said
    assert json.loads((out / "run.json").read_text())["state"] == "interrupted"
    assert regraft.load(out).predict(str(colours / "red" / "0.png"))[0].label == "red"


def _fainter(colours: Path) -> None:
    """So that fine-tuning has something to gain."""
    rng = np.random.default_rng(0)
    for file in sorted(colours.rglob("*.png")):
        picture = np.asarray(Image.open(file)).astype(int) // 3 + rng.integers(0, 160, (48, 48, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file)


def test_ctrl_c_leaves_open_what_was_not_decided(colours: Path, tmp_path: Path, tiny: str) -> None:
    """How far to go from the head, and whether to train once more: a resume decides as a run left alone
    does.

    In the first epoch nothing but the head is there to hand over; the second training is that on train and
    val.
    """
    _fainter(colours)
    recipe = {
        "obtain": {"backbone": tiny},
        "base": {"size": 32},
        "run": {"engine": "torch-float32"},
        "finetune": {"epochs": 3, "folds": 0, "lr": 1e-3},
    }
    alone = regraft.fit(colours, tmp_path / "alone", recipe=recipe)
    assert read_recipe(alone.path / "recipe.yaml")["finetune"]["refit"] is True
    for training, epoch in ((1, 1), (1, 2), (2, 2)):
        begun = 1

        def stop(event: dict[str, Any], at: tuple[int, int] = (training, epoch)) -> None:
            nonlocal begun
            begun += event["kind"] == "chosen"
            if event["kind"] == "tick" and event["label"] == "fine-tuning" and (begun, event["epoch"]) == at:
                raise KeyboardInterrupt

        out = tmp_path / f"{training}-{epoch}"
        with pytest.raises(KeyboardInterrupt):
            regraft.fit(colours, out, recipe=recipe, listeners=[stop])
        assert json.loads((out / "run.json").read_text())["state"] == "interrupted"
        assert RunFolder(out).refit.exists() == (training == 2)
        assert regraft.load(out).predict(str(colours / "red" / "0.png"))[0].label == "red"
        assert regraft.fit(out=out, resume=True).state["state"] == "finished"
        for name in ("model/model.safetensors", "predictions.parquet", "recipe.yaml"):
            assert (out / name).read_bytes() == (alone.path / name).read_bytes(), name


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.lock()
    code = (
        "import sys; from pathlib import Path; from regraft.artifacts import RunFolder\n"
        f"RunFolder(Path({str(tmp_path / 'run')!r})).lock()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "another process" in result.stderr
    folder.release()
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_file_that_goes_under_way_is_named_and_the_run_goes_on_when_it_is_back(
    colours: Path, tmp_path: Path, tiny: str
) -> None:
    """It is noticed where it is read: in fine-tuning, and by the features of a file that is another one for
    a moment.
    """
    out, gone, other = (
        tmp_path / "run",
        tmp_path / "gone.png",
        (colours / "red" / "1.png").read_bytes() + b" ",
    )
    recipe = {
        "obtain": {"backbone": tiny},
        "base": {"size": 32},
        "run": {"engine": "torch-float32"},
        "finetune": {"epochs": 1, "folds": 0, "refit": False},
        "augment": {"mirror": False},
    }
    place: dict[str, Path] = {}

    def remove(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == "finetune":
            table = pq.read_table(out / "examples.parquet").to_pylist()
            place["file"] = colours / next(row["source"] for row in table if row["split"] == "train")
            place["file"].rename(gone)

    with pytest.raises(ChangedError) as raised:
        regraft.fit(colours, out, recipe=recipe, listeners=[remove])
    assert str(place["file"]) in str(raised.value)
    assert "it is gone" in str(raised.value)
    assert f"--resume --out {out}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert json.loads((out / "run.json").read_text())["state"] == "failed"
    with pytest.raises(UsageError, match="1 file changed or went"):
        regraft.fit(out=out, resume=True)
    gone.rename(place["file"])

    def replace(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == "base":
            (tmp_path / "kept.png").write_bytes(place["file"].read_bytes())
            place["file"].write_bytes(other)

    with pytest.raises(ChangedError, match="its content is another one"):
        regraft.fit(out=out, resume=True, listeners=[replace], cache=None)
    # Its time of change is another one by now
    place["file"].write_bytes((tmp_path / "kept.png").read_bytes())
    assert regraft.fit(out=out, resume=True).state["state"] == "finished"
