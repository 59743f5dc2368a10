"""Every engine gives the features of float32 PyTorch, closely enough to see a wrong padding or
normalisation.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from sklearn.datasets import load_sample_images
from torch import nn

from bases import base_of
from regraft.backbones import Backbone, Batch, Provenance, cut_stages, obtain_weights, split, tensors
from regraft.errors import UsageError
from regraft.inference import (
    ENGINES,
    REFERENCE,
    TorchEngine,
    agree,
    agreement,
    makers,
    pick_engine,
    try_engines,
)
from regraft.inference.trial import MEAN_COSINE, WORST_COSINE

SIZE = 96
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base() -> Backbone:
    return base_of(obtain_weights("packaged:efficientnet_lite0"), SIZE)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Crops of two photographs, as the network gets them: (24, 96, 96, 3) uint8."""
    rng, crops = np.random.default_rng(0), []
    for photo in load_sample_images().images:
        for _ in range(12):
            top, left = rng.integers(0, photo.shape[0] - SIZE), rng.integers(0, photo.shape[1] - SIZE)
            crops.append(photo[top : top + SIZE, left : left + SIZE])
    return np.stack(crops)


@pytest.fixture(scope="module")
def expected(base: Backbone, images: np.ndarray) -> np.ndarray:
    network = torch.nn.Sequential(base.preprocess.device(), base.module).eval()
    with torch.no_grad():
        return network(tensors(batch(images))).numpy()


def batch(images: np.ndarray) -> Batch:
    return {"pixels": images}


def skip(error: Exception) -> None:
    """Where an engine cannot be expected to run; any other error is one."""
    if isinstance(error, ImportError):
        known = platform.machine() in ("x86_64", "AMD64")
        pytest.skip(
            f"{error}: pip install openvino" if known else "needs a processor that OpenVINO is published for"
        )
    if "no bfloat16 units" in str(error):
        pytest.skip("needs a processor with bfloat16 units")
    raise error


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_agrees_at_any_batch_and_beside_any_neighbour(
    name, base, images, expected, tmp_path: Path
) -> None:
    made = makers(base, CPU, 32, cache=tmp_path)
    try:
        engine = made[name]()
        found = np.concatenate([engine.run(some)[0] for some in split(batch(images), engine.batch)])
    except (ImportError, RuntimeError) as error:
        skip(error)
    cosines = agreement(expected, found)
    assert cosines.min() > (0.99999 if name.endswith("float32") else WORST_COSINE)
    assert cosines.mean() > MEAN_COSINE
    assert np.array_equal(engine.run(batch(images[5:6]))[0], engine.run(batch(images[5:8]))[0][:1])
    again = made[name]()  # openvino: from what the first has kept
    assert np.array_equal(again.run(batch(images[5:6]))[0], engine.run(batch(images[5:6]))[0])


@pytest.mark.parametrize("name", ENGINES)
def test_one_pass_gives_stages_and_the_activation_at_a_cut(name, base, images) -> None:
    made = makers(base, CPU, 8, depths=(3, 5), cut=6)
    reference = TorchEngine(base, CPU, 8, depths=(3, 5), cut=6).run(batch(images[::3]))
    try:
        found = made[name]().run(batch(images[::3]))
    except (ImportError, RuntimeError) as error:
        skip(error)
    assert [values.shape for values in found] == [values.shape for values in reference]
    for own, other in zip(found, reference, strict=True):  # within a photograph bfloat16 tells less apart
        cosines = agreement(other.reshape(8, -1), own.reshape(8, -1))
        assert cosines.mean() > 0.98
        assert cosines.min() > 0.9


