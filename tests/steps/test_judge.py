"""Head alone or fine-tuned: the evidence chose nothing else, and the simpler one wins inside the noise."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bases import IMAGES
from regraft.artifacts import Events
from regraft.data.part import Part
from regraft.inference import FeatureStore
from regraft.recipe import Recipe
from regraft.steps.context import Context
from regraft.steps.evidence import foreseen, halves
from regraft.steps.finetune import judge as module
from regraft.steps.finetune.judge import DOUBT, compare, cross_fit
from regraft.steps.finetune.rules import HELD, folds, trainings
from regraft.tasks import Multi, Numbers, Single, chosen_by

TASK = Single(("a", "b", "c"))
SHARES = (0.25, 0.5, 0.75, 1.0)


def made(count: int, strength: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of three classes, and logits that tell them with so much strength in so much noise."""
    labels = np.random.default_rng(99).integers(0, 3, count)
    return labels, strength * np.eye(3)[labels] + np.random.default_rng(seed).normal(size=(count, 3))


def compared(
    count: int, before: float, after: float, seed: int = 0, blocks: np.ndarray | None = None
) -> module.Comparison:
    labels, head = made(count, before, seed)
    tuned = {share: made(count, after, seed + 1 + k)[1] for k, share in enumerate(SHARES)}
    return compare(TASK, chosen_by(TASK, "accuracy"), labels, {0.0: head, **tuned}, blocks, np.arange(count))


def test_a_clear_gain_wins_and_a_difference_inside_the_noise_leaves_the_head_alone() -> None:
    assert compared(300, 1.0, 2.5).share > 0
    wins = [compared(60, 1.5, 1.5, seed).share > 0 for seed in range(0, 200, 5)]
    assert np.mean(wins) < 0.25  # of equals, the best of four shares would win nearly always by its own loss


def test_the_share_that_is_judged_was_chosen_on_other_examples() -> None:
    labels, head = made(200, 1.0, 0)
    half = halves(200, None)
    right = 4 * np.eye(3)[labels]
    tuned = {share: np.where((half == own)[:, None], right, -right) for own, share in ((0, 0.25), (1, 1.0))}
    found = compare(TASK, chosen_by(TASK, "accuracy"), labels, {0.0: head, **tuned}, None, np.arange(200))
    assert found.gain < 0  # each share is perfect on one half, which the other half cannot know
    assert found.share == 0
    np.testing.assert_array_equal(found.logits, head)


def test_the_error_counts_blocks() -> None:
    labels, head = made(40, 1.0, 0)
    _, tuned = made(40, 1.6, 1)
    each = np.repeat(np.arange(40), 10)
    alone = compare(
        TASK,
        chosen_by(TASK, "accuracy"),
        labels[each],
        {0.0: head[each], 1.0: tuned[each]},
        None,
        np.arange(400),
    )
    together = compare(
        TASK,
        chosen_by(TASK, "accuracy"),
        labels[each],
        {0.0: head[each], 1.0: tuned[each]},
        each,
        np.arange(400),
    )
    assert together.gain == pytest.approx(alone.gain)
    assert together.error > 2.5 * alone.error
    only = compare(
        TASK, TASK.headline, labels, {0.0: head, 1.0: tuned}, np.zeros(40, dtype=np.int64), np.arange(40)
    )
    assert only.share == 0
    assert "standard error unknown" in only.why
    assert only.why.endswith("all were held out of one group, which does not tell of others")


def test_a_lower_log_loss_does_not_outweigh_a_clearly_worse_metric() -> None:
    labels = np.zeros(200, dtype=int)
    # 150 right, most sure where it is wrong
    head = np.where(np.arange(200)[:, None] < 150, [0.1, 0.0], [-8.0, 0.0])
    for right, taken in ((149, True), (140, False)):  # one answer less is inside the noise, ten are not
        tuned = np.where(np.arange(200)[:, None] < right, [0.1, 0.0], [-0.1, 0.0])
        assert (
            compare(
                TASK, chosen_by(TASK, "log_loss"), labels, {0.0: head, 1.0: tuned}, None, np.arange(200)
            ).share
            == 1
        )
        assert (
            compare(
                TASK, chosen_by(TASK, "accuracy"), labels, {0.0: head, 1.0: tuned}, None, np.arange(200)
            ).share
            == 1
        ) == taken


