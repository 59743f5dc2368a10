"""Several labels at once, from a table to every surface: fitted, shown, predicted, evaluated, exported, compared."""

from __future__ import annotations

import csv
import json
import math
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
from regraft.errors import DataError, UsageError
from regraft.report import write_comparison
from regraft.serving.schemas import Answer
from sounds import hiss, tone
from sounds import write as write_sound
from standin import StandIn
from ways import by_hub, by_program, by_server

COUNT = 150


def write(root: Path, header: str, cells: Any) -> Path:
    """Pictures whose light, red and blue vary on their own, and a table with what `cells` says of each."""
    root.mkdir(parents=True)
    rng, lines = np.random.default_rng(0), [header]
    for number in range(COUNT):
        bright, red, blue = (bool(flag) for flag in rng.random(3) < (0.5, 0.4, 0.2))
        pixels = rng.integers(0, 60, (32, 32, 3)) + 90 * bright
        pixels[:, :, 0] += 60 * red
        pixels[:, :, 2] += 90 * blue
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{number}.png")
        lines.append(f"{number}.png,{cells(number, {'bright': bright, 'red': red, 'blue': blue})}")
    (root / "all.csv").write_text("\n".join(lines) + "\n")
    return root / "all.csv"


def joined(_: int, has: dict[str, bool]) -> str:
    return ";".join(name for name, value in has.items() if value)


def columns(number: int, has: dict[str, bool]) -> str:
    """0 and 1; of every fifth picture `blue` is not known, and of one nothing."""
    cells = ["" if number == 7 else str(int(value)) for value in has.values()]
    return ",".join([*cells[:2], "" if number % 5 == 0 else cells[2]])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, head_only: dict[str, Any]) -> regraft.Run:
    place = tmp_path_factory.mktemp("several")
    table = write(place / "data", "path,labels", joined)
    return regraft.fit(table, place / "run", recipe=head_only, cache=None)


def test_labels_between_marks_are_a_task_of_several(run: regraft.Run) -> None:
    assert run.state["data"]["kind"] == "multi"
    assert run.state["data"]["classes"] == ["blue", "bright", "red"]
    test = run.metrics["test"]
    assert test["map"].low <= test["map"].value <= test["map"].high
    assert test["map"].value > 0.7
    assert {
        "macro_f1",
        "micro_f1",
        "weighted_f1",
        "subset_accuracy",
        "hamming_loss",
        "log_loss",
    } <= test.keys()
    assert {"label frequencies", "nearest neighbours"} <= run.metrics["baselines"].keys()
    assert run.metrics["versus"][0]["of"] == "mean average precision"
    rows = {row["class"]: row for row in run.metrics["per_class"]}
    assert rows["bright"]["ap_low"] <= rows["bright"]["ap"] <= rows["bright"]["ap_high"]
    cutoffs = {row["label"]: row for row in run.metrics["cutoffs"]}
    assert all(0 < row["threshold"] < 1 for row in cutoffs.values())
    assert cutoffs["bright"]["ece"] is not None
    page = (run.path / "report.html").read_text(encoding="utf-8")
    for said in (
        "Mean average precision",
        "When a label is said",
        "Which labels go together",
        "Label by label",
        "The labels in numbers",
        "print(prediction.labels, prediction.probabilities)",
    ):
        assert said in page
    assert not re.search(r"class weights|of the class|classes in numbers|how sure it was, then", page, re.I)
    card = (run.path / "model" / "README.md").read_text(encoding="utf-8")
    assert "Tells which of 3 labels images have: none, one or several." in card
    assert "Its weakest label is" in card