def test_a_wrong_normalisation_or_padding_would_be_refused(base, images, expected) -> None:
    other = replace(base.preprocess, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    wrong = agreement(expected, TorchEngine(replace(base, preprocess=other), CPU).run(batch(images))[0])
    symmetric = timm.create_model("efficientnet_lite0", num_classes=0).eval()
    symmetric.load_state_dict(base.module.state_dict())
    shifted = agreement(expected, TorchEngine(replace(base, module=symmetric), CPU).run(batch(images))[0])
    assert not agree(expected, expected[::-1])
    for cosines in (wrong, shifted):
        assert cosines.mean() < MEAN_COSINE
        assert cosines.min() < WORST_COSINE


class Fake:
    """An engine that gives the mean colours, some slower and some wrong."""

    batch, lanes = 4, 1

    def __init__(self, name: str, factor: float = 1.0, pause: float = 0.0) -> None:
        self.name = self.numerics = name
        self.factor, self.pause = factor, pause

    def run(self, batch: Batch) -> list[np.ndarray]:
        import time

        time.sleep(self.pause)
        values = batch["pixels"].mean(axis=(1, 2)).astype(np.float32)
        return [values if self.factor == 1.0 else values[:, ::-1] * self.factor]


def test_the_fastest_that_agrees_is_taken_and_remembered(images, tmp_path: Path) -> None:
    def missing() -> Any:
        raise ImportError("no such library")

    def broken() -> Any:
        raise RuntimeError("cannot convert")

    made = {
        REFERENCE: lambda: Fake("slow", pause=0.02),
        "wrong": lambda: Fake("wrong", factor=-3.0),
        "missing": missing,
        "broken": broken,
        "good": lambda: Fake("good", pause=0.005),
        "never": lambda: Fake("never"),
    }
    asked = []

    def sample() -> Batch:
        asked.append(1)
        return batch(images)

    name, trials = pick_engine(made, sample, 1000, ("key",), tmp_path)
    said = {trial.engine: trial.in_words() for trial in trials}
    assert name == "good"
    assert "refused" in said["wrong"]
    assert "not installed" in said["missing"]
    assert "cannot convert" in said["broken"]
    assert "never" not in said, "a clear winner ends the trial"
    assert pick_engine(made, sample, 1000, ("key",), tmp_path)[0] == "good"
    assert len(asked) == 1
    pick_engine(made, sample, 1000, ("another key",), tmp_path)
    assert len(asked) == 2
    assert pick_engine(made, sample, 3, ("few",), tmp_path) == (REFERENCE, [])
    for file in (tmp_path / "trials").iterdir():
        file.write_text(json.dumps({"trials": [{"unknown": 1}]}))
    assert pick_engine(made, sample, 1000, ("key",), tmp_path)[0] == "good"
    assert len(asked) == 3


def test_a_network_no_other_engine_runs_has_the_reference(images) -> None:
    def broken() -> Any:
        raise RuntimeError("no")

    assert (
        pick_engine({REFERENCE: lambda: Fake("slow"), "other": broken}, lambda: batch(images), 100, (), None)[
            0
        ]
        == REFERENCE
    )
    assert try_engines({REFERENCE: lambda: Fake("slow")}, batch(images))[0].fits


def test_one_pass_gives_the_stages_that_are_asked_for(base, images) -> None:
    import regraft

    hosted = base.preprocess.collate([base.preprocess.host(image) for image in images])
    expected = TorchEngine(base, CPU).run(hosted)[0]
    features, first, last = regraft.extract(
        base, list(images), depths=(1, len(base.stages) - 1), engine=REFERENCE
    )
    assert agreement(expected, features).min() > 0.99999
    assert len(first) == len(last) == len(images)
    assert first.shape[1] < last.shape[1]
    assert np.allclose(regraft.extract(base, list(images), engine=REFERENCE), features, atol=1e-5)
    with pytest.raises(UsageError, match="torch-float32"):
        regraft.extract(base, list(images), engine="abacus")
    with pytest.raises(UsageError, match="1 to"):
        regraft.extract(base, list(images), depths=(0,))


@dataclass(frozen=True)
class Series:
    """How series of numbers of several lengths reach a network: filled up, with a mask of what is theirs."""

    fingerprint = "series"
    varying = ()

    def collate(self, raws: Sequence[np.ndarray]) -> Batch:
        values, mask = np.zeros((len(raws), 8), np.float32), np.zeros((len(raws), 8), np.bool_)
        for row, raw in enumerate(raws):
            values[row, : len(raw)], mask[row, : len(raw)] = raw, True
        return {"values": values, "mask": mask}

    def device(self) -> nn.Module:
        class Filled(nn.Module):
            def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
                return torch.where(batch["mask"], batch["values"], torch.ones(()))

        return Filled()

    def blank(self, count: int, rng: np.random.Generator | None = None) -> Batch:
        return self.collate([(rng or np.random.default_rng(0)).random(5) for _ in range(count)])


@pytest.mark.parametrize("name", ENGINES)
def test_a_batch_may_hold_any_arrays_by_name(name: str) -> None:
    """No engine knows what an example is: here two arrays, one of them of booleans."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)).eval()
    base = Backbone(
        module, cut_stages(module), Series(), Provenance("toy", "test", "", "none", 1, 8), 4, "toy", {}, ""
    )
    series = [np.arange(length, dtype=np.float32) / 8 for length in (3, 8, 1, 5, 2)]
    filled = np.stack([np.concatenate([one, np.ones(8 - len(one), np.float32)]) for one in series])
    with torch.no_grad():
        expected = module(torch.from_numpy(filled)).numpy()
    try:
        found = makers(base, CPU, 8)[name]().run(base.preprocess.collate(series))[0]
    except (ImportError, RuntimeError) as error:
        skip(error)
    np.testing.assert_allclose(found, expected, atol=1e-5 if name.endswith("float32") else 0.02)
