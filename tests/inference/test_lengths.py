"""Items of their own lengths: batches of one shape, and answers that what stands beside does not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from regraft.backbones import Backbone, Batch, Provenance, cut_stages
from regraft.inference import ENGINES, REFERENCE, FeatureStore, Outcome, Predictor, TorchEngine, alike, makers
from regraft.modalities import Unreadable, bucket_of
from regraft.training import shuffled

CPU = torch.device("cpu")


class Steps:
    """Series of numbers of any length, padded to a bucket with a mask."""

    fingerprint, varying = "steps", ("values", "mask")

    def host(self, item: Any) -> np.ndarray:
        if isinstance(item, str):
            raise Unreadable(item)
        return np.asarray(item)

    def collate(self, raws: Sequence[np.ndarray]) -> Batch:
        longest = bucket_of(max(map(len, raws)))
        values, mask = (np.zeros((len(raws), longest), np.float32) for _ in range(2))
        for row, raw in enumerate(raws):
            values[row, : len(raw)], mask[row, : len(raw)] = raw, 1
        return {"values": values, "mask": mask}

    def device(self) -> nn.Module:
        return nn.Identity()

    def blank(self, count: int, rng: np.random.Generator | None = None) -> Batch:
        return self.collate([np.ones(12, np.float32)] * count)


@dataclass
class Whole:
    """A backbone with a head."""

    backbone: Backbone
    head: nn.Module
    beside: nn.Module | None = None


class Means(nn.Module):
    """(B, L) numbers with a mask to (B, 4): two layers at each position, then the mean of what counts."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 8), nn.Linear(8, 4))

    def forward(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.pooled(self.layers(given["values"][..., None]), given)

    def pooled(self, activation: torch.Tensor, given: dict[str, torch.Tensor]) -> torch.Tensor:
        mask = given["mask"][..., None]
        return (activation * mask).sum(1) / mask.sum(1)


@pytest.fixture
def base() -> Backbone:
    torch.manual_seed(0)
    module = Means().eval()
    origin = Provenance("toy", "test", "", "none", 1, 12)
    return Backbone(module, cut_stages(module), Steps(), origin, 4, "toy", {}, "")  # type: ignore[arg-type]


def series(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=int(rng.integers(1, 40))).astype(np.float32) for _ in range(count)]


def test_buckets_are_few_and_hold_what_they_are_for() -> None:
    lengths = range(1, 2_000)
    buckets = [bucket_of(length) for length in lengths]
    assert all(
        length <= bucket <= max(8, 1.25 * length) for length, bucket in zip(lengths, buckets, strict=True)
    )
    assert all(bucket_of(bucket) == bucket for bucket in buckets)
    assert sorted(set(buckets))[:8] == [8, 10, 12, 14, 16, 20, 24, 28]
    assert len(set(buckets)) < 36


def test_batches_are_of_one_bucket_each_item_once_and_full_where_they_can_be() -> None:
    items = series(100)
    batches = list(alike(enumerate(items), 8))
    assert sorted(row for rows, _ in batches for row in rows) == list(range(100))
    assert all(len({bucket_of(len(raw)) for raw in raws}) == 1 for _, raws in batches)
    buckets = {bucket_of(len(item)) for item in items}
    assert sum(len(rows) < 8 for rows, _ in batches) <= len(buckets)


def test_networks_of_items_of_many_lengths_take_fuller_batches(base: Backbone) -> None:
    assert makers(base, CPU, 32)[REFERENCE]().batch == 32
    try:
        assert makers(base, CPU, 32)["openvino-float32"]().batch == 32
        base.preprocess.varying = ()
        assert makers(base, CPU, 32)["openvino-float32"]().batch == 8
    except ImportError as error:
        pytest.skip(f"{error}: pip install openvino")


