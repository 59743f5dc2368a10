"""What a run promises in metrics.json is what its model does, however the run ends.

Fine-tuning is played by a stand-in that knows every label, so the fine-tuned model wins without being trained.
"""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import regraft
from regraft.artifacts import read_json
from regraft.evaluation import choose_thresholds
from regraft.features import TorchEngine
from regraft.model import Model, softmax
from regraft.recipe import read_recipe
from regraft.steps.finetune import Finetuned
from regraft.training import Trained

CLASSES = ("ant", "bee", "cat")
BASE: dict[str, Any] = {"base": {"size": 32}, "run": {"engine": "torch-float32"}}
FINETUNED = {**BASE, "finetune": {"epochs": 2, "folds": 0, "refit": False, "mirror": False}}


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 pictures of each of three classes, whose colour tells little of their class."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "noise"
    for channel, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(22):
            colour = rng.normal(100 + 30 * np.eye(3)[channel], 30)
            picture = (rng.integers(0, 60, (32, 32, 3)) + colour).clip(0, 255).astype(np.uint8)
            Image.fromarray(picture).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def trainings(noise: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How trainings end, one after the other ("length" when the list is used up), by a stand-in that knows every label."""
    endings: list[str] = []
    known: dict[str, Any] = {}
    items = sorted(map(str, noise.glob("*/*.png")))

    def stand_in(backbone, plan, head, data, val, context, show=None, checkpoint=None):  # type: ignore[no-untyped-def]
        ended = endings.pop(0) if endings else "length"
        recipe = context.recipe.finetune
        recipe.precision, recipe.interpolation = "float32", 1.0
        context.decide("finetune", f"{ended}", "by a stand-in")
        if not known:
            images = backbone.preprocess.collate([backbone.preprocess.host(item) for item in items])
            values = np.concatenate([TorchEngine(backbone, torch.device("cpu"), 22).run(part)[0] for part in np.split(images, 3)])
            known["head"] = regraft.fit_head(values, [CLASSES.index(Path(item).parent.name) for item in items], l2=1e-3)
        made = Trained({}, 1, 1, 0.1, ended)
        logits = np.eye(3)[val.labels].astype(np.float32) if val is not None else None
        return Finetuned(copy.deepcopy(backbone), copy.deepcopy(known["head"]), made, 10, logits)

    for place in ("regraft.pipeline", "regraft.steps.judge", "regraft.steps.explore"):
        monkeypatch.setattr(f"{place}.finetune", stand_in)
    wanted = functools.partial(choose_thresholds, wanted=(0.2, 0.3, 0.999))  # so few examples promise no more
    monkeypatch.setattr("regraft.steps.evaluate.choose_thresholds", wanted)
    return endings


def check(place: Path, chosen: str) -> dict[str, Any]:
    """Compare what metrics.json and predictions.parquet say with what the loaded model has and does; gives the metrics."""
    state, metrics, model = read_json(place / "run.json"), read_json(place / "metrics.json"), Model.load(place)
    assert state["chosen"] == chosen
    assert model.classes == CLASSES
    assert metrics["calibration"]["temperature"] == model.temperature != 1
    offered = {offer["wanted"]: offer["threshold"] for offer in metrics["thresholds"] if offer["threshold"] is not None}
    assert offered == model.thresholds
    assert len(metrics["thresholds"]) == 3
    assert all(offer["chosen_on"] == metrics["calibration"]["fitted_on"] for offer in metrics["thresholds"])
    assert "How sure it is" in (place / "model" / "README.md").read_text(encoding="utf-8")
    if not (place / "predictions.parquet").is_file():
        return metrics
    rows = [row for row in pq.read_table(place / "predictions.parquet").to_pylist() if row["split"] == "test"]
    root = Path(state["data"]["source"])
    for row, found in zip(rows, model.predict([root / row["source"] for row in rows]), strict=True):
        assert found.label == row["predicted"]
        assert found.probabilities == pytest.approx({name: row[f"probability:{name}"] for name in CLASSES}, abs=1e-5)
    logits = np.array([[row[f"logit:{name}"] for name in CLASSES] for row in rows])
    if len(rows):
        shares = [[row[f"probability:{name}"] for name in CLASSES] for row in rows]
        np.testing.assert_allclose(softmax(logits, model.temperature), shares, atol=1e-5)
    return metrics


def recipe(**sections: dict[str, Any]) -> dict[str, Any]:
    found = {name: dict(values) for name, values in FINETUNED.items()}
    for name, values in sections.items():
        found.setdefault(name, {}).update(values)
    return found


@pytest.mark.parametrize(("settings", "chosen"), [
    (recipe(freeze={"strategy": "head"}), "head only"),
    (recipe(), "fine-tuned"),
    (recipe(finetune={"refit": True}), "fine-tuned"),
    (recipe(finetune={"folds": 2}), "fine-tuned"),
    (recipe(data={"test_share": 0}), "fine-tuned"),
], ids=["head only", "fine-tuned", "refitted", "judged by folds", "no test"])  # fmt: skip
def test_a_run_that_ends_well(
    settings: dict[str, Any], chosen: str, noise: Path, tmp_path: Path, trainings: list[str]
) -> None:
    regraft.fit(noise, tmp_path / "run", recipe=settings)
    metrics = check(tmp_path / "run", chosen)
    tested = [offer["test"] for offer in metrics["thresholds"] if offer["threshold"] is not None]
    assert all(found is None for found in tested) if "data" in settings else tested and None not in tested


def test_a_run_of_folds(noise: Path, tmp_path: Path, trainings: list[str]) -> None:
    """Of each fold, and of the model that is made of all."""
    regraft.fit(noise, tmp_path / "run", recipe=recipe(data={"folds": 2}))
    assert "cv" in check(tmp_path / "run", "fine-tuned")
    for number in (1, 2):
        check(tmp_path / "run" / "folds" / str(number), "fine-tuned")


@pytest.mark.parametrize("endings", [["interrupted"], ["length", "interrupted"]], ids=["fine-tuning", "refit"])
def test_a_run_that_the_user_stops_and_its_resume(
    endings: list[str], noise: Path, tmp_path: Path, trainings: list[str]
) -> None:
    trainings += endings
    with pytest.raises(KeyboardInterrupt):
        regraft.fit(noise, tmp_path / "run", recipe=recipe(finetune={"refit": True}))
    assert "test" not in check(tmp_path / "run", "fine-tuned")
    regraft.fit(out=tmp_path / "run", resume=True)
    assert "test" in check(tmp_path / "run", "fine-tuned")


def test_a_run_whose_refit_the_budget_cuts(noise: Path, tmp_path: Path, trainings: list[str]) -> None:
    trainings += ["budget", "budget"]
    regraft.fit(noise, tmp_path / "run", recipe=recipe(finetune={"refit": True}, run={"budget_seconds": 600}))
    check(tmp_path / "run", "fine-tuned")
    assert read_recipe(tmp_path / "run" / "recipe.yaml")["finetune"]["refit"] is False


def test_strategies_explored_and_then_a_run_to_the_end(noise: Path, tmp_path: Path, trainings: list[str]) -> None:
    regraft.explore(noise, tmp_path / "run", recipe=FINETUNED)
    assert not (tmp_path / "run" / "model").exists()
    regraft.fit(out=tmp_path / "run", resume=True)
    assert "test" in check(tmp_path / "run", "fine-tuned")
