"""The engine of GPUs, on a CPU that answers as late as a card does."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bases import base_of
from cards import SlowCard
from regraft.backbones import Backbone, Batch, obtain_weights
from regraft.inference import (
    REFERENCE,
    FeatureStore,
    Feed,
    Predictor,
    TorchEngine,
    agreement,
    gpu,
    makers,
    trial,
)
from regraft.inference.engines import passes
from regraft.inference.gpu import GpuEngine

CPU, CARD = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "Card", SlowCard)
    monkeypatch.setattr(SlowCard, "log", [])


@pytest.fixture(scope="module")
def base(tiny: str) -> Backbone:
    return base_of(obtain_weights(tiny), 32)


@pytest.fixture(scope="module")
def images(base: Backbone) -> Batch:
    return base.preprocess.blank(10, np.random.default_rng(0))


def split(batch: Batch, *sizes: int) -> list[Batch]:
    edges = np.cumsum([0, *sizes])
    return [{"pixels": batch["pixels"][a:b]} for a, b in pairwise(edges)]


def test_several_batches_are_begun_before_the_first_is_waited_for(base, images) -> None:
    engine, plain = GpuEngine(base, CPU, 4, depths=(2,)), TorchEngine(base, CPU, 4, depths=(2,))
    begun = [engine.begin(some) for some in split(images, 4, 4, 2)]
    assert SlowCard.log == ["sent", "awaited", "fetched"] * 3
    for features, some in zip(begun, split(images, 4, 4, 2), strict=True):
        for found, expected in zip(features.result(), plain.run(some), strict=True):
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(engine.run(split(images, 4)[0])[0], begun[0].result()[0])


def test_the_store_and_a_feed_begin_one_batch_ahead(base, images) -> None:
    engine = GpuEngine(base, CPU, 4)
    begun: list[int] = []
    known = engine.begin
    engine.begin = lambda batch: begun.append(len(begun)) or known(batch)  # type: ignore[method-assign]
    groups = [([number], lambda some=some: some) for number, some in enumerate(split(images, 4, 4, 2))]
    with Feed() as feed:
        for number, (keys, found) in enumerate(passes(engine, feed, groups)):
            assert (keys, len(begun)) == ([number], min(number + 2, 3))
            assert len(found[0]) == (4, 4, 2)[number]
    arrays = list(images["pixels"])
    names = [f"{number:032x}" for number in range(10)]
    kept = FeatureStore(None).features(names, arrays, ("key",), base.preprocess, engine, lambda **_: None)[0]
    plain, seen = (
        TorchEngine(base, CPU, 4),
        base.preprocess.collate([base.preprocess.host(a) for a in arrays]),
    )
    expected = np.concatenate([plain.run(some)[0] for some in split(seen, 4, 4, 2)])
    np.testing.assert_allclose(kept, expected, rtol=1e-4, atol=1e-5)


def test_folding_changes_the_last_bits_only_and_compiling_goes_through_torch(
    base, images, monkeypatch
) -> None:
    compiled: list[dict[str, Any]] = []
    monkeypatch.setattr(torch, "compile", lambda module, **how: compiled.append(how) or module)
    engines = {way: GpuEngine(base, CPU, 16, "float32", way=way) for way in ("", gpu.FOLDED, gpu.COMPILED)}
    found = {way: engine.run(images)[0] for way, engine in engines.items()}
    assert engines[gpu.FOLDED].arithmetic.folds
    assert not engines[""].arithmetic.folds
    assert compiled == [{"dynamic": False}]
    assert len({engine.numerics for engine in engines.values()}) == 3
    for features in found.values():
        assert agreement(found[""], features).min() > 0.99999


def test_a_card_is_offered_its_own_engines(base) -> None:
    assert list(makers(base, CARD, 8)) == [
        REFERENCE,
        "torch-bfloat16",
        "torch-bfloat16-folded",
        "torch-bfloat16-compiled",
    ]
    assert "torch-bfloat16-compiled" not in makers(base, CARD, 8, depths=(2,))
    assert "torch-bfloat16-compiled" not in makers(base, CARD, 8, cut=2)
    assert all(isinstance(make(), GpuEngine) for make in makers(base, CARD, 8).values())
    for name, make in makers(base, CARD, 8).items():
        assert make().name == name


def slow(name: str, speed: float, cosine: float = 1.0, start: float = 0.0) -> trial.Trial:
    return trial.Trial(name, speed, cosine, cosine, start=start)


def test_compiling_is_tried_for_long_work_and_its_time_counts(monkeypatch, tmp_path: Path) -> None:
    made = dict.fromkeys([REFERENCE, "torch-bfloat16", trial.COMPILED_BFLOAT16], object)
    known = {
        REFERENCE: slow(REFERENCE, 100),
        "torch-bfloat16": slow("torch-bfloat16", 300),
        trial.COMPILED_BFLOAT16: slow(trial.COMPILED_BFLOAT16, 600, start=40),
    }
    tried: list[list[str]] = []

    def try_engines(some: dict[str, Any], sample: Batch) -> list[trial.Trial]:
        tried.append(list(some))
        return [known[name] for name in some]

    monkeypatch.setattr(trial, "try_engines", try_engines)

    def picked(count: int) -> str:
        return trial.pick_engine(made, dict, count, ("key",), tmp_path)[0]

    assert picked(10_000) == "torch-bfloat16"  # 33 s: nothing is gained
    assert tried == [[REFERENCE, "torch-bfloat16"]]
    assert picked(100_000) == trial.COMPILED_BFLOAT16  # 333 s against 40 and 167
    assert tried[1:] == [[REFERENCE, trial.COMPILED_BFLOAT16]]
    assert picked(20_000) == "torch-bfloat16"  # 67 s against 40 and 33: remembered, and told apart
    assert len(tried) == 2
    assert "after 40 s" in known[trial.COMPILED_BFLOAT16].in_words()


class Model:
    """A backbone and a head, as a predictor wants them."""

    beside = None

    def __init__(self, backbone: Backbone) -> None:
        torch.manual_seed(0)
        self.backbone, self.head = backbone, nn.Linear(backbone.width, 3)


def test_predictions_of_a_card_are_those_of_a_cpu_whatever_cannot_be_read(base, images, monkeypatch) -> None:
    from regraft.inference import predictor

    model = Model(base)
    items: list[Any] = [*images["pixels"][:7], b"no image", *images["pixels"][7:]]
    expected = list(Predictor(model, CPU).rows(items))
    for module in (predictor, trial):
        monkeypatch.setattr(module, "computes_aside", lambda device: True)
    late = Predictor(model, CPU)
    assert late.shapes == predictor.CARDS
    for found, known in zip(late.rows(items), expected, strict=True):
        if isinstance(known, Exception):
            assert str(found) == str(known)
        else:
            np.testing.assert_allclose(found.outputs, known.outputs, rtol=1e-4, atol=1e-5)
    assert len(list(late.rows(items[:1]))) == 1
    assert late.of_raws(list(images["pixels"][:2])).outputs.shape == (2, 3)
