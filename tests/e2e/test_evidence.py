"""What a run proves, and how: baselines, readings of the test set, runs without one, folds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import regraft
from commands import call
from regraft.artifacts import RunFolder, read_events, write_json
from regraft.data import Examples
from regraft.errors import DataError, UsageError


def state_of(run: regraft.Run) -> dict:
    return json.loads((run.path / "run.json").read_text())


def test_every_result_stands_beside_baselines_and_its_reading_is_kept(
    colours: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    recipe = {
        **quick,
        "finetune": {"epochs": 1, "folds": 0, "refit": False},
        "run": {**quick["run"], "scratch": True},
    }
    for picture in colours.glob("*/*.png"):
        if int(picture.stem) >= 14:
            picture.unlink()
    run = regraft.fit(colours, tmp_path / "run", recipe=recipe)
    metrics = json.loads((run.path / "metrics.json").read_text())
    wanted = {"majority class", "nearest neighbours", "from scratch"} | (
        {"head only"} - {run.state["chosen"]}
    )
    assert set(metrics["baselines"]) == wanted == {pair["against"] for pair in metrics["versus"]}
    assert all(pair["p_adjusted"] >= pair["p_value"] for pair in metrics["versus"])
    assert metrics["baselines"]["majority class"]["accuracy"]["value"] < metrics["test"]["accuracy"]["value"]
    (reading,) = state_of(run)["readings"]
    assert reading["examples"] == metrics["test"]["accuracy"]["n"]
    assert reading["reason"] == "step 7 of the run"
    assert metrics["calibration"]["temperature"] == pytest.approx(run.model.temperature)
    offered = {
        f"{t['wanted']:g}": t["threshold"] for t in metrics["thresholds"] if t["threshold"] is not None
    }
    assert offered == json.loads((run.path / "model" / "regraft.json").read_text())["thresholds"]
    assert {f"{wanted:g}": limit for wanted, limit in run.model.thresholds.items()} == offered


def test_without_a_test_set_every_surface_says_so(colours: Path, tmp_path: Path, tiny: str) -> None:
    done = call(
        "fit",
        colours,
        "--out",
        tmp_path / "run",
        "--no-test",
        "--size",
        "32",
        "--freeze",
        "head",
        "--backbone",
        tiny,
        "--set",
        "run.engine=torch-float32",
    )
    assert done.returncode == 0, done.stderr
    assert "no test set" in done.stderr
    assert "(no test set)" in done.stdout
    run = regraft.api.Run(tmp_path / "run")
    assert run.metrics.keys() & {"test", "cv"} == set()
    assert state_of(run)["data"]["no_test"] is True
    assert state_of(run)["readings"] == []
    assert "no test set" in (run.path / "report.html").read_text()
    assert "no test set" in (run.path / "model" / "README.md").read_text()
    given = tmp_path / "given"
    for split in ("train", "test"):
        (given / split).mkdir(parents=True)
        for name in ("red", "green", "blue"):
            (given / split / name).symlink_to(colours / name)
    with pytest.raises(UsageError, match="--no-test"):
        regraft.fit(given, tmp_path / "other", recipe={"data": {"test_share": 0}})


def test_folds_predict_every_example_once_and_a_stopped_run_keeps_its_folds(
    colours: Path, tmp_path: Path, head_only: dict[str, Any]
) -> None:
    run = regraft.fit(colours, tmp_path / "run", recipe={**head_only, "data": {"folds": 3}})
    accuracy = run.metrics["cv"]["accuracy"]
    assert accuracy.n == 90
    assert "3-fold cross-validation of the whole walk" in accuracy.method
    assert "test" not in run.metrics
    seen = []
    for number in (1, 2, 3):
        table = pq.read_table(run.path / "folds" / str(number) / "predictions.parquet")
        seen += [
            s
            for s, split in zip(table["source"].to_pylist(), table["split"].to_pylist(), strict=True)
            if split == "test"
        ]
    assert sorted(seen) == sorted(str(p.relative_to(colours)) for p in colours.glob("*/*.png"))
    counts = state_of(run)["data"]["counts"]
    assert counts["test"] == 0
    assert counts["train"] + counts["val"] == 90
    before = [(run.path / "folds" / str(n) / "run.json").stat().st_mtime_ns for n in (1, 2, 3)]
    state = {**state_of(run), "state": "interrupted"}
    (run.path / "run.json").write_text(json.dumps(state))
    again = regraft.fit(out=run.path, resume=True)
    assert again.metrics["cv"]["accuracy"] == accuracy
    assert before == [(run.path / "folds" / str(n) / "run.json").stat().st_mtime_ns for n in (1, 2, 3)]


def test_folds_keep_groups_together_and_say_what_is_missing(
    colours: Path, tmp_path: Path, head_only: dict[str, Any]
) -> None:
    lines = ["path,label,group"]
    for picture in sorted(colours.glob("*/*.png")):
        lines.append(f"{picture},{picture.parent.name},{picture.parent.name}-{int(picture.stem) // 5}")
    table = tmp_path / "t.csv"
    table.write_text("\n".join(lines))
    run = regraft.fit(table, tmp_path / "run", recipe={**head_only, "data": {"folds": 2}})
    for number in (1, 2):
        examples = pq.read_table(run.path / "folds" / str(number) / "examples.parquet")
        home: dict[str, set[str]] = {}
        for group, split in zip(examples["group"].to_pylist(), examples["split"].to_pylist(), strict=True):
            home.setdefault(group, set()).add(split)
        assert all(len(splits) == 1 for splits in home.values())
    assert json.loads((run.path / "metrics.json").read_text())["groups"] == 18
    with pytest.raises(DataError, match="class 'blue' has 6"):
        regraft.fit(table, tmp_path / "other", recipe={**head_only, "data": {"folds": 7}})
    assert np.isfinite(run.metrics["cv"]["accuracy"].value)


def test_val_holds_no_near_duplicate_of_train(tmp_path: Path) -> None:
    """Each picture comes twice, the second time resized and saved as a JPEG: a cut by content alone parts
    many pairs.
    """
    rng, root = np.random.default_rng(0), tmp_path / "films"
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        for number in range(24):
            layers = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (3, 6, 12)]
            shown = [
                np.asarray(Image.fromarray(layer).resize((96, 96), Image.Resampling.BICUBIC), float)
                for layer in layers
            ]
            picture = Image.fromarray(np.mean(shown, axis=0).astype(np.uint8))
            picture.save(root / name / f"{number}.png")
            picture.resize((80, 80)).save(root / name / f"{number}-again.jpg", quality=90)
    recipe = {"base": {"size": 64}, "finetune": {"epochs": 0}, "run": {"engine": "torch-float32"}}
    run = regraft.fit(root, tmp_path / "run", recipe=recipe)
    rows = pq.read_table(run.path / "examples.parquet").to_pylist()
    home: dict[int, set[str]] = {}
    for row in rows:
        home.setdefault(row["block"], set()).add(row["split"])
    assert not any({"train", "val"} <= places for places in home.values())
    assert any(
        "changed between train and val" in event.get("text", "")
        for event in read_events(run.path / "events.jsonl")
    )
    assert run.state["data"]["counts"] == Examples.load(run.path / "examples.parquet").counts()
    resumed = RunFolder(run.path)
    state = {**resumed.read_state(), "state": "running"}
    write_json(resumed.state, state)
    model = (run.path / "model" / "model.safetensors").read_bytes()
    regraft.fit(out=run.path, resume=True)
    assert (run.path / "model" / "model.safetensors").read_bytes() == model


def test_folds_score_the_procedure_whose_model_is_handed_over(
    colours: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    """Eight pictures a class: the folds have a test part and no val, the model has neither, and one rule
    decides for all.
    """
    few = tmp_path / "few"
    for name in ("red", "green"):
        (few / name).mkdir(parents=True)
        for number in range(8):
            (few / name / f"{number}.png").symlink_to(colours / name / f"{number}.png")
    settings = {"epochs": 1, "batch_size": 8, "precision": "float32"}
    recipe = {**quick, "finetune": settings, "augment": {"mirror": False}}
    run = regraft.fit(few, tmp_path / "run", recipe={**recipe, "data": {"folds": 2}})
    states = [
        state_of(run),
        *(json.loads((run.path / "folds" / str(n) / "run.json").read_text()) for n in (1, 2)),
    ]
    for state in states:
        assert "examples held out of train and val in turn" in state["chosen_why"]
        assert "standard error" in state["chosen_why"]
    alone = regraft.fit(few, tmp_path / "alone", recipe=recipe)
    assert "examples held out of train and val in turn" in alone.state["chosen_why"]
    assert alone.metrics["cv"]["accuracy"].n == 16
