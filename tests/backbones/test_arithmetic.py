"""The shortcuts of training keep the mathematics: the same logits, and the same gradients for the same
parameters.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from bases import base_of
from regraft.backbones import Arithmetic, find_folds, obtain_weights, pick_arithmetic, plain
from regraft.backbones.arithmetic import _Depthwise
from regraft.training import Network, make_head, plan_freeze

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    base = base_of(obtain_weights("packaged:efficientnet_lite0"), 64)
    plan_freeze(base.module, base.stages, "full").apply(base.module)
    return Network(base, make_head("linear", base.width, 3)).to(memory_format=torch.channels_last).train()


@pytest.fixture(scope="module")
def batch() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    return {"pixels": torch.from_numpy(pixels)}, torch.tensor([0, 1, 2, 0, 1, 2])


def gradients(
    network: nn.Module, batch: tuple[dict[str, torch.Tensor], torch.Tensor], how: Arithmetic
) -> dict[str, torch.Tensor]:
    network.zero_grad()
    with how():
        logits = network(batch[0])
    nn.functional.cross_entropy(logits.float(), batch[1]).backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def likeness(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    x, y = (torch.cat([found[name].double().flatten() for name in a]) for found in (a, b))
    return float(nn.functional.cosine_similarity(x, y, dim=0))


def test_folded_norms_give_every_parameter_the_same_gradient(network, batch) -> None:
    folds = find_folds(network, batch[0])
    norms = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
    assert len(folds) == norms == 49
    expected = gradients(network, batch, plain(CPU))
    found = gradients(network, batch, Arithmetic("float32", CPU, folds))
    assert likeness(expected, found) > 0.99999
    for name, gradient in expected.items():
        assert torch.allclose(
            found[name], gradient, rtol=0.02, atol=1e-3 * float(gradient.abs().max()) + 1e-6
        ), name


def test_bfloat16_gradients_point_the_same_way_with_and_without_the_shortcuts(network, batch) -> None:
    exact = gradients(network, batch, plain(CPU))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(batch[0])
    network.zero_grad()
    nn.functional.cross_entropy(logits.float(), batch[1]).backward()
    usual = {name: p.grad.clone() for name, p in network.named_parameters()}
    ours = gradients(network, batch, Arithmetic("bfloat16", CPU, find_folds(network, batch[0])))
    assert likeness(exact, ours) > likeness(exact, usual) - 0.02
    assert likeness(exact, ours) > 0.95


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 0), (5, 1, 2), (5, 2, 0), (7, 1, 3), (4, 1, 0)]
)
def test_gradients_of_depthwise_convolutions(kernel: int, stride: int, padding: int) -> None:
    torch.manual_seed(1)
    x, weight, bias = torch.randn(2, 8, 15, 13), torch.randn(8, 1, kernel, kernel), torch.randn(8)
    exact = [t.bfloat16().double().requires_grad_() for t in (x, weight, bias)]
    rounded = [t.bfloat16().requires_grad_() for t in (x, weight, bias)]
    result = torch.conv2d(*exact, stride, padding, 1, 8)
    slope = torch.randn_like(result).bfloat16()
    result.backward(slope.double())
    _Depthwise.apply(*rounded, ([stride] * 2, [padding] * 2, [1, 1])).backward(slope)
    for own, other in zip(rounded, exact, strict=True):
        assert torch.allclose(
            own.grad.double(), other.grad, rtol=0.03, atol=0.02 * float(other.grad.abs().max())
        )


def test_norms_whose_statistics_move_and_shared_outputs_are_not_folded() -> None:
    moving = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    images, before = torch.randn(2, 3, 8, 8), copy.deepcopy(moving.state_dict())
    assert find_folds(moving, images) == {}
    assert all(torch.equal(value, before[name]) for name, value in moving.state_dict().items())

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.norm(y) + y

    shared = Shared().eval()
    shared.norm.running_var.fill_(4.0)
    assert find_folds(shared, images) == {}


def test_the_trial_takes_what_was_asked_for_and_leaves_the_network_as_it_was(
    network, batch, monkeypatch
) -> None:
    monkeypatch.setattr("regraft.backbones.arithmetic.may_gain_from_bfloat16", lambda device: True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    arithmetic, speed = pick_arithmetic(network, batch[0])
    assert set(speed) == {"float32", "bfloat16"}
    assert arithmetic.precision in speed
    assert pick_arithmetic(network, batch[0], precision="float32")[0].precision == "float32"
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_no_trial_where_the_processor_only_emulates_bfloat16(network, batch, monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(
        "regraft.backbones.arithmetic.seconds_a_step", lambda *_: pytest.fail("a trial was made")
    )
    arithmetic, speed = pick_arithmetic(network, batch[0])
    assert arithmetic.precision == "float32"
    assert not speed
