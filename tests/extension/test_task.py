"""A task that only this test knows, registered and walked from fit to report: ordered classes, judged by how far
off an answer is.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import regraft
from regraft.console import evaluation_table
from regraft.errors import UsageError
from regraft.evaluation import bootstrapped, estimates, mean_of, softmax
from regraft.experiments.compare import compare
from regraft.report import write_comparison
from regraft.run.listed import list_runs
from regraft.tasks import Grid, Metric, Section, registered, task_of
from regraft.tasks.single import Single, Temperature


class Ranked:
    """(N,) places of what is asked and of what is said."""

    def __init__(self, targets: np.ndarray, answers: np.ndarray) -> None:
        self.targets, self.answers = targets, answers

    def __len__(self) -> int:
        return len(self.targets)


def off(facts: Ranked) -> np.ndarray:
    """(N,) how many places each answer is off."""
    return np.abs(facts.targets - facts.answers).astype(np.float64)


STEPS_OFF = Metric(
    "steps_off", "Steps off", bootstrapped, mean_of(off), higher=False, unit="steps", main=True
)
NEAR = Metric(
    "near", "At most one off", bootstrapped, mean_of(lambda facts: 1.0 * (off(facts) < 2)), unit="%"
)


@dataclass(frozen=True)
class Ordinal(Single):
    """Classes in the order of their names; the answer is the median of the probabilities."""

    kind: str = "ordinal"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return STEPS_OFF, NEAR

    @property
    def headline(self) -> Metric:
        return STEPS_OFF

    def facts(self, targets: np.ndarray, outputs: np.ndarray) -> Any:
        return Ranked(targets, self.answers(outputs))

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        return np.asarray((softmax(outputs).cumsum(axis=1) < 0.5).sum(axis=1), dtype=np.int64)

    def columns(self, outputs: np.ndarray, calibration: Temperature) -> dict[str, Any]:
        return {"middle": self.answers(outputs)}  # and no probabilities

    def worth(self, targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
        return -off(Ranked(targets, answers))

    def tables(
        self, targets: np.ndarray, outputs: np.ndarray, groups: np.ndarray | None = None
    ) -> dict[str, Any]:
        counts = np.bincount(off(Ranked(targets, self.answers(outputs))).astype(int), minlength=self.outputs)
        return {"by_steps": counts.tolist()}

    def sections(self, metrics: Mapping[str, Any]) -> list[Section]:
        rows = [(str(k), str(n)) for k, n in enumerate(metrics.get("by_steps") or [])]
        return [Grid("How far off", ("Steps", "Examples"), rows, "None off is right.")]

    def question(self) -> str:
        return f"Tell how far along {self.classes[0]} to {self.classes[-1]}." if self.classes else ""

    def abilities(self, things: str) -> tuple[str, str]:
        return f"Puts {things} in order.", "It knows no half steps."

    def result(self) -> tuple[str, str]:
        return "the model is", "off on average"


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
    assert list(run.metrics["baselines"]) == ["majority class", "nearest neighbours"]
    assert sum(run.metrics["by_steps"]) == test.n
    assert "confusion" not in run.metrics
    assert run.state["missing"] == {}
    said = f"test steps off {test.value:.3f} steps [{test.low:.3f} steps, {test.high:.3f} steps] on {test.n} examples"
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
