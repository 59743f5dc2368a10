"""What is kept of a network goes by its weights as they are, not by where they came from (17.9)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import regraft
from bases import base_of
from regraft.backbones import Backbone, Batch, obtain_weights
from regraft.inference import REFERENCE, OpenVinoEngine, TorchEngine, feature_key, pick_engine, trial_key
from regraft.model import Model
from regraft.tasks.single import Single
from regraft.training import make_head

SIZE = 32
CPU = torch.device("cpu")


@pytest.fixture
def base(tiny: str) -> Backbone:
    return base_of(obtain_weights(tiny), SIZE)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng, found = np.random.default_rng(0), [tmp_path / f"{number}.png" for number in range(6)]
    for file in found:
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file)
    return found


@pytest.fixture
def images() -> Batch:
    return {"pixels": np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)}


def step_of(optimiser: Callable[..., torch.optim.Optimizer]) -> Callable[[nn.Module], None]:
    def change(module: nn.Module) -> None:
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimiser(module.parameters()).step()

    return change


def in_place(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.1)


def behind_the_back_of_torch(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.data.mul_(1.1)


def turned_round(module: nn.Module) -> None:
    """The same numbers at other places."""
    for parameter in module.parameters():
        parameter.data.copy_(parameter.data.flip(0).clone())


def statistics_only(module: nn.Module) -> None:
    next(buffer for name, buffer in module.named_buffers() if name.endswith("running_mean")).add_(1.0)


CHANGES = [
    in_place,
    behind_the_back_of_torch,
    turned_round,
    statistics_only,
    pytest.param(
        step_of(lambda p: torch.optim.AdamW(p, lr=0.01, fused=True)), id="a step of a fused optimiser"
    ),
]


def tuned(base: Backbone, place: Path) -> Model:
    """A saved and loaded model on a base whose weights have changed; its provenance is that of the
    pre-trained ones.
    """
    own = copy.deepcopy(base)
    in_place(own.module)
    Model(own, make_head("linear", own.width, 2), "linear", Single(("a", "b"))).save(place)
    return regraft.load(place)


def test_features_of_a_fine_tuned_model_are_not_those_of_the_pre_trained_one(
    base: Backbone, files, tmp_path: Path
) -> None:
    expected, cache, model = (
        regraft.extract(base, files, engine=REFERENCE),
        tmp_path / "cache",
        tuned(base, tmp_path / "model"),
    )
    assert model.backbone.provenance == base.provenance  # where the weights came from
    after = regraft.extract(model.backbone, files, cache, engine=REFERENCE)
    assert np.array_equal(regraft.extract(base, files, cache, engine=REFERENCE), expected)
    assert np.array_equal(regraft.extract(model.backbone, files, engine=REFERENCE), after)
    assert np.abs(after - expected).max() > 1e-3


@pytest.mark.parametrize("change", CHANGES)
def test_however_weights_change_their_features_are_new(change, base: Backbone, files, tmp_path: Path) -> None:
    before = regraft.extract(base, files, tmp_path / "cache", engine=REFERENCE)
    change(base.module)
    after = regraft.extract(base, files, tmp_path / "cache", engine=REFERENCE)
    assert np.array_equal(after, regraft.extract(base, files, engine=REFERENCE))
    assert not np.array_equal(before, after)


def test_the_same_weights_are_known_again(
    base: Backbone, tiny: str, files, tmp_path: Path, monkeypatch
) -> None:
    # Leaves them in another layout
    expected = regraft.extract(base, files, tmp_path / "cache", engine=REFERENCE)
    head_only = Model(copy.deepcopy(base), make_head("linear", base.width, 2), "linear", Single(("a", "b")))
    head_only.save(tmp_path / "model")

    def computed(*_: object) -> None:
        raise AssertionError("features that are in the cache were computed")

    monkeypatch.setattr(TorchEngine, "run", computed)
    for known in (base_of(obtain_weights(tiny), SIZE), base, regraft.load(tmp_path / "model").backbone):
        assert np.array_equal(regraft.extract(known, files, tmp_path / "cache", engine=REFERENCE), expected)


def test_the_same_numbers_in_another_network_are_another_fingerprint() -> None:
    padded, symmetric = (
        timm.create_model(f"{kind}efficientnet_lite0", num_classes=0) for kind in ("tf_", "")
    )
    symmetric.load_state_dict(padded.state_dict())
    one = base_of(obtain_weights("packaged:efficientnet_lite0"), SIZE)
    assert len({replace(one, module=module).fingerprint() for module in (padded, symmetric)}) == 2


def converted(backbone: Backbone, cache: Path | None) -> OpenVinoEngine:
    try:
        return OpenVinoEngine(backbone, 4, "float32", cache=cache)
    except ImportError as error:
        pytest.skip(f"{error}: pip install openvino")


def test_a_converted_network_is_not_taken_for_that_of_other_weights(
    base: Backbone, images, tmp_path: Path
) -> None:
    converted(base, tmp_path / "cache").run(images)
    model = tuned(base, tmp_path / "model")
    found = converted(model.backbone, tmp_path / "cache").run(images)[0]
    np.testing.assert_allclose(found, TorchEngine(model.backbone, CPU).run(images)[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("change", CHANGES)
def test_an_engine_made_before_the_weights_changed_runs_those_there_are(
    change, base: Backbone, images
) -> None:
    engines = converted(base, None), TorchEngine(base, CPU, 4)
    for engine in engines:
        engine.run(images)
    keys = [feature_key(engine) for engine in engines]
    change(base.module)
    assert [feature_key(engine) for engine in engines] != keys
    expected = TorchEngine(base, CPU, 4).run(images)[0]
    for engine in engines:
        np.testing.assert_allclose(engine.run(images)[0], expected, rtol=1e-3, atol=1e-3)


def test_what_torch_sees_change_is_converted_anew_unasked(base: Backbone, images) -> None:
    engine = converted(base, None)
    before = engine.run(images)[0]
    in_place(base.module)
    np.testing.assert_allclose(
        engine.run(images)[0], TorchEngine(base, CPU, 4).run(images)[0], rtol=1e-3, atol=1e-3
    )
    assert np.abs(engine.run(images)[0] - before).max() > 1e-3


def test_a_trial_is_remembered_for_the_weights_it_was_made_with(
    base: Backbone, images, tmp_path: Path
) -> None:
    asked = []

    def pick(backbone: Backbone) -> str:
        def sample() -> Batch:
            asked.append(1)
            return images

        made = {REFERENCE: lambda: TorchEngine(backbone, CPU, 4)}
        return pick_engine(made, sample, 1000, trial_key(backbone, CPU, 4), tmp_path)[0]

    model = tuned(base, tmp_path / "model")
    for backbone, trials in ((base, 1), (copy.deepcopy(base), 1), (model.backbone, 2), (base, 2)):
        assert pick(backbone) == REFERENCE
        assert len(asked) == trials


def test_where_things_lie_in_memory_is_no_part_of_a_fingerprint(base: Backbone) -> None:
    """A checkpoint goes by it too, and is read by another process."""

    class Told(nn.Identity):
        where = 0x7F00

        def extra_repr(self) -> str:
            return f"<function act at {self.where:#x}>"

    base.module.add_module("told", Told())
    before = base.fingerprint()
    base.module.told.where = 0x7FFF
    assert base.fingerprint() == before