def test_its_answers_are_the_same_in_every_form(run: regraft.Run, tmp_path: Path) -> None:
    data = Path(run.state["data"]["source"])
    files = [str(data / f"{number}.png") for number in range(6)]
    predictions = regraft.load(run.path).predict(files)
    model = json.loads((run.path / "model" / "regraft.json").read_text())
    for one in predictions:
        above = [name for name, p in one.probabilities.items() if p >= model["labels"][name]["threshold"]]
        assert list(one.labels or ()) == above
        assert one.label == "; ".join(above)
        assert Answer(**one.to_dict()).labels == above
    for form in ("csv", "jsonl", "parquet"):
        asked = call("predict", run.path, *files, "--out", tmp_path / f"x.{form}")
        assert asked.returncode == 0, asked.stderr
    with open(tmp_path / "x.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [one.label for one in predictions]
    assert float(rows[0]["probability:red"]) == pytest.approx(predictions[0].probabilities["red"], abs=1e-4)
    stored = read_parquet(run.path / "predictions.parquet").to_pylist()
    tested = [row for row in stored if row["split"] == "test"]
    again = regraft.load(run.path).predict([data / row["source"] for row in tested])
    assert [json.loads(row["predicted"]) for row in tested] == [list(one.labels or ()) for one in again]
    for ours, served in zip(predictions, by_server(run.path, files, tmp_path), strict=True):
        assert served["labels"] == list(ours.labels or ())
        assert served["probabilities"] == pytest.approx(ours.probabilities, abs=1e-5)


def test_it_is_evaluated_compared_exported_and_sent_away(
    run: regraft.Run, hub: StandIn, tmp_path: Path
) -> None:
    own = regraft.evaluate(run.path)
    assert own.metrics["map"] == run.metrics["test"]["map"]
    assert "are those of the run" in own.said[0]
    new = tmp_path / "new"
    shutil.copytree(run.state["data"]["source"], new)
    other = regraft.evaluate(run.path, new / "all.csv")
    assert other.left_out["in train"] > 0
    assert other.metrics["map"].value == pytest.approx(own.metrics["map"].value, abs=1e-6)
    rows = read_parquet(run.path / "examples.parquet").to_pylist()
    without = [row["source"] for row in rows if row["split"] == "test" and row["label"] == "[]"]
    (new / "none.csv").write_text("\n".join(["path,labels", *(f"{source}," for source in without)]) + "\n")
    told = regraft.evaluate(run.path, new / "none.csv")  # of labels that none has there is no precision
    assert told.headline().startswith(f"mean average precision not defined on {len(without)} examples")
    assert told.metrics["hamming_loss"].value < 0.5
    shutil.copytree(run.path, tmp_path / "other")
    found = regraft.compare(run.path, tmp_path / "other")
    assert [metric.name for metric in found.metrics] == ["map", "macro_f1", "micro_f1"]
    assert found.pairs[0].difference.difference == 0
    told_of = found.to_dict()
    for row in told_of["rows"]:
        row["metrics"]["map"] = {"value": math.nan, "low": math.nan, "high": math.nan, "n": 6, "method": ""}
    write_comparison(told_of, tmp_path / "comparison.svg")  # of a test set that does not define it
    exported = regraft.export(run.path, "onnx", tmp_path / "onnx")
    assert exported.proof is not None
    assert exported.proof.same.agreement == 1
    files = [str(new / f"{number}.png") for number in range(6)]
    ours, sent = run.model.predict(files), by_hub(run.path, files, hub, tmp_path / "sent")
    for one, there, by_graph in zip(ours, sent, by_program(exported.path, files), strict=True):
        assert (there.labels, there.probabilities) == (one.labels, one.probabilities)
        assert by_graph["labels"] == list(one.labels or ())
        assert by_graph["probabilities"] == pytest.approx(one.probabilities, abs=1e-3)
    card = hub.repositories["me/model"].files["README.md"].decode()
    assert "pipeline_tag: image-classification" in card
    assert "Tells which of 3 labels images have" in card


def splits(run: regraft.Run) -> dict[str, str]:
    """The split of each source."""
    rows = read_parquet(run.path / "examples.parquet").to_pylist()
    return {row["source"]: row["split"] for row in rows}


def test_columns_of_0_and_1_may_be_empty_and_splits_of_an_earlier_run_are_kept(
    run: regraft.Run, tmp_path: Path, head_only: dict[str, Any]
) -> None:
    table = write(tmp_path / "data", "path,bright,red,blue", columns)
    recipe = {**head_only, "data": {"labels": ["bright", "red", "blue"], "seed": 5}}
    others = run  # of the same pictures
    run = regraft.fit(table, tmp_path / "run", recipe=recipe, cache=None, splits=others.path)
    assert splits(run).items() <= splits(others).items()
    counted = {row["class"]: row["known"] for row in run.metrics["per_class"]}
    test = read_parquet(run.path / "examples.parquet").to_pylist()
    known = [json.loads(row["label"])["blue"] is not None for row in test if row["split"] == "test"]
    assert counted["blue"] == sum(known) < counted["red"] == len(known)
    kinds = {finding["kind"] for finding in json.loads((run.path / "audit.json").read_text())["findings"]}
    assert "nothing known" in kinds
    assert "7.png" not in {row["source"] for row in test}
    own = regraft.evaluate(run.path, table)
    assert own.metrics["map"].value == pytest.approx(run.metrics["test"]["map"].value, abs=1e-6)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (
            lambda n, has: "1,1," + str(int(has["blue"])),
            "every training example of which it is known has 'bright', 'red'",
        ),
        (lambda n, has: f"{int(has['bright'])},0,{int(has['blue'])}", "no example has 'red'"),
        (
            lambda n, has: f"{int(has['bright'])},perhaps,1",
            "'red' is 0 or 1, or empty where it is not known; found 'perhaps'",
        ),
    ],
)
def test_labels_that_cannot_be_learnt_are_clear_errors(
    cells: Any, said: str, tmp_path: Path, head_only: dict[str, Any]
) -> None:
    table = write(tmp_path / "data", "path,bright,red,blue", cells)
    with pytest.raises(DataError, match=said):
        regraft.fit(
            table, tmp_path / "run", recipe={**head_only, "data": {"labels": ["bright", "red", "blue"]}}
        )


