"""Frozen means frozen: every frozen parameter and buffer hashed before and after real training steps."""

from __future__ import annotations

import pytest
import timm
import torch

from regraft.backbones import cut_stages
from regraft.errors import UsageError
from regraft.training import add_adapters, merge_adapters, plan_freeze

MODELS = ("resnet10t", "convnext_atto", "mobilenetv3_small_050", "vit_tiny_patch16_224")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("strategy", ["head", "last-1", "half", "full", "norm", "bias"])
def test_nothing_frozen_moves_and_something_released_does(name: str, strategy: str) -> None:
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 16} if name.startswith("vit") else {}
    module = timm.create_model(name, num_classes=0, drop_path_rate=0.5, **size)
    plan = plan_freeze(module, cut_stages(module), strategy)
    plan.apply(module)
    head = torch.nn.Linear(module(torch.zeros(2, 3, 32, 32)).shape[1], 3)
    optimiser = torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad] + list(head.parameters()), 1e-2
    )
    before, start = plan.digest(module), {n: p.detach().clone() for n, p in module.named_parameters()}
    for _ in range(3):
        module.train()
        for child in module.modules():
            child.train()
        torch.nn.functional.cross_entropy(
            head(module(torch.randn(4, 3, 32, 32))), torch.tensor([0, 1, 2, 0])
        ).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert plan.digest(module) == before
    moved = {n for n, p in module.named_parameters() if not torch.equal(p, start[n])}
    assert moved <= plan.trainable
    assert bool(moved) == (strategy != "head")


def test_the_digest_sees_a_change_of_one_bit_in_a_frozen_buffer() -> None:
    module = timm.create_model("resnet10t", num_classes=0)
    plan = plan_freeze(module, cut_stages(module), "last-1")
    before = plan.digest(module)
    module.conv1[1].running_mean[0] += 1e-6
    assert plan.digest(module) != before


def test_an_unknown_strategy_names_the_stages() -> None:
    module = timm.create_model("resnet10t", num_classes=0)
    for strategy in ("lst-2", "gradual", "first"):
        with pytest.raises(UsageError, match="layer4"):
            plan_freeze(module, cut_stages(module), strategy)


def test_a_strategy_that_would_release_nothing_is_refused() -> None:
    module = torch.nn.Sequential(
        torch.nn.Linear(3, 3, bias=False), torch.nn.ReLU(), torch.nn.Linear(3, 2, bias=False)
    )
    for strategy in ("norm", "bias"):
        with pytest.raises(UsageError, match="releases nothing"):
            plan_freeze(module, cut_stages(module), strategy)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "vit_tiny_patch16_224"])
def test_adapters_learn_and_are_merged_into_plain_weights(name: str) -> None:
    pytest.importorskip("peft", reason="peft is not installed: pip install regraft[lora]")
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 16} if name.startswith("vit") else {}
    module = timm.create_model(name, num_classes=0, **size).eval()
    names, x = list(module.state_dict()), torch.randn(2, 3, 32, 32)
    start = {key: value.clone() for key, value in module.state_dict().items()}
    assert add_adapters(module) > 10
    plan = plan_freeze(module, cut_stages(module), "lora")
    plan.apply(module)
    before = plan.digest(module)
    assert all(".lora_" in key for key in plan.trainable)
    assert plan.boundary == 0
    optimiser = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], 0.1)
    for _ in range(3):
        module.train()
        module(x).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    assert plan.digest(module) == before
    module.eval()
    adapted = module(x).detach()
    merge_adapters(module)
    assert list(module.state_dict()) == names
    torch.testing.assert_close(module(x), adapted, rtol=1e-3, atol=1e-4)
    assert any(not torch.equal(start[key], value) for key, value in module.state_dict().items())
