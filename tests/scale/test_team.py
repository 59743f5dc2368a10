"""Fine-tuning by several processes of a real Ray beside the same in one: results, kills, Ctrl-C, what stays frozen."""

from __future__ import annotations

import copy
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
import torch

import regraft
from bases import IMAGES
from regraft.artifacts import Events
from regraft.backbones import Backbone
from regraft.crew import Crew
from regraft.data.part import Part
from regraft.errors import RegraftError
from regraft.inference import FeatureStore
from regraft.recipe import Recipe
from regraft.steps.context import Context
from regraft.steps.finetune import team
from regraft.steps.finetune.rules import Tuning
from regraft.steps.finetune.tune import Finetuned, Tuner
from regraft.tasks import Single
from regraft.training import Checkpoint, make_head, plan_freeze

pytestmark = pytest.mark.ray
TASK = Single(("one", "other"))


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little there is to do, it is done together."""
    monkeypatch.setattr(team, "BEGINNING", 0.0)


def tinted(count: int, seed: int) -> Part:
    """Noise in two tints, of unequal weights."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pixels = rng.integers(0, 120, (count, 32, 32, 3))
    pixels[..., 0] += 60 * labels[:, None, None]
    ids = tuple(f"{seed:016x}{number:016x}" for number in range(count))
    weights = rng.uniform(0.5, 1.5, count)
    return Part(
        items=tuple(pixels.astype(np.uint8)), ids=ids, labels=labels.astype(np.int64), weights=weights
    )


TRAIN, VAL = tinted(41, 1), tinted(17, 2)  # batches of 8, the last of 9; val in whole batches and a rest


@pytest.fixture(scope="module")
def base(tiny: str) -> Backbone:
    return regraft.backbone(tiny, 32)


class Trial:
    """A fine-tuning with quick settings, at home or by a crew, and what was told of it."""

    def __init__(
        self, base: Backbone, crew: Crew | None, strategy: str = "full", size: int = 8, epochs: int = 3
    ):
        self.told: list[dict[str, Any]] = []
        self.does: Callable[[dict[str, Any]], None] = lambda event: None
        finetune = {"epochs": epochs, "batch_size": size, "lr": 3e-3, "layer_decay": 0.8, "patience": 9}
        recipe = Recipe.build(
            {
                "finetune": {**finetune, "precision": "float32", "interpolation": 1.0},
                "augment": {"crop_scale": 0.8, "mirror": True},
                "run": {"feature_batch": 4},
            }
        )
        store, events = FeatureStore(None, crew=crew), Events(None, (self.hear,))
        self.context = Context(recipe, store, torch.device("cpu"), events, IMAGES)
        plan = plan_freeze(base.module, base.stages, strategy)
        self.tuner = Tuner(base, plan, Tuning.of(recipe.finetune, self.context.augmentation), TASK)

    def hear(self, event: dict[str, Any]) -> None:
        self.told.append(event)
        self.does(event)

    def tune(self, checkpoint: Checkpoint | None = None) -> Finetuned:
        torch.manual_seed(0)
        head = make_head("linear", self.tuner.backbone.width, 2).eval()
        return self.tuner.fit(head, TRAIN, VAL, self.context, checkpoint)

    def epochs(self) -> dict[int, float]:
        """The losses of training that were told."""
        return {e["epoch"]: e["train_loss"] for e in self.told if e["kind"] == "epoch"}


@pytest.fixture(scope="module")
def alone(base: Backbone) -> tuple[Trial, Finetuned]:
    trial = Trial(base, None)
    return trial, trial.tune()


class Listed:
    """A crew that writes down what one training asks of a team, and hands out what came of it afterwards."""

    def __init__(self, crew: Crew) -> None:
        self.crew, self.hear, self.answer = crew, (lambda event: None), None
        self.asked: tuple[Any, Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.crew, name)

    def team(self, function: Any, given: Any, hear: Any, keep: Any, kept: Any) -> Any:
        if self.asked is None:
            self.asked, self.hear = (function, given), hear
            raise NotSent
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class NotSent(Exception):
    """There is no team yet."""


def one_team(crew: Crew, lists: list[Listed]) -> None:
    """One team does all that was asked: to begin a team takes longer than what it does here."""
    now = [0]

    def hear(event: dict[str, Any]) -> None:
        if event["kind"] == "turn":
            now[0] = event["number"]
        else:
            lists[now[0]].hear(event)

    answers = crew.team(one_after_the_other, [one.asked for one in lists], hear, lambda _: None, None)
    for one, answer in zip(lists, answers, strict=True):
        one.answer = answer


def one_after_the_other(seat: Any, asked: list[tuple[Any, Any]]) -> list[Any]:
    """What each process of such a team does; an error that all of them raise is an answer."""
    answers: list[Any] = []
    for number, (function, given) in enumerate(asked):
        seat.tell({"kind": "turn", "number": number})
        try:
            answers.append(function(seat, given))
        except RegraftError as error:
            answers.append(error)
    return answers


