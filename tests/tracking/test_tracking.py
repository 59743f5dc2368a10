"""Trackers: what their libraries are told, by stand-ins that write it down; and that none of them can stop
a run.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from regraft.artifacts import Events, read_events
from regraft.errors import UsageError
from regraft.tracking import tracked, tracker

Calls = list[tuple[str, tuple[Any, ...], dict[str, Any]]]


class Recorder:
    """An object whose every method writes down that it was called."""

    def __init__(self, calls: Calls, **answers: Any) -> None:
        self._calls, self._answers = calls, answers

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def note(*arguments: Any, **named: Any) -> Any:
            self._calls.append((name, arguments, named))
            answer = self._answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return note


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Stand-ins for the three libraries; what they are told."""
    said: Calls = []
    run = Recorder(said)
    run.summary, run.config = (
        SimpleNamespace(update=run.summary_update),
        SimpleNamespace(update=run.config_update),
    )  # type: ignore[attr-defined]
    modules = {
        "torch.utils.tensorboard": {
            "SummaryWriter": lambda place: Recorder(said).made(place) or Recorder(said)
        },
        "mlflow": {
            name: getattr(Recorder(said, get_tracking_uri="file:///runs"), name)
            for name in (
                "get_tracking_uri",
                "start_run",
                "active_run",
                "log_metrics",
                "log_params",
                "log_artifact",
                "end_run",
            )
        },
        "wandb": {"init": Recorder(said, init=run).init},
    }
    for name, attributes in modules.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    return said


def walk(
    folder: Path, name: str, finish: bool = True, offline: bool = False, **named: Any
) -> list[dict[str, Any]]:
    """The events of a run, heard by a tracker; gives what was in the log at the end."""
    folder.mkdir()
    heard: list[dict[str, Any]] = []
    with tracked([name, name], offline, named.get("listeners", (heard.append,))) as ears:
        log = Events(folder / "events.jsonl", tuple(ears))
        log.emit("begin", out=str(folder), counts={}, classes=3, findings=[], name="data")
        log.tick(label="features", done=1, total=2)
        for k, l2 in enumerate((0.1, 0.01)):
            log.emit("l2", step="train", l2=l2, loss=0.5 - k / 10, standard_error=0.1, class_weights="none")
        for epoch in (1, 2):
            judged = {"val_loss": 0.5 / epoch, "val_accuracy": 0.9}
            log.emit("epoch", step="finetune", epoch=epoch, epochs=2, train_loss=1 / epoch, **judged)
        log.emit("epoch", step="finetune", epoch=3, epochs=3, train_loss=0.1)  # without a val set
        log.about(strategy="full without layer decay").emit(
            "epoch", step="finetune", epoch=1, epochs=3, train_loss=0.7
        )
        if finish:
            test = {
                "accuracy": {"value": 0.93, "low": 0.9, "high": 0.95},
                "roc_auc": {"value": None, "low": None, "high": None},
            }
            (folder / "metrics.json").write_text(
                json.dumps({"test": test, "steps": {"train": {"seconds": 2.5}}})
            )
            (folder / "recipe.yaml").write_text(
                "head: {kind: linear}\nfreeze: {strategy: [blocks.5, blocks.6]}\n"
            )
            log.emit("finished", seconds=12.0)
    return read_events(folder / "events.jsonl")