def test_long_items_of_rare_lengths_are_not_padded_to_large_batches(
    base: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = Steps().collate([np.ones(20_000, np.float32)])
    monkeypatch.setattr(
        Steps, "blank", lambda self, count: {k: np.repeat(a, count, axis=0) for k, a in wide.items()}
    )
    assert makers(base, CPU, 32)[REFERENCE]().batch == 8
    sizes: list[int] = []
    usual = TorchEngine.forward

    def counted(self: TorchEngine, batch: Batch) -> list[np.ndarray]:
        sizes.append(len(batch["values"]))
        return usual(self, batch)

    monkeypatch.setattr(TorchEngine, "forward", counted)
    items = series(60)
    answers = list(Predictor(Whole(base, nn.Linear(4, 3)), CPU).rows(items))
    assert len(answers) == 60
    assert max(sizes) == 8
    assert sum(sizes) <= 60 + 7 * len({bucket_of(len(item)) for item in items})


def test_items_of_one_length_make_the_batches_in_their_order() -> None:
    items = [np.zeros(12) for _ in range(10)]
    assert [rows for rows, _ in alike(enumerate(items), 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_nobody_waits_for_more_than_was_said() -> None:
    lone = [np.zeros(100), *(np.zeros(12) for _ in range(100))]
    given: list[int] = []

    def stream() -> object:
        for number, raw in enumerate(lone):
            given.append(number)
            yield number, raw

    first = next(rows for rows, _ in alike(stream(), 8, ahead=20) if 0 in rows)  # type: ignore[arg-type]
    assert first == [0]
    assert len(given) == 21


@pytest.mark.parametrize("name", ENGINES)
def test_features_have_the_same_bits_whatever_else_is_asked_for(
    name: str, base: Backbone, tmp_path: Path
) -> None:
    items, ids = series(60), [f"{number:032x}" for number in range(60)]

    def features(rows: list[int], folder: Path | None) -> np.ndarray:
        engine = makers(base, CPU, 8, (1,))[name]()
        some = [items[row] for row in rows]
        key, columns = ("steps",), ("pooled", "depth 1")
        store = FeatureStore(folder)
        pooled, shallow = store.features(
            [ids[row] for row in rows], some, key, base.preprocess, engine, lambda **_: None, columns=columns
        )
        return np.concatenate([pooled, shallow], axis=1)

    try:
        together = features(list(range(60)), tmp_path)
    except ImportError as error:
        pytest.skip(f"{error}: pip install openvino")
    except RuntimeError as error:
        if "no bfloat16 units" not in str(error):
            raise
        pytest.skip("needs a processor with bfloat16 units")
    with torch.no_grad():
        for row in (3, 31):
            expected = base.module(base.preprocess.device()(tensors_of(base, items[row]))).numpy()[0]
            tolerance = 1e-5 if name.endswith("float32") else 0.03
            np.testing.assert_allclose(together[row, :4], expected, atol=tolerance)
    backwards = list(range(59, -1, -7))
    np.testing.assert_array_equal(features(backwards, None), together[backwards])
    np.testing.assert_array_equal(features(backwards, tmp_path), together[backwards])


def test_a_predictor_answers_in_order_and_with_the_same_bits_beside_any_others(base: Backbone) -> None:
    runs = Predictor(Whole(base, nn.Linear(4, 3)), CPU)
    items: list[Any] = series(90)
    items[7] = items[40] = "unreadable"
    answers = list(runs.rows(iter(items)))
    assert [isinstance(answer, Unreadable) for answer in answers] == [isinstance(i, str) for i in items]
    few = [items[row] for row in range(89, -1, -3) if not isinstance(items[row], str)]
    expected = [answers[row] for row in range(89, -1, -3) if not isinstance(items[row], str)]
    raws = runs.of_raws(few)
    for row, (answer, other) in enumerate(zip(runs.rows(few), expected, strict=True)):
        assert isinstance(answer, Outcome)
        assert isinstance(other, Outcome)
        np.testing.assert_array_equal(answer.outputs, other.outputs)
        np.testing.assert_array_equal(raws.outputs[row], other.outputs)
        np.testing.assert_array_equal(raws.features[row], other.features)


def test_a_list_fills_its_batches_where_a_stream_does_not_wait(
    base: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, passes = series(1_200), []
    usual = Predictor.of_batch

    def counted(self: Predictor, batch: Batch, *more: int) -> list[Outcome]:
        passes.append(len(batch["values"]))
        return usual(self, batch, *more)

    monkeypatch.setattr(Predictor, "of_batch", counted)
    listed = list(Predictor(Whole(base, nn.Linear(4, 3)), CPU).rows(items))
    of_list = len(passes)
    assert of_list <= len(items) / 32 + len({bucket_of(len(item)) for item in items})
    streamed = list(Predictor(Whole(base, nn.Linear(4, 3)), CPU).rows(iter(items)))
    assert len(listed) == len(streamed) == len(items)
    assert len(passes) - of_list > of_list


def tensors_of(base: Backbone, item: np.ndarray) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in base.preprocess.collate([item]).items()}


def test_training_batches_hold_examples_of_like_length_each_once_in_an_order_of_the_epoch() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1_000)
    first, again, second = (shuffled(1_000, 0, epoch, 16, lengths=lengths) for epoch in (1, 1, 2))
    assert sorted(np.concatenate(first).tolist()) == list(range(1_000))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.mean([np.ptp(lengths[some]) for some in first]) < 10
    means = np.array([lengths[some].mean() for some in first])
    assert (
        abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.4
    )  # no curriculum: the batches are shuffled
    assert len(first) == len(shuffled(1_000, 0, 1, 16))
