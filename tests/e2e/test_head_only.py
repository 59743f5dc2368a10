"""A model of the head alone is there before fine-tuning begins, until the run hands over its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import regraft
from commands import call
from regraft.artifacts import RunFolder, read_events
from regraft.modalities import modality_of
from regraft.run.record import HEAD_ONLY
from regraft.serving.limits import Limits
from regraft.serving.metrics import Meter
from regraft.serving.shelf import Shelf
from regraft.steps.finetune import forecast


class Cut(Exception):
    """A run that ends without a chance to tidy up."""


@pytest.fixture
def recipe(tiny: str) -> dict[str, Any]:
    """Settings of a run of seconds."""
    return {
        "obtain": {"backbone": tiny},
        "base": {"size": 32},
        "run": {"engine": "torch-float32"},
        "finetune": {"epochs": 1, "folds": 0, "refit": False},
    }


def _cut(event: dict[str, Any]) -> None:
    if event["kind"] == "step" and event["step"] == "finetune":
        raise Cut("the power went")


def test_the_head_alone_can_be_used_before_fine_tuning_and_says_what_it_is(
    colours: Path, tmp_path: Path, recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out, said, photo = tmp_path / "run", [], colours / "red" / "0.png"

    def hear(event: dict[str, Any]) -> None:
        said.append(str(event.get("text", "")))
        _cut(event)

    with pytest.raises(Cut):
        regraft.fit(colours, out, recipe=recipe, listeners=[hear])
    assert any("regraft predict RUN FILES" in text for text in said)
    assert f"regraft predict {out} FILES" in said[-1]
    assert f"regraft fit --resume --out {out}" in said[-1]

    model = regraft.load(out)
    assert model.note == HEAD_ONLY
    assert model.predict(str(photo))[0].label == "red"
    card = (out / "head-only" / "README.md").read_text(encoding="utf-8")
    assert HEAD_ONLY in card
    assert "model-index" not in card
    assert "this model was not scored on it" in card
    assert not any(event["kind"] == "unseal" for event in read_events(out / "events.jsonl"))

    predicted = call("predict", out, photo)
    assert predicted.returncode == 0
    assert HEAD_ONLY in predicted.stderr
    assert HEAD_ONLY not in predicted.stdout
    shelf = Shelf({"early": out}, lambda place, engine: regraft.load(place, engine), Limits(), Meter())
    assert f"early: {HEAD_ONLY}" in capsys.readouterr().err
    assert shelf.models["early"].note == HEAD_ONLY
    exported = regraft.export(out, "torch")
    assert HEAD_ONLY in (exported.path / "README.md").read_text(encoding="utf-8")
    assert exported.proof is not None
    assert "test" not in exported.proof.of

    # As a kill leaves the final model while its files are put in their places: not whole
    weights = out / "model" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes((out / "head-only" / "model.safetensors").read_bytes())
    assert regraft.load(out).note == HEAD_ONLY


def test_it_goes_once_the_run_has_its_model_and_changes_no_bit_of_that(
    colours: Path, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    out = tmp_path / "cut"
    with pytest.raises(Cut):
        regraft.fit(colours, out, recipe=recipe, listeners=[_cut])
    kept = (out / "head-only" / "model.safetensors").read_bytes()
    with pytest.raises(Cut):
        regraft.fit(out=out, resume=True, listeners=[_cut])
    assert (out / "head-only" / "model.safetensors").read_bytes() == kept
    run = regraft.fit(out=out, resume=True)
    assert not RunFolder(out).head_only.exists()
    assert run.model.note == ""
    whole = regraft.fit(colours, tmp_path / "whole", recipe=recipe)
    for name in ("model/model.safetensors", "model/regraft.json", "predictions.parquet"):
        assert (out / name).read_bytes() == (whole.path / name).read_bytes(), name


def test_a_run_goes_on_where_it_cannot_be_kept(colours: Path, tmp_path: Path, recipe: dict[str, Any]) -> None:
    out = tmp_path / "run"

    def in_the_way(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == "train":
            (out / "head-only").write_text("no folder", encoding="utf-8")

    run = regraft.fit(colours, out, recipe=recipe, listeners=[in_the_way])
    assert run.state["state"] == "finished"
    assert "model of the head alone" in run.state["missing"]


def test_a_forecast_of_no_gain_ends_at_the_head(
    colours: Path, tmp_path: Path, quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "FEWEST", 10)
    monkeypatch.setattr(type(modality_of("image")), "foresight", (-1.0, 0.0, 0.0))
    run = regraft.fit(colours, tmp_path / "run", recipe=quick)
    step = run.state["steps"]["finetune"]
    assert (step["state"], run.state["chosen"]) == ("skipped", "head only")
    assert "a forecast of its gain in log loss is -1.000" in step["why"]
    assert "  begin: false\n" in (run.path / "recipe.yaml").read_text()
    assert "forecast of its gain" in (run.path / "report.html").read_text(encoding="utf-8")