def test_columns_that_are_not_there_are_named(tmp_path: Path, head_only: dict[str, Any]) -> None:
    table = write(tmp_path / "data", "path,bright,red,blue", columns)
    with pytest.raises(DataError, match="no column `blu`; did you mean `blue`"):
        regraft.fit(table, tmp_path / "run", recipe={**head_only, "data": {"labels": ["bright", "blu"]}})
    with pytest.raises(UsageError, match="two kinds of task"):
        regraft.fit(table, tmp_path / "run", recipe={"data": {"labels": ["red"], "targets": ["blue"]}})


def test_it_is_fine_tuned_and_texts_have_several_labels_too(tmp_path: Path) -> None:
    encoder = texts.tiny_encoder(tmp_path / "bert")
    lines = ["text,labels"]
    known = texts.labelled(40)
    for (one, first), (two, second) in zip(known, [*known[7:], *known[:7]], strict=True):
        lines.append(f'"{one} {two}",{first};{second}')
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    recipe = {
        "obtain": {"backbone": f"path:{encoder}"},
        "finetune": {"epochs": 1, "folds": 0},
        "run": {"engine": "torch-float32"},
    }
    run = regraft.fit(tmp_path / "all.csv", tmp_path / "run", recipe=recipe, cache=None)
    assert (run.state["data"]["kind"], run.state["data"]["modality"]) == ("multi", "text")
    assert 0 < run.metrics["test"]["map"].value <= 1
    assert "summed log loss" in run.state["chosen_why"]
    assert run.model.predict([known[0][0].encode()])[0].labels is not None


def test_sounds_have_several_labels_too_and_folds_say_each_from_its_own_threshold_on(
    tmp_path: Path, head_only: dict[str, Any]
) -> None:
    rng, lines = np.random.default_rng(0), ["path,labels"]
    for number in range(40):
        high, noisy = (bool(flag) for flag in rng.random(2) < (0.5, 0.3))
        samples = tone(1_200 if high else 200, seed=number) + 0.4 * noisy * hiss(seed=number)
        write_sound(tmp_path / f"{number}.wav", samples)
        lines.append(f"{number}.wav,{joined(number, {'high': high, 'noisy': noisy})}")
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    recipe = {**head_only, "data": {"folds": 2}}
    run = regraft.fit(tmp_path / "all.csv", tmp_path / "run", recipe=recipe, cache=None)
    assert (run.state["data"]["kind"], run.state["data"]["modality"]) == ("multi", "audio")
    right = []
    for fold in sorted((run.path / "folds").iterdir()):
        for row in read_parquet(fold / "predictions.parquet").to_pylist():
            if row["split"] == "test":
                right.append(set(json.loads(row["predicted"])) == set(json.loads(row["label"])))
    assert len(right) == 40
    assert run.metrics["cv"]["subset_accuracy"].value == pytest.approx(np.mean(right))