def creep(module: torch.nn.Module, _: object) -> None:
    """Moves what is frozen, on the second process only."""
    if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
        module.running_mean.add_(1e-3)  # type: ignore[operator]


@pytest.fixture(scope="module")
def trials(base: Backbone, joined: Crew) -> dict[str, Trial]:
    """Trainings that one team has done: `tune` gives what came of them."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    faulty = replace(base, module=copy.deepcopy(base.module))
    norm = next(m for m in faulty.module.modules() if getattr(m, "running_mean", None) is not None)
    norm.register_forward_pre_hook(creep)
    lists = [Listed(joined) for _ in range(3)]
    full, of_one, moved = cast(list[Crew], lists)
    found = {
        "full": Trial(base, full),
        # Batches of one example, from cached activations: one of two processes has nothing to do
        "of one": Trial(base, of_one, "last-1", size=1, epochs=1),
        "faulty": Trial(faulty, moved, epochs=1),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(team, "BEGINNING", 0.0)
        for trial in found.values():
            with pytest.raises(NotSent):
                trial.tune()
    one_team(joined, lists)
    return found


def assert_alike(ours: Finetuned, home: Finetuned) -> None:
    """The same val loss within a thousandth, and the same outputs within a hundredth of their spread."""
    assert ours.logits is not None
    assert home.logits is not None
    assert ours.trained.val_loss == pytest.approx(home.trained.val_loss, rel=1e-3)
    assert np.abs(ours.logits - home.logits).max() < 1e-2 * home.logits.std()
    assert ours.frozen_digest == home.frozen_digest


def test_two_processes_end_where_one_does(trials: dict[str, Trial], alone: tuple[Trial, Finetuned]) -> None:
    away, (home, single) = trials["full"], alone
    together = away.tune()
    assert_alike(together, single)
    assert together.trained.stopped == "length"
    assert away.epochs() == pytest.approx(home.epochs(), rel=1e-3)
    assert any(event["kind"] == "tick" and event["label"] == "fine-tuning" for event in away.told)


def test_ranks_without_examples_take_part(base: Backbone, trials: dict[str, Trial]) -> None:
    home, away = Trial(base, None, "last-1", size=1, epochs=1), trials["of one"]
    assert_alike(away.tune(), home.tune())
    assert away.epochs() == pytest.approx(home.epochs(), rel=1e-3)


def test_what_moves_on_one_rank_is_found_and_the_rank_named(trials: dict[str, Trial]) -> None:
    with pytest.raises(RegraftError, match="something frozen moved during fine-tuning on rank 1 of 2"):
        trials["faulty"].tune()


def test_a_killed_process_costs_what_was_done_since_the_checkpoint(
    base: Backbone, crew: Crew, alone: tuple[Trial, Finetuned], tmp_path: Path
) -> None:
    trial, killed, kept = Trial(base, crew), [], Checkpoint(tmp_path / "kept.safetensors")

    def kill(event: dict[str, Any]) -> None:
        """End the second process once two epochs are over."""
        if event["kind"] == "epoch" and event["epoch"] == 2 and not killed:
            found = psutil.Process().children(recursive=True)
            killed.extend(p.pid for p in found if "RayTrainWorker" in " ".join(p.cmdline()))
            os.kill(max(killed), signal.SIGKILL)

    trial.does = kill
    ended = trial.tune(kept)
    assert len(killed) == 2
    assert_alike(ended, alone[1])
    first = [event for event in trial.told if event["kind"] == "epoch" and event["epoch"] == 1]
    assert len(first) == 1, "it did not begin at the beginning"
    assert kept.load() is not None, "what a run goes on from lies with who sent the team"


def test_one_process_trains_where_that_is_faster_or_norms_follow_batches(
    base: Backbone, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a team was sent")

    monkeypatch.setattr(type(crew), "team", never)
    moving = Trial(base, crew, epochs=1)
    plan = plan_freeze(base.module, base.stages, "full", "moving")
    moving.tuner = replace(moving.tuner, plan=plan)
    moving.tune()
    assert any("norms follow whole batches" in event.get("text", "") for event in moving.told)
    monkeypatch.setattr(team, "BEGINNING", 1e9)
    Trial(base, crew, epochs=1).tune()


def test_ctrl_c_keeps_the_best_so_far(base: Backbone, crew: Crew, alone: tuple[Trial, Finetuned]) -> None:
    trial = Trial(base, crew, epochs=500)

    def interrupt(event: dict[str, Any]) -> None:
        """As a user does, once the first epoch is over."""
        if event["kind"] == "epoch" and event["epoch"] == 1:
            signal.raise_signal(signal.SIGINT)

    trial.does = interrupt
    ended = trial.tune()
    assert ended.interrupted
    assert 1 <= ended.trained.epochs_run < 500
    assert ended.trained.best.keys() == alone[1].trained.best.keys()
