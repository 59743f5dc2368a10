"""Numbers, from a table to every surface: fitted, shown, predicted with intervals, evaluated, exported, compared."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import regraft
import texts
from commands import call
from regraft.artifacts import read_parquet
from regraft.errors import DataError
from regraft.serving.schemas import Answer
from regraft.tasks import Grid
from sounds import hiss
from sounds import write as write_sound
from standin import StandIn
from ways import by_hub, by_program, by_server

COUNT = 150


def write(root: Path, header: str, cells: Any) -> Path:
    """Pictures of a light of their own, and a table with what `cells` says of the light, 0 to 100."""
    root.mkdir(parents=True)
    rng, lines = np.random.default_rng(0), [header]
    for number in range(COUNT):
        light = float(rng.uniform(0, 100))
        pixels = rng.integers(0, 60, (32, 32, 3)) + 1.8 * light
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{number}.png")
        lines.append(f"{number}.png,{cells(number, 1_000 + 10 * light)}")
    (root / "all.csv").write_text("\n".join(lines) + "\n")
    return root / "all.csv"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, head_only: dict[str, Any]) -> regraft.Run:
    place = tmp_path_factory.mktemp("numbers")
    table = write(place / "data", "path,target", lambda _, value: f"{value:.2f}")
    return regraft.fit(table, place / "run", recipe=head_only, cache=None)


def test_a_column_of_numbers_is_a_task_of_numbers(run: regraft.Run) -> None:
    assert (run.state["data"]["kind"], run.state["data"]["classes"]) == ("regression", ["target"])
    test = run.metrics["test"]
    assert test["mae"].low <= test["mae"].value <= test["mae"].high < 200
    assert test["r2"].value > 0.5
    assert {"rmse", "spearman", "median_error"} <= test.keys()
    assert {"median of the targets", "mean of the targets", "nearest neighbours"} <= run.metrics[
        "baselines"
    ].keys()
    assert run.metrics["versus"][0]["difference"] > 0
    (row,) = run.metrics["numbers"]
    assert row["held"]["low"] <= row["held"]["value"] <= row["held"]["high"]
    assert row["held"]["n"] == test["mae"].n
    page = (run.path / "report.html").read_text(encoding="utf-8")
    for said in (
        "Mean absolute error",
        "Where 90% of the numbers lie",
        "told and true",
        "Largest errors",
        "<em>given as</em>",
        "what the model said, then what the data say",
        "print(prediction.values, prediction.intervals)",
    ):
        assert said in page
    assert f"regraft fit {Path(run.state['data']['source']) / 'all.csv'} --config" in page
    assert not re.search(r"class weights|<em>labelled|told exactly|every number<", page)
    card = (run.path / "model" / "README.md").read_text(encoding="utf-8")
    assert "Tells a number of images: target." in card
    assert "## Where 90% of the numbers lie" in card
    assert run.headline().startswith(f"test mean absolute error {test['mae'].value:.3f} [")


def test_its_numbers_are_the_same_in_every_form(run: regraft.Run, tmp_path: Path) -> None:
    data = Path(run.state["data"]["source"])
    files = [str(data / f"{number}.png") for number in range(6)]
    predictions = regraft.load(run.path).predict(files)
    for one in predictions:
        assert one.values is not None
        assert one.intervals is not None
        low, high = one.intervals["target"]
        assert low < one.values["target"] < high
        assert float(one.label or "nan") == pytest.approx(one.values["target"], rel=1e-4)
        assert Answer(**one.to_dict()).values == one.values
    for form in ("csv", "jsonl", "parquet"):
        asked = call("predict", run.path, *files, "--out", tmp_path / f"x.{form}")
        assert asked.returncode == 0, asked.stderr
    with open(tmp_path / "x.csv", newline="") as file:
        first = next(csv.DictReader(file))
    assert float(first["value:target"]) == pytest.approx(predictions[0].values["target"], rel=1e-4)  # type: ignore[index]
    assert float(first["low:target"]) < float(first["value:target"]) < float(first["high:target"])
    assert read_parquet(tmp_path / "x.parquet")["high:target"].to_pylist()[0] > 1_000
    rows = read_parquet(run.path / "predictions.parquet").to_pylist()
    stored = [row for row in rows if row["split"] == "test"]
    (one,) = regraft.load(run.path).predict(data / stored[0]["source"])
    assert float(stored[0]["predicted"]) == pytest.approx(one.values["target"], rel=1e-6)  # type: ignore[index]
    for ours, served in zip(predictions, by_server(run.path, files, tmp_path), strict=True):
        assert served["values"] == pytest.approx(ours.values, rel=1e-5)
        assert served["intervals"]["target"] == pytest.approx(ours.intervals["target"], rel=1e-5)  # type: ignore[index]


def test_a_number_beyond_the_training_targets_is_told(run: regraft.Run) -> None:
    dark = np.zeros((32, 32, 3), dtype=np.uint8)
    white = np.full((32, 32, 3), 255, dtype=np.uint8)
    told = [one.note for one in run.model.predict([dark, white])]
    assert any("outside of the training targets, 10" in note for note in told)


def test_it_is_evaluated_compared_exported_and_sent_away(
    run: regraft.Run, hub: StandIn, tmp_path: Path
) -> None:
    own = regraft.evaluate(run.path)
    assert own.metrics["mae"] == run.metrics["test"]["mae"]
    assert "are those of the run" in own.said[0]
    new = tmp_path / "new"
    shutil.copytree(run.state["data"]["source"], new)
    other = regraft.evaluate(run.path, new / "all.csv")
    assert other.metrics["mae"].value == pytest.approx(own.metrics["mae"].value, rel=1e-6)
    assert other.tables["intervals"] == run.metrics["intervals"]  # with what they rest on
    assert [grid.title for grid in run.task.sections(other.tables) if isinstance(grid, Grid)] == [
        "Where 90% of the numbers lie"
    ]
    assert run.task.metrics[2].words == "R squared"
    shutil.copytree(run.path, tmp_path / "other")
    found = regraft.compare(run.path, tmp_path / "other")
    assert [metric.name for metric in found.metrics] == ["mae", "rmse", "r2"]
    assert found.pairs[0].difference.difference == 0
    exported = regraft.export(run.path, "onnx", tmp_path / "onnx")
    assert exported.proof is not None
    assert exported.proof.same.largest < 0.1
    files = [str(new / f"{number}.png") for number in range(6)]
    ours, sent = run.model.predict(files), by_hub(run.path, files, hub, tmp_path / "sent")
    for one, there, by_graph in zip(ours, sent, by_program(exported.path, files), strict=True):
        assert (there.values, there.intervals) == (one.values, one.intervals)
        assert by_graph["values"] == pytest.approx(one.values, rel=1e-3)
        assert by_graph["intervals"]["target"] == pytest.approx(one.intervals["target"], rel=1e-3)  # type: ignore[index]
    card = hub.repositories["me/model"].files["README.md"].decode()
    assert "image-regression" in card
    assert "pipeline_tag" not in card  # hubs have none of numbers told of pictures


def test_several_numbers_some_of_them_unknown_are_fine_tuned(tmp_path: Path, quick: dict[str, Any]) -> None:
    def cells(number: int, value: float) -> str:
        return f"{value:.2f},{'' if number % 4 == 0 else -value / 1_000:.5}"

    table = write(tmp_path / "data", "path,light,dark", cells)
    recipe = {**quick, "data": {"targets": ["light", "dark"]}, "finetune": {"folds": 0, "epochs": 2}}
    run = regraft.fit(table, tmp_path / "run", recipe=recipe, cache=None)
    assert run.state["data"]["classes"] == ["dark", "light"]
    assert "deviations" in run.headline()
    assert run.metrics["test"]["mae"].value < 1
    assert "scaled absolute error" in run.state["chosen_why"]
    by_name = {row["name"]: row for row in run.metrics["numbers"]}
    assert by_name["dark"]["n"] < by_name["light"]["n"]
    assert by_name["light"]["mae"] > 1 > by_name["dark"]["mae"]
    card = (run.path / "model" / "README.md").read_text(encoding="utf-8")
    assert "name: Mean absolute error, in standard deviations (95% interval" in card
    (one,) = run.model.predict(tmp_path / "data" / "1.png")
    assert (one.values or {}).keys() == {"dark", "light"}
    own = regraft.evaluate(run.path, table)
    assert own.metrics["mae"].value == pytest.approx(run.metrics["test"]["mae"].value, rel=1e-6)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("nan", "found 'nan', which is not finite"),
        ("many", "'light' is a number, or empty where it is not known; found 'many'"),
        ("5", "'light' is always 5 in training"),
    ],
)
def test_numbers_that_cannot_be_learnt_are_clear_errors(
    cell: str, said: str, tmp_path: Path, head_only: dict[str, Any]
) -> None:
    table = write(
        tmp_path / "data", "path,light", lambda number, _: cell if cell == "5" or number == 3 else "1.5"
    )
    with pytest.raises(DataError, match=said):
        regraft.fit(table, tmp_path / "run", recipe={**head_only, "data": {"targets": ["light"]}})


def splits(run: regraft.Run) -> dict[str, str]:
    """The split of each source."""
    rows = read_parquet(run.path / "examples.parquet").to_pylist()
    return {row["source"]: row["split"] for row in rows}


def test_many_numbers_called_labels_are_read_as_the_user_says_and_splits_of_an_earlier_run_are_kept(
    run: regraft.Run, tmp_path: Path, head_only: dict[str, Any]
) -> None:
    table = write(tmp_path / "data", "path,label", lambda _, value: f"{value:.0f}")
    with pytest.raises(DataError, match="different numbers"):
        regraft.fit(table, tmp_path / "run", recipe=head_only)
    recipe = {**head_only, "data": {"task": "regression", "seed": 5}}
    other = regraft.fit(table, tmp_path / "run", recipe=recipe, cache=None, splits=run.path)
    assert other.state["data"]["kind"] == "regression"
    assert splits(other) == splits(run)  # of the same pictures


def test_sounds_have_numbers_too(tmp_path: Path, head_only: dict[str, Any]) -> None:
    rng, lines = np.random.default_rng(0), ["path,target"]
    for number in range(40):
        loud = float(rng.uniform(0.01, 0.5))
        write_sound(tmp_path / f"{number}.wav", loud * hiss(seed=number))
        lines.append(f"{number}.wav,{loud:.4f}")
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    run = regraft.fit(tmp_path / "all.csv", tmp_path / "run", recipe=head_only, cache=None)
    assert (run.state["data"]["kind"], run.state["data"]["modality"]) == ("regression", "audio")
    assert json.loads((run.path / "run.json").read_text())["state"] == "finished"


def test_texts_have_numbers_too(tmp_path: Path) -> None:
    encoder, rng, lines = texts.tiny_encoder(tmp_path / "bert"), np.random.default_rng(0), ["text,target"]
    for number in range(40):
        words = int(rng.integers(3, 40))
        lines.append(f"{texts.sentence('weather', number, words)},{words + 0.5}")
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    recipe = {
        "obtain": {"backbone": f"path:{encoder}"},
        "finetune": {"epochs": 0},
        "run": {"engine": "torch-float32"},
    }
    run = regraft.fit(tmp_path / "all.csv", tmp_path / "run", recipe=recipe, cache=None)
    assert (run.state["data"]["kind"], run.state["data"]["modality"]) == ("regression", "text")
    assert run.metrics["cv"]["mae"].value > 0
    (one,) = run.model.predict([texts.sentence("weather", 3, 20).encode()])
    assert (one.values or {}).keys() == {"target"}
