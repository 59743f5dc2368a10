"""One predictor a model and device: built once, it follows the model, and an answer depends on its item
only.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bases import base_of
from regraft.backbones import obtain_weights
from regraft.inference import engines, predictor
from regraft.inference.predictor import SHAPES, Predictor, shape_for
from regraft.modalities import Unreadable
from regraft.model import Model
from regraft.tasks.single import Single
from regraft.training import make_head

SIZE = 32


@pytest.fixture
def model(tiny: str) -> Model:
    base = base_of(obtain_weights(tiny), SIZE)
    torch.manual_seed(0)
    return Model(base, make_head("linear", base.width, 3), "linear", Single(("a", "b", "c")))


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 40, 40, 3), dtype=np.uint8))


def outputs(model: Model, items: list) -> np.ndarray:
    return np.stack(list(model.outputs(items)))


def anew(model: Model, items: list) -> np.ndarray:
    """What a model that was never asked before says."""
    return outputs(replace(copy.deepcopy(model)), items)


@pytest.mark.parametrize("count", [5, 20, 70])
def test_an_answer_has_the_same_bits_whatever_stands_beside_it(model: Model, count: int) -> None:
    ours, others = pictures(count), pictures(count, seed=1)
    expected = outputs(model, ours)
    for place in (0, count // 2, count - 1):
        mixed = [*others[:place], ours[place], *others[place + 1 :]]
        assert np.array_equal(outputs(model, mixed)[place], expected[place])
    turned = outputs(model, ours[::-1])[::-1]
    assert np.array_equal(turned, expected)


def test_what_cannot_be_read_changes_no_bit_of_the_others(model: Model) -> None:
    items = pictures(6)
    expected = outputs(model, items)
    found = list(model.outputs([*items[:2], b"no picture", *items[3:]]))
    assert isinstance(found[2], Unreadable)
    assert all(np.array_equal(found[place], expected[place]) for place in (0, 1, 3, 4, 5))
    assert isinstance(next(iter(model.outputs([b""]))), Unreadable)


def test_batch_shapes_agree(model: Model) -> None:
    items = pictures(32)
    together = outputs(model, items)
    for count in (1, 3, 8, 15):
        np.testing.assert_allclose(outputs(model, items[:count]), together[:count], rtol=0, atol=1e-5)


def test_a_call_with_no_items_has_no_outputs(model: Model) -> None:
    assert list(model.outputs([])) == []


def test_batches_are_filled_at_least_half() -> None:
    assert [shape_for(count) for count in (0, 1, 3, 4, 15, 16, 32)] == [1, 1, 1, 8, 8, 32, 32]
    assert all(shape_for(count) in SHAPES for count in range(40))


def test_it_is_made_ready_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    made, find = [], engines.find_folds
    monkeypatch.setattr(engines, "find_folds", lambda *given: made.append(1) or find(*given))
    for count in (1, 5, 40, 1):
        outputs(model, pictures(count))
    assert made == [1]
    assert model.predictor() is model.predictor(torch.device("cpu"))


def replaced_convolution(model: Model) -> None:
    convolution = next(m for m in model.backbone.module.modules() if isinstance(m, nn.Conv2d))
    convolution.weight = nn.Parameter(convolution.weight.detach() * 1.5)


def replaced_norm(model: Model) -> None:
    norm = next(m for m in model.backbone.module.modules() if isinstance(m, nn.BatchNorm2d))
    norm.running_mean = norm.running_mean + 1.0


def other_head(model: Model) -> None:
    model.head = make_head("linear", model.backbone.width, 3)


def head_in_place(model: Model) -> None:
    model.head[-1].weight.data.mul_(2.0)  # type: ignore[index, union-attr]


def other_backbone(model: Model) -> None:
    model.backbone = copy.deepcopy(model.backbone)
    replaced_convolution(model)


def other_module(model: Model) -> None:
    model.backbone.module = copy.deepcopy(model.backbone.module)
    replaced_norm(model)


def other_preprocessing(model: Model) -> None:
    model.backbone.preprocess = replace(model.backbone.preprocess, mean=(0.1, 0.2, 0.3))


def left_in_training(model: Model) -> None:
    model.backbone.module.train()
    head_in_place(model)


@pytest.mark.parametrize(
    "change",
    [
        replaced_convolution,
        replaced_norm,
        other_head,
        head_in_place,
        other_backbone,
        other_module,
        other_preprocessing,
        left_in_training,
    ],
)
def test_whatever_is_replaced_between_two_calls_counts_in_the_second(change, model: Model) -> None:
    items = pictures(5)
    before = outputs(model, items)
    change(model)
    found = outputs(model, items)
    assert not np.array_equal(found, before)
    assert np.array_equal(found, anew(model, items))


def test_a_copy_is_a_model_of_its_own(model: Model) -> None:
    items = pictures(5)
    before = outputs(model, items)
    twin = copy.deepcopy(model)
    replaced_convolution(twin)
    assert np.array_equal(outputs(model, items), before)
    assert np.array_equal(outputs(twin, items), anew(twin, items))
    assert not np.array_equal(outputs(twin, items), before)


def test_changes_in_place_count_in_the_next_call(model: Model) -> None:
    from test_live_weights import CHANGES

    items = pictures(5)
    for change in (getattr(change, "values", (change,))[0] for change in CHANGES):
        before = outputs(model, items)
        change(model.backbone.module)
        found = outputs(model, items)
        assert not np.array_equal(found, before)
        assert np.array_equal(found, anew(model, items))


def test_batches_that_run_at_once_say_what_they_say_one_by_one(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install openvino")
    items: list[Any] = [*pictures(50), b"no picture", *pictures(21, seed=1)]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = []
        for lanes in (1, 2):
            monkeypatch.setattr(predictor, "lanes_for", lambda threads, lanes=lanes: lanes)
            runs = Predictor(model, torch.device("cpu"), "openvino-float32")
            found.append(list(runs.outputs(items)))
            assert {engine.lanes for engine in runs.engines.values()} == {lanes}
    finally:
        torch.set_num_threads(threads)
    for number, (one, two) in enumerate(zip(*found, strict=True)):
        assert isinstance(one, Unreadable) == isinstance(two, Unreadable) == (number == 50)
        if number != 50:
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)
