"""Features of all depths, joined: each of length 1, of any network, saved and loaded with the model."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from regraft.backbones import Backbone, Tapped, Way, joined, make_base, obtain_weights, tensors, widths_of
from regraft.backbones.taps import entrance, tapped
from regraft.modalities import modality_of
from regraft.model import Model
from regraft.tasks import task_of
from regraft.training import linear_head, plan_freeze


@pytest.fixture
def base(tiny: str) -> Backbone:
    obtained = obtain_weights(tiny)
    return make_base(obtained, modality_of("image").preprocess(obtained.config, 64, None, 64, True)[0])


def batch(base: Backbone) -> dict[str, torch.Tensor]:
    return tensors(base.preprocess.blank(3, np.random.default_rng(0)))


def test_features_are_those_of_every_depth_at_length_one(base: Backbone) -> None:
    every = joined(base)
    depths = tuple(range(1, len(base.stages)))
    with torch.no_grad():
        last, *shallow = Tapped(base, depths).eval()(batch(base))
        (found,) = Tapped(every).eval()(batch(base))
    expected = torch.cat([values / values.norm(dim=1, keepdim=True) for values in (*shallow, last)], dim=1)
    assert torch.allclose(found, expected, atol=1e-6)
    assert every.width == found.shape[1]
    assert every.network is base.module
    assert every.fingerprint() != base.fingerprint()


def test_deviations_over_the_positions_follow_the_means(base: Backbone) -> None:
    means, both = joined(base), joined(base, "deviations")
    with torch.no_grad():
        (found,) = Tapped(both).eval()(batch(base))
        (first,) = Tapped(means).eval()(batch(base))
        given = base.preprocess.device()(batch(base))
        _, caught = tapped(base.module, given, {1: entrance(base, 1)})
    assert torch.equal(found[:, : means.width], first)
    expected = caught[1].flatten(2).std(dim=2, correction=0)
    shown = found[:, means.width : means.width + expected.shape[1]]
    assert torch.allclose(shown, expected / expected.norm(dim=1, keepdim=True), atol=1e-4)
    assert both.width == 2 * means.width - base.width
    assert len({base.fingerprint(), means.fingerprint(), both.fingerprint()}) == 3


def test_its_stages_are_those_of_the_network_and_can_be_frozen(base: Backbone) -> None:
    every = joined(base)
    assert [stage.name for stage in every.stages] == [stage.name for stage in base.stages]
    plan = plan_freeze(every.module, every.stages, "last-1")
    plan.apply(every.module)
    moving = {name for name, parameter in every.module.named_parameters() if parameter.requires_grad}
    assert moving == set(every.stages[-1].parameters)


def test_faded_each_depth_is_half_as_long_as_the_next(base: Backbone) -> None:
    plain, faded = joined(base), joined(base, "faded")
    with torch.no_grad():
        (whole,), (found,) = (Tapped(every).eval()(batch(base)) for every in (plain, faded))
    lengths = [part.norm(dim=1) for part in found.split(widths_of(base), dim=1)]
    for shallow, deep in pairwise(lengths):
        assert torch.allclose(2 * shallow, deep)
    assert torch.allclose(lengths[-1], torch.ones(3))
    assert torch.allclose(found[:, -base.width :], whole[:, -base.width :])
    assert faded.fingerprint() not in (plain.fingerprint(), base.fingerprint())


@pytest.mark.parametrize("way", [True, "faded", "deviations"])
def test_a_model_of_joined_features_is_saved_and_loaded(base: Backbone, way: Way, tmp_path: Path) -> None:
    every, task = joined(base, way), task_of("single", ("a", "b"))
    features = Tapped(every).eval()(batch(base))[0].detach().numpy()
    head = linear_head(features, np.array([0, 1, 1]), np.ones(3), task, 0.1)
    model = Model(every, head, "linear", task)
    model.save(tmp_path)
    again = Model.load(tmp_path)
    assert again.backbone.join == every.join
    assert again.backbone.width == every.width
    items = [np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8) for number in range(3)]
    expected = [one.probability for one in model.predict(items)]
    assert [one.probability for one in again.predict(items)] == pytest.approx(expected, abs=1e-6)
    network = obtain_weights(f"run:{tmp_path}").module  # without the join, for another run
    assert network.state_dict().keys() == base.module.state_dict().keys()


@pytest.mark.parametrize("way", [True, "faded", "deviations"])
def test_a_traced_graph_takes_any_number_of_examples(base: Backbone, way: Way) -> None:
    every = joined(base, way).module.eval()
    several, more = torch.rand(2, 3, 64, 64), torch.rand(5, 3, 64, 64)
    traced = torch.export.export(every, (several,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    with torch.no_grad():
        assert torch.allclose(traced(more), every(more), atol=1e-5)
