"""Step 5: what is chosen out of fold, and that it is what is fitted, saved and predicted with."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch

from bases import IMAGES, single
from regraft.artifacts import Events
from regraft.data.part import Part
from regraft.evaluation import log_losses, score
from regraft.inference import FeatureStore
from regraft.recipe import HeadRecipe, Recipe
from regraft.steps.context import Context
from regraft.steps.evaluate import cross_validate
from regraft.steps.head import WIDTHS, head, options
from regraft.steps.train import Heads, apply_head, train_head
from regraft.tasks import Multi, Numbers, chosen_by
from regraft.tasks.imbalance import class_offset
from regraft.tasks.single import Single
from regraft.training import Layers

LINEAR, NARROW = Layers("linear"), Layers("mlp", 16, 0.0)


def context(heard: list[dict[str, Any]] | None = None, **settings: dict[str, Any]) -> Context:
    listeners = (heard.append,) if heard is not None else ()
    return Context(
        Recipe.build(settings), FeatureStore(None), torch.device("cpu"), Events(None, listeners), IMAGES
    )


def made(labels: np.ndarray, values: np.ndarray) -> Part:
    return Part(
        values=values.astype(np.float32), labels=labels.astype(np.int64), weights=np.ones(len(labels))
    )


def exclusive_or(count: int = 400) -> Part:
    """Two of eight features tell the class, but only together."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(count, 8))
    values[:, :2] = 3 * np.sign(values[:, :2]) + rng.normal(scale=0.5, size=(count, 2))
    return made(values[:, 0] * values[:, 1] > 0, values)


def apart(
    count: int = 400, classes: int = 3, shares: tuple[float, ...] | None = None, gap: float = 1.5
) -> Part:
    """Classes that differ in their means alone: nothing that a linear head would miss."""
    rng = np.random.default_rng(1)
    labels = rng.choice(classes, count, p=shares)
    return made(labels, rng.normal(size=(count, 10)) + gap * np.eye(classes, 10)[labels])


def accuracy(found: torch.nn.Module, data: Part) -> float:
    return score(data.labels, apply_head(found, data.values), "accuracy")


def test_where_features_tell_only_together_an_mlp_is_taken() -> None:
    data, heard = exclusive_or(), []
    here = context(heard)
    heads = train_head((LINEAR, NARROW, Layers("mlp", 64, 0.0)), data, 320, single(2), here)
    settled = here.decisions.merged(here.recipe)
    assert heads.layers.kind == settled.head.kind == "mlp"
    assert settled.head.hidden == heads.layers.hidden
    assert isinstance(settled.train.l2, float)
    assert accuracy(heads.on_train, data.cut(320)) > 0.95
    assert heads.on_train is not heads.refitted
    assert heads.oof_logits is not None
    assert score(data.labels[heads.oof_rows], heads.oof_logits, "accuracy") > 0.95
    shown = [event for event in heard if event["kind"] == "head"]
    assert [event["layers"] for event in shown] == ["linear", "mlp", "mlp"]
    assert [event["chosen"] for event in shown].count(True) == 1
    assert shown[0]["loss"] > shown[1]["loss"] + shown[0]["difference_error"]
    assert "linear would lose" in here.decisions.steps["train"]["why"]


def test_where_a_linear_head_misses_nothing_it_is_taken_and_no_wider_mlp_is_tried() -> None:
    data, heard = apart(), []
    here = context(heard)
    heads = train_head((LINEAR, NARROW, Layers("mlp", 64, 0.0)), data, 320, single(3), here)
    assert heads.layers == LINEAR
    settled = here.decisions.merged(here.recipe)
    assert (settled.head.kind, settled.head.hidden, settled.head.dropout) == ("linear", min(WIDTHS), 0.0)
    still = [name for name in settled.open_choices() if name.startswith(("head", "train"))]
    assert still == ["head.beside", "head.names"]  # which are settled by what stands beside, and by names
    assert heads.oof_logits is not None
    out_of_fold = log_losses(data.labels[heads.oof_rows], heads.oof_logits).mean()
    seen = log_losses(data.labels, apply_head(heads.refitted, data.values)).mean()
    assert out_of_fold > seen


