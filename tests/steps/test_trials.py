"""Trials by the workers of a real Ray: the decisions of trials made in turn, what a lost worker costs, Ctrl-C."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from tinted import TASK, context, data, tuner

from bases import base_of, single
from regraft.artifacts import Events
from regraft.backbones import Backbone, obtain_weights
from regraft.crew import Crew
from regraft.inference import FeatureStore, TorchEngine
from regraft.steps.context import Context, Keeper
from regraft.steps.finetune.explore import Explored, explore
from regraft.steps.finetune.judge import Comparison, cross_fit
from regraft.steps.rank.entrants import Entrant
from regraft.steps.rank.probing import Probe, probe
from regraft.steps.train import Candidate, apply_head
from regraft.steps.trials import side_by_side
from regraft.training import Checkpoint, Layers, linear_head, plan_freeze

pytestmark = pytest.mark.ray
TRAIN, VAL = data(24, 1), data(10, 2)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As many as a worker of the tests has, so that bits can be held against each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tiny: str) -> Backbone:
    return base_of(obtain_weights(tiny), 64, upscaled=True)


@pytest.fixture(scope="module")
def features(base: Backbone) -> np.ndarray:
    """Of TRAIN, then of VAL."""
    engine, items = TorchEngine(base, torch.device("cpu"), 8), [*TRAIN.items, *VAL.items]
    return np.concatenate(
        [engine.run({"pixels": np.stack(items[i : i + 8])})[0] for i in range(0, len(items), 8)]
    )


class Kept(Keeper):
    """Keeps the trainings of trials in a folder, and what it was shown."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shown = folder, list[dict[str, np.ndarray]]()

    def checkpoint(self, name: str) -> Checkpoint:
        return Checkpoint(self.folder / f"{name}.safetensors")

    def first_batch(self, batch: dict[str, np.ndarray]) -> None:
        self.shown.append(batch)