def test_being_too_sure_is_no_reason_against_a_model_that_gets_a_temperature() -> None:
    labels, head = made(300, 1.0, 0)
    sure = 20 * made(300, 2.0, 1)[1]
    assert (
        compare(TASK, chosen_by(TASK, "accuracy"), labels, {0.0: head, 1.0: sure}, None, np.arange(300)).share
        == 1
    )


def test_folds_judge_up_to_a_thousand_examples_and_val_beyond() -> None:
    assert folds(80, 0, True) == folds(80, 0, False) == 5
    assert folds(85, 15, True) == folds(850, 150, True) == 3
    assert folds(851, 150, True) == folds(85, 15, False) == 0
    assert folds(5_000, 700, True, 1) == 3, "one group cannot judge"
    assert folds(5_000, 700, True, 2) == folds(5_000, 700, False, 1) == 0
    assert trainings(100, 3, False) == pytest.approx(3.0)
    assert trainings(900, 3, False) == pytest.approx(1 + 2 / 3)
    assert trainings(900, 0, True) == 2


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples each fold was trained on; training is a stand-in whose models are as good as the
    test says.
    """
    counts: list[int] = []

    def train(self, head, data, val, context, checkpoint=None):  # type: ignore[no-untyped-def]
        counts.append(len(data.items))
        return SimpleNamespace(trained=SimpleNamespace(stopped="length"), interrupted=False)

    monkeypatch.setattr(module.Tuner, "fit", train)
    monkeypatch.setattr(module, "fit_chosen", lambda *_: None)
    return counts


def cross(
    count: int, after: float, monkeypatch: pytest.MonkeyPatch, blocks: np.ndarray | None = None
) -> module.Comparison | None:
    labels, head = made(count, 1.5, 0)
    _, tuned = made(count, after, 1)
    names = tuple(str(i) for i in range(count))

    def predict(backbone, head_, tuned_, held, context):  # type: ignore[no-untyped-def]
        rows = [int(name) for name in held.items]
        return {0.0: head[rows], **dict.fromkeys(SHARES, tuned[rows])}

    monkeypatch.setattr(module, "mixtures", predict)
    context = Context(Recipe.build({}), FeatureStore(None), torch.device("cpu"), Events(), IMAGES)
    data = Part(items=names, ids=names, labels=labels, weights=np.ones(count), blocks=blocks)
    known = Part(
        values=np.zeros((count, 2), dtype=np.float32), labels=labels, weights=np.ones(count), blocks=blocks
    )
    tuner = module.Tuner(None, None, None, TASK)  # type: ignore[arg-type]
    return cross_fit(tuner, None, data, known, TASK.headline, 3, context)  # type: ignore[arg-type]


def test_no_more_folds_are_tried_than_it_takes(tried: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    unclear = cross(400, 1.5, monkeypatch)
    assert unclear is not None
    assert len(tried) == 2
    assert HELD <= len(unclear.rows) < 400
    tried.clear()
    clear = cross(400, 4.0, monkeypatch)
    assert clear is not None
    assert clear.share > 0
    assert len(tried) == 1
    tried.clear()
    lost = cross(200, 1.0, monkeypatch)
    assert lost is not None
    assert lost.share == 0
    assert len(tried) == 1
    assert lost.chance(200) < DOUBT
    assert (
        f"1 of 3 folds tried: those that are left would change the answer with a probability of {100 * lost.chance(200):.0f} %"
        in lost.why
    )
    tried.clear()
    few = cross(90, 4.0, monkeypatch)
    assert few is not None
    assert len(few.rows) == 90  # so few examples are all held out in turn
    assert len(tried) == 3


def test_what_all_folds_would_say_is_foreseen_as_often_as_it_comes() -> None:
    """Verdicts of a third of the examples, gains drawn around every true gain alike, beside those of all."""
    rng, error = np.random.default_rng(0), 1.0
    true = rng.uniform(-8, 8, 200_000)  # no gain is likelier than another
    thirds = true[:, None] + rng.normal(scale=error, size=(len(true), 3))
    wins = thirds.mean(axis=1) > error / np.sqrt(3)
    chance = foreseen(thirds[:, 0], error, 1 / 3)
    for low in (0.05, 0.15, 0.5, 0.85):
        near = np.abs(chance - low) < 0.03
        assert wins[near].mean() == pytest.approx(low, abs=0.02)
    assert foreseen(0.1, np.inf, 0.5) == 0.5
    assert foreseen([-0.1, 0.1], 0.0, 0.5).tolist() == [0.0, 1.0]


def test_no_block_is_trained_on_and_held_out(tried: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = np.repeat(np.arange(30), 5)
    found = cross(150, 1.5, monkeypatch, blocks)
    assert found is not None
    assert len(found.rows) == 150
    assert all(count % 5 == 0 for count in tried)


def test_a_few_large_groups_judge_by_several_of_them(
    tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One group alone has an infinite standard error, by which nothing would ever win."""
    found = cross(1_500, 4.0, monkeypatch, np.repeat(np.arange(3), 500))
    assert found is not None
    assert found.share > 0
    assert len(tried) == 3