def test_the_same_seed_gives_the_same_bits_and_so_does_what_was_chosen_before() -> None:
    data, choices = exclusive_or(), (LINEAR, NARROW)
    here = context()
    first, again = (train_head(choices, data, 320, single(2), where) for where in (here, context()))
    assert first.layers == NARROW
    pinned = context(
        head={"kind": "mlp", "hidden": 16, "dropout": 0.0},
        train=here.decisions.merged(here.recipe).train.model_dump(),
    )
    resumed = train_head((NARROW,), data, 320, single(2), pinned)
    other = train_head(choices, data, 320, single(2), context(run={"seed": 1}))
    for one in (again, resumed):
        assert np.array_equal(first.oof_logits, one.oof_logits)
        assert np.array_equal(apply_head(first.refitted, data.values), apply_head(one.refitted, data.values))
    assert not np.array_equal(
        apply_head(first.refitted, data.values), apply_head(other.refitted, data.values)
    )


def test_an_l2_that_was_chosen_before_gives_the_same_out_of_fold_logits() -> None:
    data, here = apart(), context()
    first = train_head((LINEAR,), data, 320, single(3), here)
    pinned = context(head={"kind": "linear"}, train={"l2": first.chosen.l2, "class_weights": "none"})
    again = train_head((LINEAR,), data, 320, single(3), pinned)
    assert again.chosen.l2 == first.chosen.l2
    assert np.array_equal(first.oof_logits, again.oof_logits)


def test_what_an_mlp_says_of_an_example_does_not_depend_on_the_others() -> None:
    data = exclusive_or()
    found = train_head((NARROW,), data, 320, single(2), context(head={"kind": "mlp"})).refitted
    together = apply_head(found, data.values[:50])
    found.train()  # what fine-tuning does
    alone = found(torch.from_numpy(data.values[:1])).detach().numpy()
    np.testing.assert_allclose(alone, together[:1], atol=1e-4)


def test_when_the_time_is_up_nothing_more_is_compared() -> None:
    data = exclusive_or()
    here = context(run={"budget_seconds": 1e-6})
    heads = train_head((LINEAR, NARROW), data, 320, single(2), here)
    assert heads.layers == LINEAR
    here = context(head={"kind": "mlp"}, run={"budget_seconds": 1e-6})  # one was asked for
    assert train_head((NARROW,), data, 320, single(2), here).layers == NARROW
    assert "1 epoch," in here.decisions.steps["train"]["decided"]


def test_a_deadline_in_the_middle_of_an_mlp_leaves_the_linear_head() -> None:
    here = context(run={"budget_seconds": 3600.0})

    def late(event: dict[str, Any]) -> None:
        if event.get("label", "").startswith("trying"):
            here.started = time.monotonic() - 3600

    here.events = Events(None, (late,))
    assert train_head((LINEAR, NARROW), exclusive_or(), 320, single(2), here).layers == LINEAR


@pytest.mark.parametrize("named", ["none", "balanced", "adjusted"])
def test_class_weights_that_are_named_are_taken(named: str) -> None:
    data = apart(600, 2, (0.85, 0.15), gap=1.0)
    here = context(train={"class_weights": named})
    heads = train_head((LINEAR,), data, 500, single(2), here)
    assert here.decisions.settled["train.class_weights"].value == named
    rare = data.labels == 1
    found = {
        w: apply_head(
            train_head((LINEAR,), data, 500, single(2), context(train={"class_weights": w})).on_train,
            data.values,
        )
        for w in ("none", named)
    }
    recall = {name: float((logits.argmax(1) == 1)[rare].mean()) for name, logits in found.items()}
    assert recall[named] >= recall["none"] + (0.1 if named != "none" else 0)
    assert heads.oof_logits is not None


def test_adjusted_logits_are_the_plain_ones_less_the_log_of_the_classes_shares() -> None:
    data = apart(400, 3, (0.8, 0.1, 0.1))
    for layers in (LINEAR, NARROW):
        plain, adjusted = (
            train_head(
                (layers,),
                data,
                300,
                single(3),
                context(head={"kind": layers.kind}, train={"class_weights": weights}),
            )
            for weights in ("none", "adjusted")
        )
        for one, other, labels in (
            (plain.on_train, adjusted.on_train, data.labels[:300]),
            (plain.refitted, adjusted.refitted, data.labels),
        ):
            wanted, found = (
                apply_head(one, data.values) - class_offset(labels, "adjusted", 3),
                apply_head(other, data.values),
            )
            np.testing.assert_allclose(
                found - found.mean(1)[:, None], wanted - wanted.mean(1)[:, None], atol=1e-2
            )
        offset = class_offset(data.labels, "adjusted", 3)
        np.testing.assert_allclose(plain.oof_logits - offset, adjusted.oof_logits, atol=1e-4)
    assert class_offset(data.labels, "none", 3) is class_offset(data.labels, "balanced", 3) is None
    assert np.isfinite(class_offset(data.labels, "adjusted", 4)).all()  # a class without examples


