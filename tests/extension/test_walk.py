"""Whole runs of a modality, a task and a source of weights that src knows nothing of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ordinal import Ordinal
from vectors import LENGTH, Toys, Vectors, draw, read

import regraft
from regraft import modalities
from regraft.artifacts import read_json
from regraft.backbones import register_source
from regraft.backbones.sources import registered as sources
from regraft.console import ranking_table
from regraft.errors import RecipeError, UsageError
from regraft.recipe import read_recipe
from regraft.tasks import registered

TEST = 22  # of 120 vectors, by their content
TUNED: dict[str, Any] = {
    "data": {"task": "ordinal"},
    "freeze": {"strategy": "full"},
    "finetune": {"epochs": 3, "folds": 0, "layer_decay": 0.8, "precision": "float32"},
    "run": {"engine": "torch-float32", "threads": 1},
}


@pytest.fixture(autouse=True, scope="module")
def known() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, registered("ordinal", Ordinal):
        patch.setattr(modalities, "_known", dict(modalities._known))
        patch.setattr(sources, "_known", {})
        modalities.register(Vectors())
        register_source(Toys())
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("data") / "vectors", 60, apart=0.4)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> regraft.Run:
    place = tmp_path_factory.mktemp("run")
    return regraft.fit(data, place / "run", recipe=TUNED, cache=place / "cache")


def test_its_own_settings_of_augmentation_are_settled_and_taken_from_the_recipe(
    run: regraft.Run, data: Path, tmp_path: Path
) -> None:
    assert read_recipe(run.path / "recipe.yaml")["augment"] == {"spread": 0.01}
    assert read_json(run.path / "run.json")["settled"]["augment.spread"].startswith("by rule")
    noisy = regraft.fit(data, tmp_path / "run", recipe={**TUNED, "augment": {"spread": 0.5}})
    assert read_recipe(noisy.path / "recipe.yaml")["augment"] == {"spread": 0.5}
    assert noisy.state["steps"]["finetune"] != run.state["steps"]["finetune"]


def test_settings_of_another_modality_or_out_of_range_are_told_before_any_file_is_looked_at(
    data: Path, tmp_path: Path
) -> None:
    def heard(event: dict[str, Any]) -> None:
        assert event["kind"] != "tick"

    asked = {**TUNED, "base": {"size": 100}, "augment": {"colour": 0.1}}
    with pytest.raises(RecipeError) as caught:  # images have both, so only the data say that they do not fit
        regraft.fit(data, tmp_path / "run", recipe=asked, listeners=[heard])
    assert caught.value.faults == (
        "base.size: 100 is no input size of the modality vector: 4 to 64",
        "augment.colour: is not a setting of the modality vector; there are augment.spread",
    )
    with pytest.raises(
        RecipeError, match=r"augment\.spread: input should be less than or equal to 1 \(found 3\)"
    ):
        regraft.fit(tmp_path / "nothing", recipe={**TUNED, "augment": {"spread": 3}})
    assert not (tmp_path / "run").exists()


def test_it_is_obtained_fine_tuned_and_evaluated(run: regraft.Run) -> None:
    assert run.state["state"] == "finished"
    assert run.state["missing"] == {}
    assert run.state["provenance"]["id"] == "toy:tiny"
    steps = run.state["steps"]
    assert steps["base"]["decided"] == "4 stages, 16 features, input size 12"
    assert steps["finetune"]["decided"].startswith("3 of 3 epochs")
    test = run.metrics["test"]["steps_off"]
    assert test.n == TEST == sum(run.metrics["by_steps"])
    assert 0 < test.value < run.metrics["baselines"]["the middle"]["steps_off"]["value"]
    assert not (run.path / "first_batch.png").exists(), "a batch of vectors has no picture"


def test_its_model_is_built_again_and_predicts(run: regraft.Run, data: Path) -> None:
    model = regraft.load(run.path)
    assert (model.modality, model.task.kind, type(model.backbone.module).__name__) == (
        "vector",
        "ordinal",
        "TinyNetwork",
    )
    files = sorted((data / "low").glob("*.npy"))[:5]
    by_file = np.stack(list(model.outputs(map(str, files))))
    assert np.array_equal(by_file, np.stack(list(run.model.outputs(map(str, files)))))
    assert np.allclose(by_file, np.stack(list(model.outputs(read(file) for file in files))))
    surely, wrong = model.predict([np.full(LENGTH, 2.0), np.zeros((2, 2))])
    assert surely.label == "high"
    assert wrong.label is None
    assert "wanted (D,)" in str(wrong.error)


def test_it_is_evaluated_again_and_on_other_data(run: regraft.Run, data: Path, tmp_path: Path) -> None:
    assert regraft.evaluate(run.path).metrics["steps_off"] == run.metrics["test"]["steps_off"]
    other = draw(tmp_path / "other", 12, start=200, apart=1.5)
    assert regraft.evaluate(run.path, other).metrics["steps_off"].n == 24
    assert regraft.evaluate(run.path, other).metrics["near"].value == 1


def test_its_report_and_card_speak_of_what_it_is(run: regraft.Run) -> None:
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "120 vectors" in page
    assert "turns each vector into 16 features" in page
    assert "How far off" in page
    card = (run.path / "model" / "README.md").read_text(encoding="utf-8")
    assert "Puts vectors in order." in card
    assert 'model.predict(["path/to/vector"])' in card
    for text in (page.partition("<body")[2].partition("<script")[0], card):
        assert "image" not in text.lower()
        assert "pixel" not in text.lower()


def test_a_task_with_probabilities_has_a_gallery_of_its_mistakes(data: Path, tmp_path: Path) -> None:
    recipe = {**TUNED, "data": {"task": "single"}, "freeze": {"strategy": "head"}}
    run = regraft.fit(data, tmp_path / "run", recipe=recipe)
    assert run.state["missing"] == {}
    galleries = {one["name"]: one["items"] for one in read_json(run.path / "gallery.json")["galleries"]}
    assert {"mistakes", "uncertain"} <= set(galleries)
    assert "looks" not in galleries, "vectors are not explained"
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert f'tabindex="0">{galleries["mistakes"][0]["text"]}</blockquote>' in page
    assert "Examples worth a look" in page


def test_folds_judge_it(data: Path, tmp_path: Path) -> None:
    recipe = {**TUNED, "finetune": {"epochs": 3, "folds": 3}}
    run = regraft.fit(data, tmp_path / "run", recipe=recipe)
    assert run.state["missing"] == {}
    assert "held out of train and val in turn" in run.state["chosen_why"]
    assert run.metrics["test"]["steps_off"].n == TEST


def test_stopped_in_fine_tuning_it_goes_on_to_the_same_bits(
    run: regraft.Run, data: Path, tmp_path: Path
) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "epoch" and event.get("epoch") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        regraft.fit(data, tmp_path / "run", recipe=TUNED, listeners=[stop])
    assert read_json(tmp_path / "run" / "run.json")["state"] == "interrupted"
    again = regraft.fit(out=tmp_path / "run", resume=True)
    assert again.state["state"] == "finished"
    for name in ("model.safetensors", "head.safetensors"):
        assert (again.path / "model" / name).read_bytes() == (run.path / "model" / name).read_bytes()
    assert again.metrics["test"] == run.metrics["test"]


def test_its_model_is_the_backbone_of_another_run(run: regraft.Run, data: Path, tmp_path: Path) -> None:
    recipe = {**TUNED, "obtain": {"backbone": f"run:{run.path}"}, "freeze": {"strategy": "head"}}
    other = draw(tmp_path / "other", 30, start=300)
    second = regraft.fit(other, tmp_path / "second", recipe=recipe)
    assert second.state["provenance"]["input_size"] == LENGTH
    assert second.state["provenance"]["licence"] == "CC0-1.0"
    assert second.metrics["test"]["steps_off"].n > 0


def test_strategies_are_explored_and_backbones_ranked_on_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {**TUNED, "freeze": {}, "finetune": {"epochs": 1}}
    tried = regraft.explore(data, tmp_path / "run", recipe=recipe).strategies["trials"]
    assert {"head", "last-1", "full", "bias", "lora"} <= {trial["strategy"] for trial in tried}
    ranking = regraft.rank(data, recipe={"data": {"task": "ordinal"}, "run": {"engine": "torch-float32"}})
    assert [score.title for score in ranking.rows[0].scores] == ["Steps off"], (
        "what the task has, nothing else"
    )
    assert ranking.loss_name == "ordinal loss"
    assert "ordinal loss (" in ranking.reason
    ranking_table(ranking.to_dict())
    assert "steps off" in capsys.readouterr().out
    assert {row.reference for row in ranking.rows} == {"toy:tiny"}
    assert {row.depth for row in ranking.rows} > {4}
    assert regraft.audit(data).counts["test"] == TEST


def test_a_backbone_for_images_is_refused_in_one_sentence(data: Path, tmp_path: Path) -> None:
    recipe = {**TUNED, "obtain": {"backbone": "packaged:efficientnet_lite0"}}
    with pytest.raises(
        UsageError, match="for examples of the modality image, and these are of the modality vector"
    ):
        regraft.fit(data, tmp_path / "run", recipe=recipe)
    base = regraft.backbone("toy:tiny")
    assert base.preprocess.modality == "vector"
    assert regraft.extract(base, [np.zeros(LENGTH, np.float32)] * 3).shape == (3, 16)
