"""The verbs around finished runs, on two real ones."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import regraft
from commands import call
from regraft.errors import DataError, UsageError

COLOURS = ("red", "green", "blue")


def picture(place: Path, channel: int, rng: np.random.Generator) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 100, (48, 48, 3))
    pixels[:, :, channel] += 120
    Image.fromarray(pixels.astype(np.uint8)).save(place)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, quick: dict[str, Any]) -> Iterator[Path]:
    """A folder with `colours`, and `runs` with two runs on it: linear heads at two input sizes."""
    place, rng = tmp_path_factory.mktemp("verbs"), np.random.default_rng(0)
    for channel, name in enumerate(COLOURS):
        for number in range(30):
            picture(place / "colours" / name / f"{number}.png", channel, rng)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGRAFT_CACHE", str(place / "cache"))
        for name, size in (("a", 32), ("b", 64)):
            recipe = {
                **quick,
                "base": {"size": size},
                "freeze": {"strategy": "head"},
                "head": {"kind": "linear"},
            }
            regraft.fit(place / "colours", place / "runs" / name, recipe=recipe)
        yield place


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    """Copies of the two runs, to be written to."""
    return Path(shutil.copytree(made / "runs", tmp_path / "runs"))


def state(run: Path) -> dict:
    return json.loads((run / "run.json").read_text(encoding="utf-8"))


def test_runs_are_compared_listed_and_reported(runs: Path, made: Path) -> None:
    result = call("compare", "runs/a", "runs/b", "--out", "comparison.html", cwd=runs.parent)
    assert result.returncode == 0, result.stderr
    assert "b: no clear difference from a" in result.stdout
    assert "2 runs are compared" in result.stdout
    assert "<svg" in (runs.parent / "comparison.html").read_text(encoding="utf-8")
    found = json.loads(call("compare", runs / "a", runs / "b", "--json").stdout)
    same = regraft.compare(runs / "a", runs / "b")
    assert found["rows"][0]["metrics"]["accuracy"] == same.rows[0].metrics["accuracy"].to_dict()
    assert [Path(row["path"]).name for row in json.loads(call("runs", runs, "--json").stdout)] == ["b", "a"]
    lines = call("runs", cwd=runs.parent).stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("runs/b  finished  ")
    before = (runs / "a" / "report.html").read_text(encoding="utf-8")
    (runs / "a" / "report.html").unlink()
    result = call("report", runs / "a", cwd=made)
    assert result.stdout.strip() == str(runs / "a" / "report.html")
    assert len((runs / "a" / "report.html").read_text(encoding="utf-8")) == pytest.approx(
        len(before), rel=0.01
    )


def test_the_own_test_set_read_again_is_recorded_and_counted(runs: Path) -> None:
    stored = json.loads((runs / "a" / "metrics.json").read_text(encoding="utf-8"))["test"]["accuracy"]
    found = regraft.evaluate(runs / "a", reason="to see it again")
    assert found.metrics["accuracy"].to_dict() == stored
    assert found.said[0] == f"All {found.examples} predictions are those of the run."
    assert found.readings is not None
    assert (found.readings.own, found.readings.others) == (2, {str(runs / "b"): 1})
    assert "read 3 times" in found.said[1]
    assert "optimistic" in found.said[1]
    kept = state(runs / "a")["readings"]
    assert [row["reason"] for row in kept] == ["step 7 of the run", "to see it again"]
    assert kept[1]["examples"] == found.examples
    assert kept[1]["time"].endswith("+00:00")
    again = regraft.evaluate(regraft.api.Run(runs / "b"))
    assert again.readings is not None
    assert again.readings.total == 4


def test_predictions_that_differ_from_the_runs_are_told(runs: Path) -> None:
    shutil.rmtree(runs / "a" / "model")
    shutil.copytree(runs / "b" / "model", runs / "a" / "model")
    about = json.loads((runs / "a" / "model" / "regraft.json").read_text(encoding="utf-8"))
    about["classes"] = ["green", "red", "blue"]  # names that are not the network's
    (runs / "a" / "model" / "regraft.json").write_text(json.dumps(about), encoding="utf-8")
    said = regraft.evaluate(runs / "a").said[0]
    assert "predictions differ from those of the run" in said
    assert "was " in said


def test_a_test_set_that_changed_is_refused_and_not_read(
    made: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    data = Path(shutil.copytree(made / "colours", tmp_path / "colours", copy_function=shutil.copy2))
    recipe = {**quick, "freeze": {"strategy": "head"}, "head": {"kind": "linear"}}
    run = regraft.fit(data, tmp_path / "run", recipe=recipe, cache=made / "cache").path
    table = pq.read_table(run / "examples.parquet").to_pylist()
    train, test = (
        next(row["source"] for row in table if row["split"] == split) for split in ("train", "test")
    )
    (data / train).write_bytes(b"another")  # what it was trained on may change
    os.utime(data / test, (1, 1))  # and a file's time is not its content
    kept = (data / test).read_bytes()
    assert regraft.evaluate(run).readings is not None
    (data / test).write_bytes((data / test).read_bytes() + b" ")
    with pytest.raises(UsageError, match=f"1 test file.*{test}"):
        regraft.evaluate(run)
    assert len(state(run)["readings"]) == 2
    (data / test).write_bytes(kept)
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="--data FOLDER"):
        regraft.evaluate(run)
    result = call("evaluate", run, "--data", tmp_path / "elsewhere", "--json")
    assert json.loads(result.stdout)["said"][0].endswith("predictions are those of the run.")
    assert len(state(run)["readings"]) == 3


def test_labelled_examples_from_elsewhere_are_an_external_test_set(
    runs: Path, made: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(7)
    for channel, name in ((0, "red"), (2, "blue")):
        for number in range(6):
            picture(tmp_path / "elsewhere" / name / f"new{number}.png", channel, rng)
    table = pq.read_table(runs / "a" / "examples.parquet").to_pylist()
    for split in ("train", "val", "test"):
        for row in [row for row in table if row["split"] == split and row["label"] == "red"][:2]:
            shutil.copy2(
                made / "colours" / row["source"],
                tmp_path / "elsewhere" / "red" / f"{split}-{Path(row['source']).name}",
            )
    (tmp_path / "elsewhere" / "blue" / "broken.png").write_bytes(b"no picture")
    predictions = (runs / "a" / "predictions.parquet").read_bytes()
    found = regraft.evaluate(runs / "a", tmp_path / "elsewhere", "from another camera")
    assert found.examples == 14  # 12 new ones and 2 of the run's test
    assert found.left_out == {"in train": 2, "in val": 2, "unreadable": 1}
    assert found.metrics["accuracy"].n == 14
    assert found.metrics["accuracy"].value > 0.8
    assert sum(map(sum, found.tables["confusion"])) == 14
    text = " ".join(found.said)
    assert "4 examples the run was made with were left out (2 of its train, 2 of its val)" in text
    assert "No example is of: green" in text
    assert "2 of the examples are in the run's own test set" in text
    assert found.readings is not None
    assert found.readings.own == 2
    kept = state(runs / "a")
    assert [(row["examples"], row["reason"], row["file"]) for row in kept["evaluations"]] == [
        (14, "from another camera", "elsewhere.json")
    ]
    assert kept["readings"][1]["examples"] == 2
    assert (
        json.loads((runs / "a" / "evaluations" / "elsewhere.json").read_text(encoding="utf-8"))["examples"]
        == 14
    )
    assert (runs / "a" / "predictions.parquet").read_bytes() == predictions
    result = call("evaluate", runs / "a", tmp_path / "elsewhere", "--json")
    assert json.loads(result.stdout)["file"].endswith("elsewhere-2.json")
    result = call("evaluate", runs / "a", tmp_path / "elsewhere", "-q")
    assert "14 examples" in result.stdout
    assert len(state(runs / "a")["evaluations"]) == 3


def test_labels_that_are_no_classes_are_an_error_that_names_them(
    runs: Path, made: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(7)
    for name in ("red", "gren", "purple"):
        picture(tmp_path / "other" / name / "0.png", 0, rng)
    result = call("evaluate", runs / "a", tmp_path / "other")
    assert result.returncode == 2
    assert "'gren', of 1 example; did you mean 'green'?" in result.stderr
    assert "'purple'" in result.stderr
    train = tmp_path / "train"
    for row in pq.read_table(runs / "a" / "examples.parquet").to_pylist():
        if row["split"] == "train":
            (train / row["label"]).mkdir(parents=True, exist_ok=True)
            shutil.copy2(made / "colours" / row["source"], train / row["label"])
    with pytest.raises(DataError, match="nothing is left"):
        regraft.evaluate(runs / "a", train)
    assert "evaluations" not in state(runs / "a")


def test_what_the_backbones_own_run_has_seen_is_left_out_too(made: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    for channel, name in enumerate(COLOURS):
        for number in range(12):
            picture(tmp_path / "second" / name / f"{number}.png", channel, rng)
    recipe = {
        "obtain": {"backbone": f"run:{made / 'runs' / 'a'}"},
        "base": {"size": 32},
        "freeze": {"strategy": "head"},
    }
    run = regraft.fit(tmp_path / "second", tmp_path / "run", recipe=recipe, cache=made / "cache")
    found = regraft.evaluate(run, made / "colours")
    counts = state(made / "runs" / "a")["data"]["counts"]
    assert found.left_out["in train"] == counts["train"] + counts["val"]
    assert found.examples == counts["test"]


def test_a_run_without_a_test_set_or_an_end_is_refused(runs: Path, made: Path) -> None:
    unfinished = state(runs / "a") | {"state": "interrupted"}
    (runs / "a" / "run.json").write_text(json.dumps(unfinished), encoding="utf-8")
    for data in (None, made / "colours"):
        with pytest.raises(UsageError, match="is interrupted, and its test set sealed"):
            regraft.evaluate(runs / "a", data)
    place = runs / "b" / "examples.parquet"
    table = pq.read_table(place)
    pq.write_table(table.filter([split != "test" for split in table["split"].to_pylist()]), place)
    result = call("evaluate", runs / "b")
    assert result.returncode == 2
    assert "has no test set" in result.stderr
    assert "regraft evaluate" in result.stderr


def test_starting_anew_takes_evaluations_away(runs: Path) -> None:
    from regraft.artifacts import RunFolder

    (runs / "a" / "evaluations").mkdir()
    (runs / "a" / "evaluations" / "x.json").write_text("{}")
    (runs / "a" / "notes.txt").write_text("mine")
    RunFolder(runs / "a").clear()
    assert not list((runs / "a" / "evaluations").glob("*"))
    assert (runs / "a" / "notes.txt").read_text() == "mine"


def test_a_tracker_hears_a_whole_run_and_the_recipe_knows_nothing_of_it(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: dict[str, Any]
) -> None:
    told: dict[str, dict] = {}

    class Writer:
        def __init__(self, place: str) -> None:
            told[place] = {}

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told[str(tmp_path / "run" / "tensorboard")][name] = value

        def add_text(self, name: str, text: str) -> None:
            told["recipe"] = {"text": text}

        def close(self) -> None:
            told["closed"] = {}

    library = ModuleType("torch.utils.tensorboard")
    library.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", library)
    recipe = {**quick, "finetune": {"epochs": 1, "folds": 0, "refit": False}}
    run = regraft.fit(
        made / "colours", tmp_path / "run", recipe=recipe, cache=made / "cache", track=["tensorboard"]
    )
    found = told[str(run.path / "tensorboard")]
    assert found["test/accuracy"] == run.metrics["test"]["accuracy"].value
    assert {"finetune/val_accuracy", "finetune/train_loss", "seconds/finetune"} <= found.keys()
    assert "| finetune.epochs | 1 |" in told["recipe"]["text"]
    assert "closed" in told
    assert "track" not in (run.path / "recipe.yaml").read_text(encoding="utf-8")


def test_track_is_refused_where_its_library_is_missing_before_anything_is_read(tmp_path: Path) -> None:
    result = call("fit", tmp_path / "none", "--track", "excel")
    assert result.returncode == 2
    assert "--track 'excel' is none of tensorboard, mlflow, wandb" in result.stderr