def test_unequal_classes_are_made_up_for_where_the_metric_gains_by_it() -> None:
    shares = (0.8, 0.1, 0.1)

    def chosen(data: Part, metric: str) -> tuple[str, str]:
        here, task = context(), single(3)
        train_head((LINEAR,), data, len(data), task, here, chosen_by(task, metric))
        return here.decisions.settled["train.class_weights"].value, here.decisions.steps["train"]["why"]

    hard = apart(2000, 3, shares, gap=1.0)
    weights, why = chosen(hard, "balanced_accuracy")
    assert weights == "adjusted"  # as good as balanced, and simpler
    assert "balanced accuracy" in why
    assert "macro F1" in chosen(hard, "accuracy")[1]
    assert chosen(hard, "log_loss")[0] == "none"  # which asks for the shares as they are
    # There is nothing to gain
    assert chosen(apart(900, 3, shares, gap=12.0), "balanced_accuracy")[0] == "none"
    weights, why = chosen(apart(), "balanced_accuracy")
    assert weights == "none"
    assert "largest class" not in why


def test_a_class_with_a_single_example_can_be_learnt_from() -> None:
    data = made(np.array([0, 0, 1]), np.array([[0.0, 1], [0, 2], [5, 0]]))
    for layers in (LINEAR, NARROW):
        heads = train_head((layers,), data, 3, single(2), context(head={"kind": layers.kind}))
        assert isinstance(heads, Heads)
        assert heads.oof_logits is None
        assert accuracy(heads.refitted, data) == 1


def test_step_4_offers_mlps_where_there_are_examples_enough_or_the_user_names_them() -> None:
    few, many = min(WIDTHS.values()) - 1, max(WIDTHS.values())
    assert [layers.kind for layers in options(HeadRecipe(), few)] == ["linear"]
    offered = options(HeadRecipe(), many)
    assert [layers.kind for layers in offered] == ["linear", "mlp", "mlp"]
    assert [layers.hidden for layers in offered] == [0, *sorted(WIDTHS)]
    assert options(HeadRecipe(), few + 1) == offered[:2]
    assert options(HeadRecipe(kind="mlp"), few) == offered[1:2]
    assert [layers.hidden for layers in options(HeadRecipe(hidden=7), many)] == [0, 7]
    assert options(HeadRecipe(kind="mlp", hidden=7, dropout=0.5), 10) == (Layers("mlp", 7, 0.5),)
    assert options(HeadRecipe(kind="linear", dropout=0.5), many) == (Layers("linear", 0, 0.5),)
    here = context()
    assert head(10, single(3), many, here) == offered
    assert "step 5" in here.decisions.steps["head"]["why"]
    assert f"{LINEAR.parameters(10, 3)} new parameters" in here.decisions.steps["head"]["decided"]


def test_parameters_are_counted_as_they_are_made() -> None:
    data = apart(60)
    for layers in (LINEAR, NARROW):
        found = train_head((layers,), data, 50, single(3), context(head={"kind": layers.kind})).on_train
        assert sum(p.numel() for p in found.parameters()) == layers.parameters(10, 3)


@pytest.mark.parametrize("layers", [LINEAR, NARROW])
def test_few_examples_are_cross_validated_with_the_layers_chosen(layers: Layers) -> None:
    here = context(
        head={"kind": layers.kind, "hidden": 16, "dropout": 0.0},
        train={"class_weights": "none", "epochs": 10},
    )
    task = Single(("a", "b"))
    found = cross_validate(task, task.headline, layers, apart(24, 2, gap=4.0), here)
    assert found["accuracy"]["value"] > 0.8


def test_of_several_losses_that_a_task_may_be_trained_by_the_simplest_wins_unless_another_is_better() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 6)).astype(np.float32)
    clean = values[:, :1] * 3 + rng.normal(0, 0.3, (300, 1))
    wild = clean + 60 * (rng.random((300, 1)) < 0.05) * rng.choice([-1, 1], (300, 1))
    rare = (values[:, :1] + rng.normal(0, 0.5, (300, 1)) > 1.8).astype(np.float32)
    for task, labels in ((Numbers(("size",)), clean), (Numbers(("size",)), wild), (Multi(("rare",)), rare)):
        here, data = context(), Part(values=values, labels=labels, weights=np.ones(300))
        found = train_head((LINEAR,), data, 240, task.fitted(labels), here).task
        why = here.decisions.steps["train"]["why"]
        assert "squared error" in why or "rare labels weighed a little" in why
        assert getattr(found, "robust", False) == (labels is wild)
        assert not getattr(found, "positive", ())  # weights move thresholds, and log loss needs none
