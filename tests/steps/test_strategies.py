"""Strategies against each other, few examples cross-validated, and whether fine-tuning is worth it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tinted import TASK, context, data, tuner

from bases import base_of, single
from regraft.backbones import Backbone, obtain_weights
from regraft.data.part import Part
from regraft.inference import TorchEngine
from regraft.steps.context import Keeper
from regraft.steps.finetune.explore import RUNGS, Explored, Trial, _trial, advice, explore
from regraft.steps.finetune.judge import cross_fit
from regraft.steps.finetune.tune import Finetuned, Tuner
from regraft.steps.freeze import planned
from regraft.steps.train import Candidate, apply_head
from regraft.training import Layers, Trained, linear_head, plan_freeze

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tiny: str) -> Backbone:
    return base_of(obtain_weights(tiny), 64, upscaled=True)


def features(base: Backbone, part: Part) -> np.ndarray:
    engine = TorchEngine(base, CPU, 8)
    return np.concatenate(
        [engine.run({"pixels": np.stack(part.items[i : i + 8])})[0] for i in range(0, len(part.items), 8)]
    )


class Kept(Keeper):
    """Gives the trials that are known, and keeps what it is given in a list."""

    def __init__(self, known: list[dict[str, Any]], kept: list[list[dict[str, Any]]]) -> None:
        self.known, self.kept = known, kept

    def strategies(self) -> list[dict[str, Any]]:
        return self.known

    def keep_strategies(self, strategies: dict[str, Any]) -> None:
        self.kept.append(strategies["trials"])


def explored(
    base: Backbone, known: list[dict[str, Any]], kept: list[list[dict[str, Any]]], **more: Any
) -> Explored:
    train, val = data(16, 1), data(10, 2)
    x = features(base, train)
    head = linear_head(x, train.labels, train.weights, single(2), 0.3)
    ours = context(None, epochs=4, **more)
    ours.keeper = Kept(known, kept)
    usual = tuner(base, plan_freeze(base.module, base.stages, "full"), ours)
    names = ("last-1", "norm", "full", "full without layer decay")
    found = explore(usual, head, apply_head(head, features(base, val)), train, val, ours, names)
    return found


def test_strategies_are_halved_and_a_stopped_comparison_goes_on(base: Backbone) -> None:
    kept: list[list[dict[str, Any]]] = []
    found = explored(base, [], kept)
    tried = [(t.strategy, t.epochs) for t in found.trials]
    short = min(epochs for _, epochs in tried if epochs)
    assert short == pytest.approx(4 / RUNGS[1][0], abs=0.1), (
        "a third of an epoch is one of a third of the data"
    )
    assert {name for name, epochs in tried if epochs == short} == {
        "last-1",
        "norm",
        "full without layer decay",
    }
    first, second = (t for t in found.trials if t.epochs == 4)
    assert (first.strategy, found.chosen in (first.strategy, second.strategy)) == ("full", True)
    assert (
        second.strategy == min((t for t in found.trials if t.epochs == short), key=lambda t: t.loss).strategy
    )
    assert found.tuned is not None
    assert found.tuner is not None
    assert found.tuner.plan.strategy == found.chosen.removesuffix(" without layer decay")
    sizes = {t.strategy: t.trained for t in found.trials}
    assert sizes["norm"] < sizes["full"] == sizes["full without layer decay"]
    assert all(t.memory > 0 for t in found.trials if t.epochs)
    again: list[list[dict[str, Any]]] = []
    resumed = explored(base, kept[1], again)
    assert len(again) == len(kept) - 2, "the two trials that were kept are not repeated"
    same = [t for t in resumed.trials if t.epochs == 4]
    assert [(t.strategy, t.loss) for t in same] == [(t.strategy, t.loss) for t in (first, second)]


def pretended(
    base: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    margins: dict[str, np.ndarray],
    stopped: str = "length",
    raises: int = 0,
    **more: Any,
) -> tuple[Explored, list[list[dict[str, Any]]], list[tuple[str, float]]]:
    """`explore` where a strategy's val logits are its (N,) margins: what was found, kept, and trained for
    how many passes.
    """
    train, val = data(120, 1), data(40, 2)
    head = linear_head(np.zeros((120, base.width), np.float32), train.labels, train.weights, single(2), 0.3)
    kept: list[list[dict[str, Any]]] = []
    trained: list[tuple[str, float]] = []

    def tried(one: Tuner, head: Any, part: Part, held: Part, *_: Any) -> Finetuned:
        plan, tuning = one.plan, one.tuning
        assert set(part.ids) <= set(train.ids)
        assert abs(part.labels.mean() - train.labels.mean()) < 0.2
        if len(trained) + 1 == raises:
            raise KeyboardInterrupt
        trained.append((plan.strategy, tuning.epochs * len(part.items) / 120))
        sign = 2.0 * held.labels - 1
        logits = np.stack([0 * sign, sign * margins[plan.strategy]], axis=1)
        return Finetuned(base, head, Trained({}, 1, 1, 0.5, stopped), 1, logits, tuning)

    monkeypatch.setattr(Tuner, "fit", tried)
    ours = context(None, **{"epochs": 8, **more})
    ours.keeper = Kept([], kept)
    usual = tuner(base, plan_freeze(base.module, base.stages, "full"), ours)
    found = explore(usual, head, np.zeros((40, 2)), train, val, ours, tuple(margins))
    return found, kept, trained


NOISE = np.random.default_rng(0).normal(size=(11, 40))


@pytest.mark.parametrize("length", [1, 4, 6, 8, 12, 18, 36])
def test_trying_ten_costs_two_and_a_half_trainings_at_most(
    monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    base = base_of(obtain_weights("packaged:efficientnet_lite0"), 64, upscaled=True)
    assert len(base.stages) == 8
    names = [*(f"last-{k}" for k in range(1, 9)), "full", "norm"]
    _, _, trained = pretended(
        base, monkeypatch, {name: NOISE[i] for i, name in enumerate(names)}, epochs=length
    )
    assert len(trained) == 9 + 3 + 2
    assert [passes for _, passes in trained[-2:]] == [length, length]
    assert trained[-2][0] == "full"
    assert sum(passes for _, passes in trained) <= 2.55 * length


def test_full_fine_tuning_gives_way_only_to_what_is_clearly_better(
    base: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = 1.5 + NOISE[0]
    hardly, clearly, worse = full + 0.2 + 0.5 * NOISE[5], full + 1.5 + 0.1 * NOISE[1], full - 1
    found, _, trained = pretended(base, monkeypatch, {"norm": hardly, "full": full})
    assert min(found.trials, key=lambda t: t.loss).strategy == "norm", "lower, but not clearly"
    assert (found.chosen, found.trials[-1].strategy) == ("full", "norm")
    assert trained == [("full", 8), ("norm", 8)], "of two there is nothing to choose for the last rung"
    assert "norm reached" in found.advice
    assert pretended(base, monkeypatch, {"norm": clearly, "full": full, "last-1": worse})[0].chosen == "norm"
    assert pretended(base, monkeypatch, {"norm": worse, "last-1": hardly})[0].chosen == "last-1", (
        "full was not asked for"
    )


def test_a_trial_that_was_interrupted_is_tried_again_by_a_resume(
    base: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    margins = {name: NOISE[i] for i, name in enumerate(("last-1", "last-2", "norm", "full"))}
    found, kept, trained = pretended(base, monkeypatch, margins, stopped="interrupted")
    assert trained == [("last-1", pytest.approx(8 / RUNGS[1][0], abs=0.01))]
    assert kept == []
    assert found.tuned is not None
    assert (found.chosen, found.tuned.trained.stopped, found.stopped) == ("last-1", "interrupted", True)
    assert [t.strategy for t in found.trials] == ["head"]
    assert "stopped by the user" in found.advice


def test_ctrl_c_outside_of_training_loses_nothing_that_was_trained(
    base: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    margins = {"norm": NOISE[1], "full": NOISE[0]}
    found, kept, trained = pretended(base, monkeypatch, margins, raises=2)
    assert (found.chosen, found.stopped, len(kept), len(trained)) == ("full", True, 1, 1)
    with pytest.raises(KeyboardInterrupt):
        pretended(base, monkeypatch, margins, raises=1)


@pytest.mark.parametrize("strategy", ["lora", "bias"])
def test_every_strategy_gives_a_network_of_the_same_shape(base: Backbone, strategy: str) -> None:
    if strategy == "lora":
        pytest.importorskip("peft", reason="peft is not installed: pip install regraft[lora]")
    train, val = data(16, 1), data(10, 2)
    head = linear_head(features(base, train), train.labels, train.weights, single(2), 0.3)
    ours = context(None, epochs=2, lr=1e-3)
    tuned = tuner(base, planned(base, strategy, "frozen")[0], ours).fit(head, train, val, ours)
    before, after = base.module.state_dict(), tuned.backbone.module.state_dict()
    assert list(before) == list(after)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved
    if strategy == "bias":
        assert all(name.endswith("bias") for name in moved)
    assert tuned.logits is not None
    again = apply_head(tuned.head, features(tuned.backbone, val))
    np.testing.assert_allclose(again, tuned.logits, atol=1e-3)


def test_without_a_decay_there_is_no_strategy_without_it(base: Backbone) -> None:
    found = explored(base, [], [], layer_decay=1.0)
    assert "full without layer decay" not in {t.strategy for t in found.trials}


def trial(name: str, loss: float, seconds: float, error: float | None = 0.01) -> Trial:
    return Trial(name, 8, loss, error, 0.9, 0.85, 0.94, 1000, seconds, 1)


def test_advice_names_what_was_gained_and_what_is_enough() -> None:
    head, full = trial("head", 0.30, 0.0), trial("full", 0.20, 100.0)
    assert "worth it" in advice([head, full], "full", TASK)
    assert "last-1 comes within" in advice([head, full, trial("last-1", 0.205, 10.0)], "full", TASK)
    assert "last-1 reached 0.195" in advice([head, full, trial("last-1", 0.195, 90.0)], "full", TASK)
    noisy = [head, trial("full", 0.20, 100.0, 0.09), trial("last-2", 0.28, 10.0)]
    assert "last-2" not in advice(noisy, "full", TASK), "a standard error above is as far as the head alone"
    assert "hardly worth it" in advice([head, trial("full", 0.295, 100.0)], "full", TASK)
    assert "gained nothing" in advice([head, trial("full", 0.40, 100.0)], "full", TASK)
    above = [head, trial("full", 0.31, 9.0), trial("norm", 0.27, 9.0)]
    assert "gained nothing here on val; norm reached 0.270" in advice(above, "full", TASK)
    assert "no strategy was trained to the end" in advice(
        [head, replace(trial("norm", 0.1, 9.0), epochs=0.7)], "head", TASK
    )


def test_few_examples_are_judged_out_of_fold(base: Backbone) -> None:
    few = data(10, 3)
    known = Part(values=features(base, few), labels=few.labels, weights=few.weights)
    ours = context(None, epochs=1, folds=5)
    nothing = np.zeros(0)
    chosen = Candidate(Layers("linear"), 0.3, 0, nothing, nothing, nothing)
    plan = plan_freeze(base.module, base.stages, "last-1")
    one = tuner(base, plan, ours)
    found = cross_fit(one, chosen, few, known, TASK.headline, 5, ours)
    assert found is not None
    assert found.rows.tolist() == list(range(10))
    assert found.logits.shape == (10, 2)
    assert np.isfinite(found.logits).all()
    assert (np.abs(found.logits).sum(axis=1) > 0).all()
    assert not ours.decisions.settled, "folds settle nothing of the run"
    lone = Part(items=few.items[:3], ids=few.ids[:3], labels=np.array([0, 0, 1]), weights=few.weights[:3])
    three = Part(values=known.values[:3], labels=lone.labels, weights=lone.weights)
    assert cross_fit(one, chosen, lone, three, TASK.headline, 5, ours) is None


def test_of_val_of_one_group_no_error_is_known_and_no_gain_is_promised() -> None:
    """One speaker, say: his gain may be his alone."""
    val = data(10, 2)
    val = replace(val, blocks=np.zeros(10, dtype=np.int64))
    logits = np.random.default_rng(0).normal(size=(10, 2)).astype(np.float32)
    alone = _trial("head", 0, TASK, logits, val, (1, 0.0, 0))
    assert alone.standard_error is None
    head, full = trial("head", 0.30, 0.0, None), trial("full", 0.20, 100.0, None)
    said = advice([head, full, trial("last-1", 0.201, 10.0, None)], "full", TASK)
    assert said.endswith(
        "0.100 below the head alone, but all of val is of one group, which does not tell of others"
    )
    above = advice([head, full, trial("norm", 0.15, 90.0, None)], "full", TASK)
    assert "standard error" not in above
    assert above.endswith("norm reached 0.150, so the usual way is kept")