def test_a_gain_counts_when_it_is_above_the_noise() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    right, rows = np.eye(3)[labels], np.arange(200)
    before = right + rng.normal(size=(200, 3))
    better, same = 3 * right + rng.normal(size=(200, 3)), right + rng.normal(size=(200, 3))
    found = compare(TASK, chosen_by(TASK, "accuracy"), labels, {0.0: before, 1.0: better}, None, rows)
    assert found.share == 1
    assert found.gain > found.error
    assert f"a gain of {found.gain:.3f}" in found.why
    sure = 8 * (2.2 * right + np.random.default_rng(1).normal(size=(200, 3)))
    found = compare(TASK, chosen_by(TASK, "accuracy"), labels, {0.0: before, 1.0: sure}, None, rows)
    assert found.share == 1, "a model surer of itself than it should be gets a temperature"
    found = compare(TASK, chosen_by(TASK, "accuracy"), labels, {0.0: before, 1.0: same}, None, rows)
    assert found.share == 0
    assert found.gain <= found.error


def test_a_lower_loss_that_is_worse_in_the_metric_says_so() -> None:
    labels, head = np.arange(200) % 2, np.tile([[0.0, -0.01], [-0.01, 0.0]], (100, 1))
    tuned = 3 * np.eye(2)[labels] + [[0.0, 0.0]]
    tuned[:20] = 0.2 * np.eye(2)[1 - labels[:20]]  # surer, and wrong in ten of a hundred
    task = Single(("a", "b"))
    found = compare(task, task.headline, labels, {0.0: head, 1.0: tuned}, None, np.arange(200))
    assert found.share == 0
    assert "accuracy 1.000 and 0.900, which is worse by more than one standard error" in found.why
    assert "worse by" not in compared(60, 1.5, 1.5).why


def test_a_metric_that_held_out_examples_do_not_define_has_no_say() -> None:
    nothing, outputs = np.zeros((80, 2), dtype=np.float32), np.full((80, 2), -1.0)
    task = Multi(("a", "b"))
    found = compare(task, task.headline, nothing, {0.0: outputs, 1.0: 3 * outputs}, None, np.arange(80))
    assert found.share == 1
    assert "nan" not in found.why


def test_a_metric_below_zero_is_told_below_zero() -> None:
    truth = np.random.default_rng(0).normal(size=(80, 1))
    task = Numbers(("size",)).fitted(truth)
    outputs = {0.0: -truth, 1.0: truth + 0.1}
    found = compare(task, chosen_by(task, "r2"), truth, outputs, None, np.arange(80))
    assert "R squared -2.870 and 0.950" in found.why
    assert "mean absolute error 1.5" in compare(task, task.headline, truth, outputs, None, np.arange(80)).why