def named(calls: Calls, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [(arguments, keywords) for called, arguments, keywords in calls if called == name]


def test_tensorboard_gets_curves_results_and_recipe(calls: Calls, tmp_path: Path) -> None:
    walk(tmp_path / "run", "tensorboard")
    points = [arguments for arguments, _ in named(calls, "add_scalar")]
    assert named(calls, "made") == [((str(tmp_path / "run" / "tensorboard"),), {})]
    assert ("finetune/val_loss", 0.25, 2) in points
    assert ("finetune/train_loss", 0.1, 3) in points
    assert ("finetune/full_without_layer_decay/train_loss", 0.7, 1) in points, "a curve of its own"
    assert ("train/loss_none", 0.4, 1) in points
    assert ("test/accuracy", 0.93, 0) in points
    assert ("seconds/train", 2.5, 0) in points
    assert not [point for point in points if "roc_auc" in point[0] or (point[2] == 3 and "val" in point[0])]
    assert "| head.kind | linear |" in named(calls, "add_text")[0][0][1]
    assert calls[-1][0] == "close"


def test_the_walks_of_folds_are_one_run_with_curves_of_their_own(calls: Calls, tmp_path: Path) -> None:
    """17.5: the end of the first fold ended the tracker, and every fold began a run."""
    with tracked(["mlflow"], False, ()) as ears:
        for fold in (1, 2, None):
            about = {} if fold is None else {"fold": fold}
            log = Events(None, tuple(ears), **about)
            log.emit("begin", out=str(tmp_path), counts={}, classes=3, findings=[], name="data")
            log.emit("l2", step="train", l2=0.1, loss=0.5, standard_error=0.1, class_weights="none")
            log.emit("epoch", step="finetune", epoch=1, epochs=1, train_loss=0.7)
            if fold is None:
                (tmp_path / "metrics.json").write_text(
                    json.dumps({"cv": {"accuracy": {"value": 0.9}}, "steps": {}})
                )
                (tmp_path / "recipe.yaml").write_text("head: {kind: linear}\n")
            log.emit("finished", seconds=1.0)
    assert len(named(calls, "start_run")) == 1
    points = {
        name: keywords["step"]
        for (values,), keywords in named(calls, "log_metrics")
        if keywords
        for name in values
    }
    assert points["finetune/fold_2/train_loss"] == points["finetune/train_loss"] == 1
    assert points["train/fold_1/l2_none"] == points["train/l2_none"] == 0
    assert named(calls, "log_metrics")[-1][0][0] == {"cv/accuracy": 0.9}
    assert named(calls, "end_run") == [(("FINISHED",), {})]


def test_mlflow_gets_metrics_parameters_and_files(calls: Calls, tmp_path: Path) -> None:
    walk(tmp_path / "run", "mlflow")
    assert named(calls, "start_run") == [((), {"run_name": "run", "nested": False})]
    assert ((({"finetune/train_loss": 0.1},)), {"step": 3}) in named(calls, "log_metrics")
    assert named(calls, "log_params") == [
        (({"head.kind": "linear", "freeze.strategy": "['blocks.5', 'blocks.6']"},), {})
    ]
    kept = [Path(arguments[0]).name for arguments, _ in named(calls, "log_artifact")]
    assert kept == ["recipe.yaml", "metrics.json"]  # this run has no report
    assert named(calls, "end_run") == [(("FINISHED",), {})]


def test_wandb_is_asked_for_what_the_user_has_set(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    walk(tmp_path / "run", "wandb")
    asked = named(calls, "init")[0][1]
    # WANDB_MODE decides
    assert asked == {"project": "regraft", "name": "run", "dir": str(tmp_path / "run"), "mode": None}
    assert (({"finetune/train_loss": 0.1, "epoch": 3},), {}) in named(calls, "log")
    assert named(calls, "summary_update")[0][0][0]["test/accuracy"] == 0.93
    assert named(calls, "config_update")[0][0][0]["head.kind"] == "linear"
    assert named(calls, "finish") == [((), {"exit_code": 0})]
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    walk(tmp_path / "offline", "wandb", offline=True)
    assert named(calls, "init")[1][1]["mode"] == "offline"
    assert named(calls, "init")[1][1]["project"] == "mine"


def test_a_run_that_ends_early_is_no_success(calls: Calls, tmp_path: Path) -> None:
    walk(tmp_path / "mlflow", "mlflow", finish=False)
    walk(tmp_path / "wandb", "wandb", finish=False)
    assert named(calls, "end_run") == [(("FAILED",), {})]
    assert named(calls, "finish") == [((), {"exit_code": 1})]


def test_offline_refuses_a_server(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker("mlflow", offline=True)  # a folder is fine
    monkeypatch.setattr(sys.modules["mlflow"], "get_tracking_uri", lambda: "https://tracking.example")
    with pytest.raises(UsageError, match=r"https://tracking\.example"):
        tracker("mlflow", offline=True)
    tracker("mlflow", offline=False)


@pytest.mark.parametrize("when", ["start_run", "log_metrics", "log_params", "end_run"])
def test_a_tracker_that_fails_is_said_once_and_the_run_goes_on(
    when: str, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys.modules["mlflow"], when, getattr(Recorder(calls, **{when: OSError("no room")}), when)
    )
    heard: list[dict[str, Any]] = []
    log = walk(tmp_path / "run", "mlflow", listeners=(heard.append,))
    notes = [event["text"] for event in log if event["kind"] == "note"]
    assert notes == ["tracking by mlflow has failed and is left out from here on: no room"]
    assert [event["text"] for event in heard if event["kind"] == "note"] == notes
    assert "finished" in [event["kind"] for event in log]


def test_without_a_listener_a_failure_is_a_warning(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys.modules["mlflow"], "log_metrics", Recorder(calls, log_metrics=OSError("no room")).log_metrics
    )
    with pytest.warns(UserWarning, match="no room"):
        walk(tmp_path / "run", "mlflow", listeners=())


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_library_that_is_missing_is_named_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if name == "tensorboard" else name, None)
    with pytest.raises(UsageError, match=rf'pip install "regraft\[{name}\]"'):
        tracker(name)


def test_a_name_that_is_none_and_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="tensorboard, mlflow, wandb"):
        tracker("excel")
    from regraft.runtime import quiet_libraries

    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)
    quiet_libraries()
    assert (os.environ["MLFLOW_DISABLE_TELEMETRY"], os.environ["WANDB_ERROR_REPORTING"]) == ("true", "false")


def test_the_real_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip(
        "tensorboard", reason="tensorboard is not installed: pip install regraft[tensorboard]"
    )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    walk(tmp_path / "run", "tensorboard")
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    found.Reload()
    assert [point.value for point in found.Scalars("test/accuracy")] == pytest.approx([0.93])
