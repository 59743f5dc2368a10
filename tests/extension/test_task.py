"""A task that only these tests know, with outputs, losses and a link of its own, is registered and walked
from fit to report and resume.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ordinal import STEPS_OFF, Ordinal, Ranked

import regraft
from regraft.artifacts import RunFolder, read_events
from regraft.console import evaluation_table
from regraft.data import Examples
from regraft.errors import RecipeError, UsageError
from regraft.evaluation import estimates
from regraft.experiments.compare import compare
from regraft.report import write_comparison
from regraft.run.asked import asked
from regraft.run.listed import list_runs
from regraft.tasks import registered, task_of


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    with registered("ordinal", Ordinal):
        yield


@pytest.fixture
def run(colours: Path, tmp_path: Path, head_only: dict[str, Any]) -> regraft.Run:
    return regraft.fit(colours, tmp_path / "run", recipe={**head_only, "data": {"task": "ordinal"}})


def test_a_task_of_the_users_own_is_walked_evaluated_and_shown(
    run: regraft.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.state["data"]["kind"] == "ordinal"
    assert list(run.metrics["test"]) == ["steps_off", "near"]
    test = run.metrics["test"]["steps_off"]
    assert 0 <= test.low <= test.value <= test.high < 1
    assert list(run.metrics["baselines"]) == ["the middle", "nearest neighbours"]
    assert sum(run.metrics["by_steps"]) == test.n
    assert "confusion" not in run.metrics
    assert run.state["missing"] == {}
    said = f"test steps off {test.value:.3f} steps [{test.low:.3f}, {test.high:.3f}] on {test.n} examples"
    assert run.headline() == said == list_runs(run.path)[0].headline
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "How far off" in page
    assert "Steps off: lower is better" in page
    assert "off on average" in page
    assert "What was taken for what" not in page
    assert "accuracy" not in page.partition("What was done, and why")[0].lower()
    card = (run.path / "model" / "README.md").read_text(encoding="utf-8")
    assert "Puts images in order." in card
    assert f"Steps off on a held-out test set: **{test.value:.3f} steps**" in card
    (answer,) = run.model.predict(Path(run.state["data"]["source"]) / "red" / "0.png")
    assert answer.label == "red"
    again = regraft.evaluate(run.path)
    assert again.metrics["steps_off"] == test
    evaluation_table(again.to_dict())
    assert "How far off" in capsys.readouterr().out


def test_two_runs_of_it_are_compared_in_its_own_metric(run: regraft.Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "other")
    found = compare([run.path, tmp_path / "other"])
    assert [metric.name for metric in found.metrics] == ["steps_off"]
    assert found.pairs[0].difference.difference == 0
    assert found.optimism == 0
    assert "of steps off" in found.caution()
    page = write_comparison(found.to_dict(), tmp_path / "both.html").read_text(encoding="utf-8")
    assert "Steps off in steps, 95% interval" in page


def test_the_metric_to_choose_by_is_one_of_the_task(
    colours: Path, tmp_path: Path, head_only: dict[str, Any]
) -> None:
    asked = {**head_only, "data": {"task": "ordinal"}, "run": {**head_only["run"], "metric": "steps_of"}}
    with pytest.raises(UsageError, match="Did you mean steps_off"):
        regraft.fit(colours, tmp_path / "run", recipe=asked)
    with pytest.raises(UsageError, match="no kind of task"):
        regraft.fit(colours, tmp_path / "run", recipe={**head_only, "data": {"task": "ordnal"}})


def test_the_metrics_of_any_task_come_from_one_way_of_drawing() -> None:
    rng = np.random.default_rng(0)
    targets, answers = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    task = task_of("ordinal", ("a", "b", "c", "d"))
    found = estimates(task.metrics, Ranked(targets, answers), resamples=400)
    assert found["steps_off"].value == pytest.approx(np.abs(targets - answers).mean())
    assert found["steps_off"].low < found["steps_off"].value < found["steps_off"].high
    grouped = estimates(task.metrics, Ranked(targets, answers), np.arange(200) // 20, resamples=400)
    assert grouped["steps_off"].method == "BCa bootstrap over groups"
    assert STEPS_OFF.scores(Ranked(targets, answers), np.ones((1, 200)))[0] == -found["steps_off"].value


def test_its_link_has_the_slope_of_its_loss() -> None:
    task, targets = Ordinal(("a", "b", "c", "d")), np.array([0, 1, 2, 3, 3])
    outputs = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    shares = torch.rand(5, 2, generator=torch.Generator().manual_seed(1))
    each = [task.loss(outputs[:, f], torch.from_numpy(targets)) for f in range(2)]
    total = (torch.stack(each, dim=1) * shares).sum()
    total.backward()
    value, slope = task.link.slope(outputs.detach().clone(), task.link.tensor(targets), shares)
    assert value == pytest.approx(float(total.detach()), rel=1e-5)
    np.testing.assert_allclose(slope.numpy(), outputs.grad.numpy(), atol=1e-6)
    found = task.link.losses(targets, outputs[:, 0].detach().numpy())
    np.testing.assert_allclose(found, each[0].detach().numpy(), rtol=1e-5)


def test_it_is_fine_tuned_stopped_and_resumed(colours: Path, tmp_path: Path, quick: dict[str, Any]) -> None:
    asked = {**quick, "data": {"task": "ordinal"}, "finetune": {"folds": 0, "epochs": 3, "refit": False}}
    whole = regraft.fit(colours, tmp_path / "whole", recipe=asked)

    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        regraft.fit(colours, tmp_path / "run", recipe=asked, listeners=[stop])
    run = regraft.fit(out=tmp_path / "run", resume=True)
    assert run.state["state"] == "finished"
    epochs = [e for e in read_events(RunFolder(run.path).events) if e["kind"] == "epoch"]
    assert {epoch["epoch"] for epoch in epochs} == {1, 2, 3}
    assert all(epoch["val_steps_off"] >= 0 for epoch in epochs)
    assert "ordinal loss" in run.state["chosen_why"]
    assert run.metrics["test"] == whole.metrics["test"]
    weights = [(found.path / "model" / "model.safetensors").read_bytes() for found in (run, whole)]
    assert weights[0] == weights[1]
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "validation steps off" in page


def test_labels_of_the_data_are_encoded_by_the_task(run: regraft.Run) -> None:
    class Doubled(Ordinal):
        def encode(self, labels: Sequence[str]) -> np.ndarray:
            return 2 * super().encode(labels)

    table = run.path / "examples.parquet"
    plain, doubled = Examples.load(table), Examples.load(table, lambda _, classes: Doubled(classes))
    for split in ("train", "val"):
        np.testing.assert_array_equal(doubled.part(split).labels, 2 * plain.part(split).labels)
        assert len(plain.part(split))


def test_a_recipe_names_its_metrics_and_its_weightings_only() -> None:
    wanted = {"data": {"task": "ordinal"}, "run": {"metric": "steps_off"}}
    assert asked(wanted).run.metric == "steps_off"
    with pytest.raises(RecipeError) as caught:
        asked(wanted, {"run": {"metric": "accuracy"}, "train": {"class_weights": "balanced"}})
    metric, weights = caught.value.faults
    assert "these are steps_off, near" in metric
    assert weights == "train.class_weights: 'balanced' is none of auto, none"
