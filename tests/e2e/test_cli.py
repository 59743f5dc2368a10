"""The command line as it is typed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

import regraft
from commands import call
from regraft.errors import BudgetError


@pytest.fixture
def finished(fitted: Any) -> Path:
    return fitted.run


def test_predict_in_every_format_in_the_order_given(finished: Path, colours: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    files = [colours / "blue" / "1.png", bad, colours / "red" / "2.png"]
    result = call("predict", finished, *files, "--format", "jsonl")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 1  # one could not be read, the others were answered
    assert [row["label"] for row in rows] == ["blue", None, "red"]
    assert rows[1]["error"]
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1)
    result = call("predict", finished, "-", "--format", "csv", stdin="\n".join(map(str, files)) + "\n")
    table = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["label"] for row in table] == ["blue", "", "red"]
    result = call("predict", finished, colours / "red")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) == 30
    # 17.R3: the walk of training, and nothing is no success
    mixed, empty = (tmp_path / "mixed", tmp_path / "empty")
    for name in ("a.png", "._a.png", "__MACOSX/a.png", "notes.txt"):
        (mixed / name).parent.mkdir(parents=True, exist_ok=True)
        (mixed / name).write_bytes((colours / "red" / "2.png").read_bytes())
    empty.mkdir()
    result = call("predict", finished, mixed)
    assert (result.returncode, len(result.stdout.splitlines())) == (0, 1)
    assert "passed over: 2 hidden, 1 no images (1 .txt)" in result.stderr
    for words, stdin in (([empty], None), (["-"], "")):
        result = call("predict", finished, *words, stdin=stdin)
        assert (result.returncode, result.stdout) == (2, "")
        assert "Traceback" not in result.stderr
        assert result.stderr


def test_predictions_do_not_depend_on_what_stands_beside_them(finished: Path, colours: Path) -> None:
    model = regraft.load(finished, engine="torch-float32")
    files = sorted(colours.glob("*/*.png"))
    together = {p.source: p.probability for p in model.predict(files)}
    for file in files[::17]:
        assert model.predict(file)[0].probability == pytest.approx(together[str(file)], abs=1e-5)


def test_the_inputs_python_takes_agree(finished: Path, colours: Path) -> None:
    import numpy as np
    from PIL import Image

    file = colours / "green" / "3.png"
    picture = Image.open(file)
    model = regraft.load(finished)
    found = model.predict([file, str(file), file.read_bytes(), picture, np.asarray(picture)])
    assert len({p.probability for p in found}) == 1
    assert "green" in found[0]._repr_html_()


def test_dry_run_trains_and_writes_nothing(colours: Path, tmp_path: Path) -> None:
    result = call("fit", colours, "--out", tmp_path / "run", "--dry-run", "--json", "--set", "base.size=64")
    plan = json.loads(result.stdout)
    assert plan["estimated_seconds"] > 0
    assert sum(plan["counts"].values()) == 90
    assert not (tmp_path / "run").exists()


def test_an_earlier_run_is_a_pre_trained_model(fitted: Any, tmp_path: Path) -> None:
    result = call(
        "fit",
        fitted.data,
        "--out",
        tmp_path / "second",
        "--backbone",
        f"run:{fitted.run}",
        "--freeze",
        "head",
        "--json",
        "--size",
        "32",
        "--splits",
        fitted.run,
        "--set",
        "run.engine=torch-float32",
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["metrics"]["test"]["accuracy"]["value"] > 0.8


def test_every_wrong_setting_is_named_at_once(colours: Path) -> None:
    result = call("fit", colours, "--set", "finetune.epoch=3", "--set", "head.kind=tree", "--budget", "10m")
    assert result.returncode == 2
    assert "finetune.epochs" in result.stderr
    assert "'linear' or 'mlp'" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--set", "a.b={"],
        ["--seed", "-1"],
        ["--seed", "5000000000"],
        ["--max-params", "9" * 400],
        ["--budget", "9" * 400 + "h"],
        ["--device", "meta"],
        ["--device", "hpu"],
        ["--set", "run.seed=" + "9" * 5000],
    ],
    ids=lambda words: " ".join(words)[:20],
)
def test_a_number_that_nothing_can_take_is_one_clear_error(
    words: list[str], colours: Path, tmp_path: Path
) -> None:
    result = call("fit", colours, "--out", tmp_path / "run", "--dry-run", *words)
    assert result.returncode == 2
    assert "regraft: " in result.stderr


def test_the_largest_seed_is_one(colours: Path, tmp_path: Path, head_only: dict[str, Any]) -> None:
    for file in colours.glob("*/*.png"):
        if int(file.stem) >= 8:
            file.unlink()  # so few that all of them are cross-validated
    largest = 2**32 - 1
    recipe = {**head_only, "data": {"seed": largest}, "run": {**head_only["run"], "seed": largest}}
    assert "cv" in regraft.fit(colours, tmp_path / "run", recipe=recipe).metrics


def test_a_budget_too_small_for_fine_tuning_stops_at_the_head(
    colours: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    recipe = {**quick, "run": {**quick["run"], "budget_seconds": 1e-6}}
    with pytest.raises(BudgetError, match="--budget"):  # nothing usable can exist in time
        regraft.fit(colours, tmp_path / "none", recipe=recipe)
    regraft.fit(colours, tmp_path / "first", recipe={**quick, "freeze": {"strategy": "head"}})
    run = regraft.fit(colours, tmp_path / "run", recipe=recipe)  # features are stored by now
    assert run.state["chosen"] == "head only"
    assert run.state["steps"]["finetune"]["state"] == "skipped"
    assert "test" in run.metrics


def test_an_mlp_head_is_kept_beside_the_backbone(
    colours: Path, tmp_path: Path, head_only: dict[str, Any]
) -> None:
    recipe = {**head_only, "head": {"kind": "mlp", "hidden": 16}}
    run = regraft.fit(colours, tmp_path / "run", recipe=recipe)
    assert (run.path / "model" / "head.safetensors").is_file()
    model, picture = run.model, str(colours / "blue" / "4.png")
    assert model.head_settings == {"hidden": 16, "dropout": 0.3}
    first = model.predict(picture)[0]
    assert first.label == "blue"
    model.save(tmp_path / "again")
    again = regraft.load(tmp_path / "again").predict([picture, str(colours / "red" / "4.png")])[0]
    assert again.probabilities == pytest.approx(first.probabilities, abs=1e-6)


def test_models_lists_the_packaged_ones() -> None:
    found = json.loads(call("models", "--json").stdout)
    assert any(item["reference"] == "packaged:efficientnet_lite0" and item["at_hand"] for item in found)


def test_overwrite_spares_what_is_no_run(colours: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "model"
    mine.mkdir(parents=True)
    (mine / "precious.txt").write_text("mine")
    result = call(
        "fit", colours, "--out", tmp_path / "mine", "--overwrite", "--freeze", "head", "--size", "64"
    )
    assert result.returncode == 2
    assert "no run" in result.stderr
    assert (mine / "precious.txt").read_text() == "mine"


def test_resume_says_what_it_would_leave_out(tmp_path: Path) -> None:
    for word in ("data", "--dry-run", "--overwrite"):
        result = call("fit", word, "--resume", "--out", tmp_path / "run")
        assert result.returncode == 2
        assert "leave out" in result.stderr


def test_a_single_array_is_one_image(finished: Path) -> None:
    import numpy as np

    assert len(regraft.load(finished).predict(np.zeros((48, 48, 3), dtype=np.uint8))) == 1
