"""Backbones compared on one's own data: what tells the classes apart comes first, and fit takes it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import regraft
from commands import call
from regraft.artifacts import RunFolder, read_json
from regraft.backbones import obtain_weights
from regraft.errors import BackboneError, UsageError
from regraft.report import write_report
from regraft.steps import obtain as step
from regraft.steps.rank import Ranking, Row, choose, clearly_lower, round_sizes, stratified_order
from regraft.tasks import Score

LITE = "packaged:efficientnet_lite0"
QUICK = {"base": {"size": 64}, "run": {"engine": "torch-float32"}, "freeze": {"strategy": "head"}}


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """24 pictures each of discs, squares and crosses of any colour, place and size on noise: pixels alone
    tell little.
    """
    rng, root = np.random.default_rng(0), tmp_path / "shapes"
    y, x = np.mgrid[:28, :28]
    for name in ("cross", "disc", "square"):
        (root / name).mkdir(parents=True)
        for number in range(24):
            centre, radius = rng.integers(9, 19, 2), rng.integers(5, 9)
            dy, dx = np.abs(y - centre[0]), np.abs(x - centre[1])
            inside = {
                "cross": (np.minimum(dy, dx) < radius / 4) & (np.maximum(dy, dx) < radius),
                "disc": dy**2 + dx**2 < radius**2,
                "square": np.maximum(dy, dx) < 0.9 * radius,
            }[name]
            picture = rng.integers(0, 80, (28, 28, 3)) + rng.integers(0, 80, 3)
            picture[inside] = rng.integers(100, 256, 3)
            Image.fromarray(picture.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


def random_weights(folder: Path, architecture: str) -> str:
    """A reference to an untrained network in a file."""
    torch.manual_seed(1)
    folder.mkdir(exist_ok=True)
    file = folder / f"{architecture}.safetensors"
    save_file(timm.create_model(architecture, num_classes=10).state_dict(), str(file))
    return f"path:{file}@{architecture}"


def test_trained_features_come_before_random_ones(shapes: Path, tmp_path: Path) -> None:
    random = random_weights(tmp_path / "weights", "tf_efficientnet_lite0")
    before = sorted(path for path in tmp_path.rglob("*"))
    found = regraft.rank(shapes, [random, LITE], recipe=QUICK)
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert found.chosen.reference == LITE
    names = [row.reference for row in found.rows if row.depth == row.stages]
    assert names == [LITE, random]
    assert {row.depth for row in found.rows if row.reference == LITE} == {4, 5, 6, 7, 8}
    for row in found.rows:
        probe, near, evidence = row.scores
        assert (probe.title, near.title, evidence.title) == ("Probe accuracy", "Nearest neighbours", "LogME")
        assert all(score.low <= score.value <= score.high for score in (probe, near))
        assert evidence.low is None
    assert found.rows[0].excess == 0
    lite = {row.depth: row for row in found.rows if row.reference == LITE}
    assert lite[4].parameters < lite[7].parameters < lite[8].parameters
    assert lite[4].examples_per_second > lite[8].examples_per_second
    assert json.dumps(found.to_dict()["rows"][0]["scores"])


def test_fit_takes_what_the_comparison_chose_and_resumes_with_it(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for picture in shapes.glob("*/*.png"):  # that of 224 pixels is tried too, which takes long
        if int(picture.stem) >= 16:
            picture.unlink()
    random = random_weights(tmp_path / "weights", "test_efficientnet")
    monkeypatch.setattr(step, "candidates", lambda *_: [random, LITE])
    recipe = {
        **QUICK,
        "base": {},
        "freeze": {"strategy": "last-1"},
        "finetune": {"epochs": 1, "folds": 0, "refit": False},
    }
    run = regraft.fit(shapes, tmp_path / "run", recipe=recipe)
    ranking = read_json(run.path / "ranking.json")
    settings = regraft.Recipe.build(__import__("yaml").safe_load((run.path / "recipe.yaml").read_text()))
    chosen = next(row for row in ranking["rows"] if row["name"] == ranking["chosen"])
    assert (settings.obtain.backbone, settings.base.size, settings.base.depth) == (
        LITE,
        chosen["size"],
        chosen["depth"],
    )
    assert len({(row["reference"], row["size"]) for row in ranking["rows"]}) == 4
    assert run.state["steps"]["obtain"]["why"] == ranking["reason"]
    page = (run.path / "report.html").read_text()
    assert "Backbones compared" in page
    assert "ms an example" in page
    files = [str(path) for path in sorted(shapes.rglob("*.png"))[::9]]
    before = np.stack(list(run.model.outputs(files)))
    state = read_json(run.path / "run.json")
    (run.path / "run.json").write_text(json.dumps({**state, "state": "interrupted"}))
    monkeypatch.setattr(step, "rank", None)  # a second comparison would fail
    again = regraft.fit(out=run.path, resume=True)
    assert again.state["steps"]["obtain"]["why"] == ranking["reason"]
    np.testing.assert_allclose(np.stack(list(again.model.outputs(files))), before, atol=1e-5)


def test_a_truncated_run_is_fitted_saved_and_a_candidate_elsewhere_but_not_on_its_own_data(
    shapes: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = {
        "obtain": {"backbone": LITE},
        "base": {"size": 64, "depth": 5},
        "run": {"engine": "torch-float32"},
        "freeze": {"strategy": "last-1"},
        "finetune": {"epochs": 1, "folds": 0, "refit": False},
    }
    run = regraft.fit(shapes, recipe=recipe)
    about = read_json(run.path / "model" / "regraft.json")
    assert about["depth"] == 5
    assert about["plain_timm"] is False
    assert about["provenance"]["parameters"] < 500_000
    first = [prediction.label for prediction in run.model.predict(sorted(shapes.glob("*/1*.png")))]
    assert first == [p.label for p in regraft.load(run.path).predict(sorted(shapes.glob("*/1*.png")))]
    assert obtain_weights(f"run:{run.path}").depth == 5
    monkeypatch.setattr("regraft.backbones.candidates", lambda *_: [LITE])
    elsewhere = regraft.rank(colours, recipe={**QUICK, "base": {"size": 64, "depth": 4}})
    assert {(row.reference, row.depth, row.stages) for row in elsewhere.rows} == {
        (LITE, 4, 8),
        (f"run:{run.path}", 4, 5),
    }
    here = regraft.rank(shapes, recipe={**QUICK, "base": {"size": 64, "depth": 8}})
    assert {row.reference for row in here.rows} == {LITE}
    # Its test set it has not seen
    seen = sum(run.state["data"]["counts"][split] for split in ("train", "val"))
    assert f"made with {seen} of these" in here.left_out[f"run:{run.path}"]


def row(
    name: str, loss: float, excess: float, error: float, speed: float, seconds: float, examples: int = 300
) -> Row:
    """A candidate of which only the result matters."""
    scores = (
        Score("probe_accuracy", "Probe accuracy", True, "%", 0.9, 0.8, 0.95, examples),
        Score("logme", "LogME", True, "", 0.1),
    )
    return Row(
        name, 224, 8, 8, examples, loss, excess, error, scores, 1000, 0.1, speed, seconds, None, "", ""
    )


def test_ties_go_to_the_cheaper_and_the_budget_is_kept() -> None:
    rows = [
        row("best", 0.20, 0.0, 0.0, 10, 500),
        row("tie", 0.21, 0.01, 0.02, 20, 300),
        row("near", 0.25, 0.05, 0.03, 40, 100),
        row("gone", 0.90, 0.40, 0.03, 90, 20, 100),
    ]
    assert choose(rows, "accuracy", float("inf"), 100)[0].reference == "tie"
    assert choose(rows, "speed", float("inf"), 100)[0].reference == "near"
    chosen, why = choose(rows, "accuracy", 200, 100)
    assert chosen.reference == "near"  # fits, and is not clearly worse than the best
    assert "fits the budget" in why
    assert "500 s" in why
    chosen, why = choose(rows, "accuracy", 50, 100)
    assert chosen.reference == "tie"
    assert "cut short" in why
    # Not even the features would be done in time
    assert choose(rows, "accuracy", 50, 100_000)[0].reference == "gone"
    assert "no candidate's whole run fits" in choose(rows, "accuracy", 5, 100_000)[1]


def test_a_network_cut_short_has_to_be_clearly_better_than_the_whole() -> None:
    rng = np.random.default_rng(0)
    whole = rng.exponential(size=200)
    noise = rng.normal(size=200) - 0.1
    assert not clearly_lower(whole, whole + noise - noise.mean())
    assert not clearly_lower(whole - 0.1 + noise - noise.mean(), whole)
    assert clearly_lower(whole - 0.3 + noise - noise.mean(), whole)
    rows = [
        row("whole", 0.20, 0.0, 0.0, 10, 500),
        replace(row("cut", 0.19, -0.01, 0.02, 20, 300), clear=False),
        row("other", 0.21, 0.01, 0.02, 15, 400),
    ]
    chosen, why = choose(rows, "accuracy", float("inf"), 100)
    assert chosen.reference == "other"
    assert "cut from a network" in why
    assert choose(rows, "speed", float("inf"), 100)[0].reference == "cut"
    assert choose(rows, "accuracy", 350, 100)[0].reference == "cut", "nothing else fits"
    assert "cut from" not in choose([rows[0], rows[2]], "accuracy", float("inf"), 100)[1]


def test_cuts_stand_behind_their_network_where_it_will_be_fine_tuned(shapes: Path) -> None:
    frozen = regraft.rank(shapes, [LITE], recipe=QUICK)
    assert all(row.clear for row in frozen.rows)
    assert [row.loss for row in frozen.rows] == sorted(row.loss for row in frozen.rows)
    tuned = regraft.rank(shapes, [LITE], recipe={**QUICK, "freeze": {"strategy": "full"}})
    assert {(row.size, row.depth): row.loss for row in tuned.rows} == {
        (row.size, row.depth): row.loss for row in frozen.rows
    }
    whole = next(place for place, row in enumerate(tuned.rows) if row.depth == row.stages)
    assert all(place > whole for place, row in enumerate(tuned.rows) if not row.clear)
    assert all(row.clear for row in tuned.rows[: whole + 1])
    losses = [row.loss for row in tuned.rows if row.clear]
    assert losses == sorted(losses)


def test_rounds_grow_and_every_beginning_is_stratified() -> None:
    assert round_sizes(200, 3) == [200]
    assert round_sizes(400, 3) == [400]
    assert round_sizes(700, 3) == [300, 700]
    assert round_sizes(50_000, 3) == [300, 1_000, 3_000]
    assert round_sizes(50_000, 100) == [500, 1_000, 3_000]
    labels = np.repeat([0, 1, 2], [800, 190, 10])
    order = stratified_order(labels, 0)
    assert sorted(order) == list(range(1000))
    assert np.bincount(labels[order[:300]]).tolist() == pytest.approx([240, 57, 6], abs=5)
    assert np.bincount(labels[order[:15]]).tolist() == [5, 5, 5]


def test_limits_are_kept_or_said(shapes: Path, tmp_path: Path) -> None:
    random = random_weights(tmp_path / "weights", "test_efficientnet")
    found = regraft.rank(shapes, [LITE, random], recipe={**QUICK, "obtain": {"max_parameters": 400_000}})
    assert all(row.parameters <= 400_000 for row in found.rows)
    assert any(row.reference == LITE for row in found.rows)  # its first stages
    with pytest.raises(UsageError, match="parameters"):
        regraft.rank(shapes, [LITE], recipe={**QUICK, "obtain": {"max_parameters": 10}})
    with pytest.raises(BackboneError, match="nowhere"):
        regraft.rank(shapes, ["path:/nowhere"], recipe=QUICK)
    with pytest.raises(UsageError, match="8 stages"):
        regraft.fit(shapes, tmp_path / "run", recipe={**QUICK, "base": {"size": 64, "depth": 9}})


def test_the_command_prints_a_table_or_json(shapes: Path, tmp_path: Path) -> None:
    random = random_weights(tmp_path / "weights", "test_efficientnet")
    command = ["rank", shapes, "--backbone", random]
    result = call(*command, "--budget", "5m", "--prefer", "speed", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "probe accuracy" in result.stdout
    assert "most parameters" in result.stdout
    result = call(*command, "--json", "--max-params", "5M", cwd=tmp_path)
    found = json.loads(result.stdout)
    assert found["chosen"] in [row["name"] for row in found["rows"]]
    assert not (tmp_path / "runs").exists()
    assert call(*command, "--max-params", "few").returncode == 2


def test_the_report_shows_a_comparison_escaped(tmp_path: Path) -> None:
    rows = [
        replace(row(name, 0.2, 0.0, 0.0, speed, 5), licence="<MIT>")
        for name, speed in (("<b>one</b>", 10), ("two", 30))
    ]
    found = Ranking(
        tuple(rows), rows[0], "the best", {"LogME": "two at 224"}, {"three": "it is gone"}, "log loss"
    )
    folder = RunFolder(tmp_path)
    folder.state.write_text(
        json.dumps({"schema": folder.SCHEMA, "state": "running", "name": "x", "steps": {}})
    )
    folder.ranking.write_text(json.dumps(found.to_dict()))
    page = write_report(tmp_path).read_text()
    assert "&lt;b&gt;one&lt;/b&gt; at 224" in page
    assert "<b>one" not in page
    assert "LogME would take two at 224" in page
    assert "90.0%" in page
    assert [
        head for head in ("Probe accuracy", "LogME", "Log loss") if f'<th scope="col">{head}</th>' not in page
    ] == []
    assert "three (it is gone)" in page
    told = found.to_dict()
    old_rows = [{"log_loss": one.pop("loss"), **one} for one in told["rows"]]
    folder.ranking.write_text(
        json.dumps({**told, "schema": 2, "rows": old_rows, "loss": told.pop("loss_name")})
    )
    assert write_report(tmp_path).read_text() == page, "a ranking of the schema before reads the same"
