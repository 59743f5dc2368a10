"""Strategies, repeats, few examples and the wish for speed, as a user asks for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import regraft
from commands import call
from regraft.artifacts import read_events
from regraft.errors import UsageError
from regraft.recipe import read_recipe
from regraft.steps.finetune.tune import Tuner


def test_explore_keeps_the_test_sealed_and_fit_goes_on_with_the_winner(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: dict[str, Any]
) -> None:
    monkeypatch.setattr("regraft.steps.finetune.explore.explore.__defaults__", (("last-1", "norm", "full"),))
    run = regraft.explore(colours, tmp_path / "run", recipe={**quick, "finetune": {"epochs": 2}})
    assert run.state["state"] == "explored"
    kinds = [event["kind"] for event in read_events(run.path / "events.jsonl")]
    assert "unseal" not in kinds
    assert kinds.count("trial") == len(run.strategies["trials"]) - 1
    assert not (run.path / "predictions.parquet").exists()
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Freezing strategies" in page
    assert run.strategies["advice"] in page.lower() or run.strategies["advice"][1:] in page
    finished = regraft.fit(out=run.path, resume=True)
    assert finished.state["state"] == "finished"
    again = read_events(run.path / "events.jsonl")
    assert [e["kind"] for e in again].count("epoch") == kinds.count("epoch"), (
        "what was trained is not trained once more"
    )
    assert not any("fold" in e.get("text", "") for e in again), "nor judged anew"
    assert read_recipe(finished.path / "recipe.yaml")["freeze"]["strategy"] == run.strategies["chosen"]
    assert finished.metrics["test"]["accuracy"].n > 0
    with pytest.raises(UsageError, match="names one"):
        regraft.explore(colours, tmp_path / "other", recipe={"freeze": {"strategy": "full"}})


def test_fit_with_freeze_auto_resolves_it(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: dict[str, Any]
) -> None:
    monkeypatch.setattr("regraft.steps.finetune.explore.explore.__defaults__", (("last-1", "norm"),))
    recipe = {**quick, "finetune": {"epochs": 2, "folds": 0, "refit": False}, "freeze": {"strategy": "auto"}}
    run = regraft.fit(colours, tmp_path / "run", recipe=recipe)
    assert "auto" not in (run.path / "recipe.yaml").read_text().replace("automatic", "")
    assert {t["strategy"] for t in run.strategies["trials"]} == {"head", "last-1", "norm"}
    assert run.state["chosen"] in ("head only", "fine-tuned")
    said = run.state["steps"]["finetune"]
    assert said["why"] == run.strategies["advice"]
    assert said["decided"].startswith(f"{run.strategies['chosen']}: ")


def test_ctrl_c_while_strategies_are_compared_and_a_resume_end_at_the_same_bits(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: dict[str, Any]
) -> None:
    """In the second short trial, and in the last one at full length; all that is left open else is decided
    as ever.
    """
    monkeypatch.setattr(
        "regraft.steps.finetune.explore.explore.__defaults__", (("last-1", "norm", "bias", "full"),)
    )
    fit = Tuner.fit
    recipe = {**quick, "finetune": {"epochs": 2}, "freeze": {"strategy": "auto"}}
    alone = regraft.fit(colours, tmp_path / "alone", recipe=recipe)
    assert len([t for t in alone.strategies["trials"] if t["epochs"]]) == 5
    for number in (2, 5):
        calls, out = 0, tmp_path / f"stopped-{number}"

        def tried(*given: Any, at: int = number) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:
                given[4].events.listeners = (*given[4].events.listeners, stop)
            return fit(*given)

        def stop(event: dict[str, Any]) -> None:
            if event["kind"] == "tick" and event["label"] == "fine-tuning":
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Tuner, "fit", tried)
            with pytest.raises(KeyboardInterrupt):
                regraft.fit(colours, out, recipe=recipe)
        assert regraft.load(out) is not None
        resumed = regraft.fit(out=out, resume=True)
        assert resumed.state["state"] == "finished"
        names = [(t["strategy"], t["epochs"], t["loss"]) for t in resumed.strategies["trials"]]
        assert names == [(t["strategy"], t["epochs"], t["loss"]) for t in alone.strategies["trials"]]
        for file in ("model/model.safetensors", "predictions.parquet", "recipe.yaml"):
            assert (resumed.path / file).read_bytes() == (alone.path / file).read_bytes()


def test_repeats_share_the_test_set_and_give_a_spread(colours: Path, tmp_path: Path, tiny: str) -> None:
    words = [
        "fit",
        colours,
        "--out",
        tmp_path / "all",
        "--repeats",
        "2",
        "--json",
        "--backbone",
        tiny,
        "--size",
        "32",
    ]
    more = ["--set", "run.engine=torch-float32", "--set", "finetune.epochs=1", "--set", "finetune.folds=0"]
    result = call(*words, *more)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert [run["seed"] for run in found["runs"]] == [0, 1]
    a = found["metrics"]["accuracy"]
    assert a["low"] <= a["mean"] <= a["high"]
    assert json.loads((tmp_path / "all" / "repeats.json").read_text())["metrics"] == found["metrics"]
    runs = [regraft.api.Run(tmp_path / "all" / f"seed-{seed}") for seed in (0, 1)]
    examples = [(run.path / "examples.parquet").read_bytes() for run in runs]
    assert examples[0] == examples[1]
    assert a["mean"] == pytest.approx(np.mean([run.metrics["test"]["accuracy"].value for run in runs]))
    wrong = call("fit", "--resume", "--out", tmp_path, "--repeats", "2")
    assert wrong.returncode == 2
    assert "--repeats" in wrong.stderr


def test_a_wish_for_speed_stops_at_the_head_where_nothing_is_gained(
    colours: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    """The colours are told apart by the head alone, so that no trial can gain anything."""
    recipe = {**quick, "finetune": {"folds": 0}, "run": {**quick["run"], "prefer": "speed"}}
    run = regraft.fit(colours, tmp_path / "run", recipe=recipe)
    assert run.state["chosen"] == "head only"
    assert "a trial of" in run.state["steps"]["finetune"]["why"]
    assert run.state["steps"]["finetune"]["decided"] == "not done"


def test_few_examples_beside_a_given_test_are_cross_validated(tmp_path: Path, quick: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    root = tmp_path / "few"
    for split, count in (("train", 4), ("test", 12)):
        for channel, name in enumerate(("red", "green")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                picture = rng.integers(0, 160, (48, 48, 3))
                picture[:, :, channel] += 60
                Image.fromarray(picture.astype(np.uint8)).save(root / split / name / f"{number}.png")
    run = regraft.fit(root, tmp_path / "run", recipe={**quick, "finetune": {"epochs": 2}})
    assert run.state["state"] == "finished"
    assert run.metrics["test"]["accuracy"].n == 24
    assert "val" not in run.metrics
    assert "8 examples held out of train and val in turn" in run.state["chosen_why"]
    assert "auto" not in (run.path / "recipe.yaml").read_text().replace("automatic", "")


def test_small_data_are_trained_once_more_on_train_and_val(
    colours: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    recipe = {**quick, "finetune": {"epochs": 2, "folds": 0, "refit": True, "lr": 1e-3}}
    rng = np.random.default_rng(0)
    for file in sorted(colours.rglob("*.png")):  # fainter, so that fine-tuning has something to gain
        picture = np.asarray(Image.open(file)).astype(int) // 3 + rng.integers(0, 160, (48, 48, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file)
    once = regraft.fit(
        colours, tmp_path / "once", recipe={**recipe, "finetune": {**recipe["finetune"], "refit": False}}
    )
    more = regraft.fit(colours, tmp_path / "more", recipe=recipe)
    assert once.state["chosen"] == more.state["chosen"]
    assert more.metrics["val"] == once.metrics["val"], "val judges what has not seen it"
    notes = [event.get("text", "") for event in read_events(more.path / "events.jsonl")]
    weights = [(run.path / "model" / "model.safetensors").read_bytes() for run in (once, more)]
    if more.state["chosen"] == "fine-tuned":
        assert any("once more on train and val" in note for note in notes)
        assert weights[0] != weights[1]
    else:
        assert weights[0] == weights[1]
    assert not list(more.path.glob("checkpoint*"))
