"""Whole runs, as a user starts them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import regraft
from regraft.artifacts import read_events
from regraft.errors import DataError, UsageError

SHORT = {"base": {"size": 64, "depth": 8}, "finetune": {"epochs": 1, "folds": 0, "refit": False}}


def test_import_loads_no_torch() -> None:
    code = "import regraft, sys; print([m for m in ('torch', 'timm', 'transformers') if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_seven_steps_and_the_model_in_plain_timm(colours: Path, tmp_path: Path) -> None:
    (colours / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    run = regraft.fit(colours, tmp_path / "run", recipe=SHORT)
    assert run.metrics["test"]["accuracy"].value > 0.8
    state = json.loads((run.path / "run.json").read_text())
    assert state["state"] == "finished"
    assert [q["source"] for q in state["data"]["quarantined"]] == ["red/broken.jpg"]
    steps = ("obtain", "base", "freeze", "head", "train", "finetune", "evaluate")
    assert all(state["steps"][name]["state"] == "done" for name in steps)
    assert len(state["steps"]["finetune"]["details"]["frozen_digest"]) == 64
    train, val, test = (state["data"]["counts"][split] for split in ("train", "val", "test"))
    told = [event["step"] for event in read_events(run.path / "events.jsonl") if event["kind"] == "decided"]
    assert told == list(steps)  # each once, step 2 too where depths are joined
    passes = {name: step.get("passes", 0) for name, step in state["steps"].items()}
    assert passes["base"] == train + val  # those that step 2 chose by are not computed again
    assert passes["features"] == 0
    assert passes["freeze"] == passes["head"] == passes["train"] == 0
    # One epoch, the look at val, three mixtures, both models' answers on val, and the probe for mirror images
    assert passes["finetune"] == 3 * train + val + 3 * val + 2 * val + train
    assert passes["evaluate"] >= test
    assert f"{passes['finetune']:,} passes" in (run.path / "report.html").read_text(encoding="utf-8")
    for name in (
        "recipe.yaml",
        "events.jsonl",
        "examples.parquet",
        "metrics.json",
        "predictions.parquet",
        "report.html",
    ):
        assert (run.path / name).is_file()
    assert "auto" not in (run.path / "recipe.yaml").read_text().replace("automatic", "")
    files = [str(colours / c / "0.png") for c in ("red", "green", "blue")]
    found = run.model.predict([*files, str(colours / "red" / "broken.jpg")])
    assert [p.label for p in found[:3]] == ["red", "green", "blue"]
    assert found[3].error is not None
    script = (
        "import sys, json, numpy as np, torch\nimport regraft.backbones\nimport timm\n"
        f"m = timm.create_model('local-dir:{run.path / 'model'}', pretrained=True).eval()\n"
        f"import regraft; pre = regraft.load({str(run.path)!r}).backbone.preprocess\n"
        f"x = np.stack([pre.host(f) for f in {files!r}])\n"
        "x = (torch.from_numpy(x).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5\n"
        "print(json.dumps(m(x).tolist()))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    ours = np.stack(list(run.model.outputs(files)))
    np.testing.assert_allclose(np.array(json.loads(result.stdout.splitlines()[-1])), ours, atol=1e-4)


def test_an_existing_run_is_refused_and_a_finished_one_resumes_at_once(
    fitted: Any, tmp_path: Path, head_only: dict[str, Any]
) -> None:
    shutil.copytree(fitted.run, tmp_path / "run")
    with pytest.raises(UsageError, match="--resume"):
        regraft.fit(fitted.data, tmp_path / "run", recipe=head_only)
    assert regraft.fit(fitted.data, tmp_path / "run", resume=True).state["chosen"] == "head only"


def test_few_examples_are_cross_validated_not_tested(
    colours: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    for picture in colours.glob("*/*.png"):
        if int(picture.stem) >= 4:
            picture.unlink()
    run = regraft.fit(colours, tmp_path / "run", recipe={**quick, "finetune": {"epochs": 2}})
    assert "cv" in run.metrics
    assert "test" not in run.metrics


@pytest.mark.parametrize("fault", ["one class", "empty", "missing"])
def test_data_that_cannot_be_learnt_from_are_one_error(fault: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    if fault != "missing":
        root.mkdir()
    if fault == "one class":
        (root / "a").mkdir()
        Image.new("RGB", (8, 8)).save(root / "a" / "x.png")
    with pytest.raises(DataError):
        regraft.fit(root, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_wrong_usage_exits_with_2_and_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from regraft.cli import main; main()", "fit", str(tmp_path / "none")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "does not exist" in result.stderr
    assert "Traceback" not in result.stderr


def test_what_fine_tuning_spoils_is_not_returned(
    colours: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    """Rule 11: the better on validation is returned, however fine-tuning went."""
    settings = {**quick, "finetune": {"epochs": 1, "folds": 0, "lr": 10.0, "precision": "float32"}}
    spoilt = regraft.fit(colours, tmp_path / "spoilt", recipe=settings)
    head = regraft.fit(colours, tmp_path / "head", recipe={**quick, "freeze": {"strategy": "head"}})
    assert spoilt.state["steps"]["finetune"]["state"] == "done"
    assert spoilt.state["chosen"] == "head only"
    assert "fine-tuned" in spoilt.state["chosen_why"]
    assert spoilt.metrics["val"]["accuracy"].value >= head.metrics["val"]["accuracy"].value
    files = [str(path) for path in sorted(colours.rglob("*.png"))[:9]]
    assert [p.label for p in spoilt.model.predict(files)] == [p.label for p in head.model.predict(files)]