class Told:
    """A context for trials, by a crew or in turn, and what was told of them."""

    def __init__(self, crew: Crew | None, folder: Path, **settings: Any) -> None:
        self.events: list[dict[str, Any]] = []
        self.does: Callable[[dict[str, Any]], None] = lambda event: None
        self.context: Context = context(None, **settings)
        self.context.store = FeatureStore(None, crew=crew)
        self.context.events = Events(None, (self.hear,))
        self.context.keeper = self.keeper = Kept(folder)

    def hear(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self.does(event)

    def explore(self, base: Backbone, features: np.ndarray) -> Explored:
        """Four strategies, of which two are trained to the end."""
        torch.manual_seed(0)
        head = linear_head(features[:24], TRAIN.labels, TRAIN.weights, single(2), 0.3)
        usual = tuner(base, plan_freeze(base.module, base.stages, "full"), self.context)
        names = ("last-1", "norm", "full", "full without layer decay")
        return explore(usual, head, apply_head(head, features[24:]), TRAIN, VAL, self.context, names)

    def labels(self) -> set[str]:
        """What was progress told of."""
        return {event["label"] for event in self.events if event["kind"] == "tick"}


def assert_same(ours: Explored, home: Explored) -> None:
    """The same trials with the same results, and the same weights."""
    ended = [
        [(t.strategy, t.epochs, t.loss, t.value, t.trained) for t in found.trials] for found in (ours, home)
    ]
    assert ended[0] == ended[1]
    assert (ours.chosen, ours.advice.split(" in ")[0]) == (home.chosen, home.advice.split(" in ")[0])
    assert ours.tuned is not None
    assert home.tuned is not None
    assert np.array_equal(ours.tuned.logits, home.tuned.logits)  # type: ignore[arg-type]
    there = home.tuned.backbone.module.state_dict()
    assert all(torch.equal(v, there[name]) for name, v in ours.tuned.backbone.module.state_dict().items())


@pytest.fixture(scope="module")
def home(base: Backbone, features: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Explored:
    """The strategies tried in turn."""
    torch.set_num_threads(1)
    return Told(None, tmp_path_factory.mktemp("home"), epochs=4).explore(base, features)


def test_strategies_are_compared_as_in_turn(
    crew: Crew, base: Backbone, features: np.ndarray, home: Explored, tmp_path: Path
) -> None:
    told = Told(crew, tmp_path, epochs=4)
    assert_same(told.explore(base, features), home)
    assert told.labels() == {"strategies, 2 at once"}
    ticks = [event for event in told.events if event["kind"] == "tick"]
    assert max(event["done"] for event in ticks) == ticks[0]["total"] or ticks[0]["total"] > 2
    assert {event["strategy"] for event in told.events if event["kind"] == "epoch"} >= {"full"}
    assert len(told.keeper.shown) == 2, "the first batch of each that is trained to the end"


def test_a_lost_worker_costs_its_trial_what_was_done_since_the_checkpoint(
    crew: Crew, told: list[str], base: Backbone, features: np.ndarray, home: Explored, tmp_path: Path
) -> None:
    trial, killed = Told(crew, tmp_path, epochs=4), list[int]()

    def kill(event: dict[str, Any]) -> None:
        if event["kind"] == "epoch" and event["epoch"] == 2 and not killed:
            found = psutil.Process().children(recursive=True)
            killed.extend(p.pid for p in found if "_Worker" in " ".join(p.cmdline()))
            os.kill(killed[0], signal.SIGKILL)

    trial.does = kill
    assert_same(trial.explore(base, features), home)
    assert killed
    assert any("a worker was lost" in line for line in told)


def test_ctrl_c_hands_over_the_best_so_far(
    crew: Crew, base: Backbone, features: np.ndarray, tmp_path: Path
) -> None:
    trial, sent = Told(crew, tmp_path, epochs=72), list[int]()

    def interrupt(event: dict[str, Any]) -> None:
        if event["kind"] == "epoch" and not sent:
            sent.append(1)
            signal.raise_signal(signal.SIGINT)

    trial.does = interrupt
    found = trial.explore(base, features)
    assert found.stopped
    assert found.tuned is not None
    assert found.tuned.interrupted
    assert found.tuned.trained.epochs_run < 72
    again = Told(crew, tmp_path / "again", epochs=1)
    assert not again.explore(base, features).stopped, "the workers work on afterwards"


def crossed(told: Told, base: Backbone, features: np.ndarray) -> Comparison | None:
    """Head and fine-tuned model on five folds of train and val."""
    both = TRAIN.then(VAL)
    known = type(both)(values=features, labels=both.labels, weights=both.weights)
    chosen = Candidate(Layers(base.width, TASK.outputs), 0.1, 0, *[np.zeros(0)] * 3)  # type: ignore[arg-type]
    ours = tuner(base, plan_freeze(base.module, base.stages, "last-1"), told.context)
    return cross_fit(ours, chosen, both, known, TASK.headline, 5, told.context)


def test_folds_are_judged_as_in_turn(
    crew: Crew, base: Backbone, features: np.ndarray, tmp_path: Path
) -> None:
    home, away = Told(None, tmp_path / "home", epochs=2), Told(crew, tmp_path / "away", epochs=2)
    mine, theirs = crossed(home, base, features), crossed(away, base, features)
    assert mine is not None
    assert theirs is not None
    assert (mine.share, mine.why) == (theirs.share, theirs.why)
    assert np.array_equal(mine.logits, theirs.logits)
    notes = [[e["text"] for e in one.events if e.get("text", "").startswith("fold")] for one in (home, away)]
    assert notes[0] == notes[1]
    assert len(notes[0]) == 5
    assert "folds, 2 at once" in away.labels()


def test_probes_say_what_they_say_in_turn(crew: Crew, features: np.ndarray, tmp_path: Path) -> None:
    def probed(who: Crew | None) -> list[Probe]:
        racing = [
            Entrant(name, 64, 8, (), "", 0.0, 0.0, {}, "", "", features={8: (part * features)})
            for name, part in (("one", 1), ("half", np.float32(0.5)))
        ]
        return probe(racing, TRAIN.then(VAL), TASK, Told(who, tmp_path).context)

    for mine, theirs in zip(probed(None), probed(crew), strict=True):
        assert np.array_equal(mine.losses, theirs.losses)
        assert [(s.name, s.value) for s in mine.scores] == [(s.name, s.value) for s in theirs.scores]


def test_few_trials_leave_their_work_to_all_workers(tmp_path: Path) -> None:
    class Many:
        workers = 9

    many, alone = Told(Many(), tmp_path).context, Told(None, tmp_path).context  # type: ignore[arg-type]
    assert [side_by_side(many, count) for count in (1, 2, 4, 5, 9, 50)] == [False] * 3 + [True] * 3
    assert not side_by_side(alone, 5)
